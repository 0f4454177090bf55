"""Transcoder sets that are known to be on the hub. A table for information: sets that aren't in it load just as well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from circuit_tracer_cli.transcoders.base import Kind

ALIASES = {"gemma": "mwhanna/gemma-scope-transcoders", "llama": "mntss/transcoder-Llama-3.2-1B"}


CONFIGS: dict[str, dict[str, str | int]] = {
    "ByteDance-Seed/Cross-Layer-TopK-CLT": {
        "model_kind": "cross_layer_transcoder",
        "model_name": "Qwen/Qwen3-8B-Base",
        "feature_input_hook": "hook_resid_mid",
        "feature_output_hook": "hook_mlp_out",
        "activation": "cross_layer_topk",
        "k": 360,
    }
}
"""The configuration of a published repository without a `config.yaml`, from its model card."""


@dataclass(frozen=True, slots=True)
class KnownSet:
    """A published set. `d_transcoder` is None if the reference doesn't tell."""

    reference: str
    model: str
    kind: Kind
    activation: str
    n_layers: int
    d_model: int
    d_transcoder: int | None = None

    @property
    def alias(self) -> str | None:
        """The short name that means it, if there is one."""
        return next((alias for alias, reference in ALIASES.items() if reference == self.reference), None)

    @property
    def parameters(self) -> int | None:
        """Number of elements in its encoders and decoders; twice as many bytes in bfloat16, four times as many in float32."""
        if self.d_transcoder is None:
            return None
        decoders = self.n_layers if self.kind == "plt" else self.n_layers * (self.n_layers + 1) // 2
        return (self.n_layers + decoders) * self.d_transcoder * self.d_model


_GEMMA_3 = (("270m", 18, 640), ("1b", 26, 1152), ("4b", 34, 2560), ("12b", 48, 3840), ("27b", 62, 5376))
_QWEN_3 = (
    ("0.6B", "0.6b-transcoders-lowl0", 28, 1024),
    ("1.7B", "1.7b-transcoders-lowl0", 28, 2048),
    ("4B", "4b-transcoders", 36, 2560),
    ("8B", "8b-transcoders", 36, 4096),
    ("14B", "14b-transcoders-lowl0", 40, 5120),
)
_WIDTHS = {"16k": 2**14, "262k": 2**18}


def _gemma_3(size: str, n_layers: int, d_model: int) -> list[KnownSet]:
    sets = []
    for training, suffix in (("pt", "-pt"), ("it", "-it")):
        repo, model = f"mwhanna/gemma-scope-2-{size}-{training}", f"google/gemma-3-{size}{suffix}"
        sets += [
            KnownSet(
                f"{repo}/transcoder_all/width_{width}_l0_small_affine",
                model,
                "plt",
                "jumprelu",
                n_layers,
                d_model,
                count,
            )
            for width, count in _WIDTHS.items()
        ]
        sets.append(
            KnownSet(
                f"{repo}/clt/width_262k_l0_medium_affine", model, "clt", "jumprelu", n_layers, d_model, None
            )
        )
    return sets


KNOWN_SETS: tuple[KnownSet, ...] = (
    KnownSet(ALIASES["gemma"], "google/gemma-2-2b", "plt", "jumprelu", 26, 2304, 2**14),
    KnownSet("mntss/gemma-scope-transcoders", "google/gemma-2-2b", "plt", "jumprelu", 26, 2304, 2**14),
    KnownSet("mntss/clt-gemma-2-2b-426k", "google/gemma-2-2b", "clt", "relu", 26, 2304, 2**14),
    KnownSet("mntss/clt-gemma-2-2b-2.5M", "google/gemma-2-2b", "clt", "relu", 26, 2304, 98304),
    KnownSet(ALIASES["llama"], "meta-llama/Llama-3.2-1B", "plt", "relu", 16, 2048),
    KnownSet("mntss/clt-llama-3.2-1b-524k", "meta-llama/Llama-3.2-1B", "clt", "relu", 16, 2048, 2**15),
    KnownSet(
        "facebook/crv-8b-instruct-transcoders", "meta-llama/Llama-3.1-8B-Instruct", "plt", "topk", 32, 4096
    ),
    *(
        KnownSet(f"mwhanna/qwen3-{name}", f"Qwen/Qwen3-{size}", "plt", "relu", n_layers, d_model)
        for size, name, n_layers, d_model in _QWEN_3
    ),
    KnownSet("mntss/clt-131k", "openai/gpt-oss-20b", "clt", "jumprelu", 24, 2880),
    KnownSet(
        "bluelightai/clt-qwen3-0.6b-base-20k", "Qwen/Qwen3-0.6B-Base", "clt", "jumprelu", 28, 1024, 20480
    ),
    KnownSet(
        "bluelightai/clt-qwen3-1.7b-base-20k", "Qwen/Qwen3-1.7B-Base", "clt", "jumprelu", 28, 2048, 20480
    ),
    KnownSet(
        "ByteDance-Seed/Cross-Layer-TopK-CLT",
        "Qwen/Qwen3-8B-Base",
        "clt",
        "topk",
        36,
        4096,
        2**15,
    ),
    *(known for row in _GEMMA_3 for known in _gemma_3(*row)),
)
