"""Peak memory of tracing a cross-layer set of several gigabytes that stays in its files.

python -m benchmarks.large_clt --gigabytes 5 [--topk]

Writes a random bfloat16 set and a small model into a temporary folder, traces a prompt in a process of its own with lazy encoders
and decoders, and prints the peak above what the same process holds with the model alone: resident pages of all kinds (VmHWM, with
those of mapped files) and anonymous ones (RssAnon, at the end of each phase). With --topk
the set is like ByteDance-Seed/Cross-Layer-TopK-CLT: no biases, stored decoder norms, ten features per layer active on average.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.shapes import Shape, llama, number_tokenizer, random_backend, random_prompt, thresholds

SHAPE = Shape(d_model=1024, n_layers=16, n_heads=16, n_kv_heads=4, d_mlp=4096)


def write_set(folder: Path, gigabytes: float, *, topk: bool = False) -> int:
    """The model and a set of about that size, layer by layer; the number of features per layer."""
    from safetensors.torch import save_file

    d, n_layers = SHAPE.d_model, SHAPE.n_layers
    rows = n_layers + n_layers * (n_layers + 1) // 2
    n_features = round(gigabytes * 1e9 / (rows * d * 2)) // 64 * 64
    llama(SHAPE).save_pretrained(folder / "model")
    number_tokenizer().save_pretrained(folder / "model")
    backend = random_backend(SHAPE, torch.device("cpu"), torch.float32)
    generator = torch.Generator().manual_seed(1)

    def normal(*size: int) -> torch.Tensor:
        return torch.empty(*size, dtype=torch.bfloat16).normal_(std=d**-0.5, generator=generator)

    place = folder / "set"
    place.mkdir()
    encoders = [normal(n_features, d) for _ in range(n_layers)]
    cuts = [] if topk else thresholds(backend, [encoder.float() for encoder in encoders])
    for layer in range(n_layers):
        encoder = {f"W_enc_{layer}": encoders[layer]}
        if not topk:
            encoder |= {
                f"b_enc_{layer}": torch.zeros(n_features),
                f"b_dec_{layer}": torch.zeros(d),
                f"threshold_{layer}": cuts[layer],
            }
        save_file(encoder, place / f"W_enc_{layer}.safetensors")
        decoder = {f"W_dec_{layer}": normal(n_features, n_layers - layer, d)}
        if topk:
            decoder[f"W_dec_norm_{layer}"] = decoder[f"W_dec_{layer}"].flatten(1).float().norm(dim=1)
        save_file(decoder, place / f"W_dec_{layer}.safetensors")
    (place / "config.yaml").write_text(
        json.dumps(
            {
                "model_kind": "cross_layer_transcoder",
                "model_name": str(folder / "model"),
                "feature_input_hook": "mlp.hook_in",
                "feature_output_hook": "hook_mlp_out",
                "scan": "random",
                **({"activation": "cross_layer_topk", "k": 10 * n_layers} if topk else {}),
            }
        )
    )
    return n_features


def memory() -> dict[str, int]:
    """Resident memory of this process in bytes: now (all, anonymous) and the highest so far."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(lines[name].split()[0]) * 1024 for name in ("VmHWM", "VmRSS", "RssAnon")}


class Watched:
    """A progress display that writes down the memory at the end of every phase."""

    def __init__(self) -> None:
        self.seen: dict[str, dict[str, int]] = {}
        self.name = "start"

    def phase(self, name: str, total: int | None = None) -> None:
        """The next phase."""
        self.seen[self.name] = memory()
        self.name = name

    def advance(self, steps: int = 1) -> None:
        """Nothing."""

    def note(self, message: str) -> None:
        """Nothing."""


def trace(folder: Path, n_tokens: int, nodes: int) -> None:
    """Trace in this process and print what it took as JSON."""
    import time

    from circuit_tracer_cli.attribution.attribute import attribute
    from circuit_tracer_cli.backends.base import Hooks
    from circuit_tracer_cli.backends.transformerlens import TransformerLensBackend
    from circuit_tracer_cli.replacement import ReplacementModel
    from circuit_tracer_cli.transcoders.loading import load_transcoders

    torch.set_num_threads(1)
    backend = TransformerLensBackend.from_pretrained(
        str(folder / "model"), torch.device("cpu"), torch.float32
    )
    with torch.no_grad():
        backend.run(random_prompt(n_tokens), Hooks())
    Path("/proc/self/clear_refs").write_text("5")
    alone = memory()
    loaded = load_transcoders(str(folder / "set"), dtype=torch.float32, lazy_encoder=True, lazy_decoder=True)
    watched, start = Watched(), time.perf_counter()
    graph = attribute(
        random_prompt(n_tokens),
        ReplacementModel(backend, loaded.transcoders),
        max_feature_nodes=nodes,
        batch_size=256,
        progress=watched,
    )
    watched.phase("end")
    print(
        json.dumps(
            {
                "model_alone": alone,
                "peak": memory()["VmHWM"],
                "anonymous": max(seen["RssAnon"] for seen in watched.seen.values()),
                "active": len(graph.active_features),
                "edges": graph.edges.nnz,
                "seconds": round(time.perf_counter() - start, 1),
                "timings": graph.metadata["timings"],
            }
        )
    )


def main() -> None:
    """Write, trace, print, remove."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--gigabytes", type=float, default=5.0)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument(
        "--topk", action="store_true", help="A set that chooses its features over all layers."
    )
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder:
        trace(options.folder, options.tokens, options.nodes)
        return
    with tempfile.TemporaryDirectory(prefix="circuit-tracer-large-clt-") as name:
        n_features = write_set(Path(name), options.gigabytes, topk=options.topk)
        size = sum(path.stat().st_size for path in (Path(name) / "set").iterdir())
        command = [sys.executable, "-m", "benchmarks.large_clt", "--folder", name]
        command += ["--tokens", str(options.tokens), "--nodes", str(options.nodes)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    base = found["model_alone"]["VmHWM"]
    print(f"set          {size / 1e9:.2f} GB, {SHAPE.n_layers} layers of {n_features} features")
    print(f"prompt       {options.tokens} tokens, {found['active']} active features, {found['edges']} edges")
    print(f"model alone  {base / 1e9:.2f} GB")
    print(
        f"peak         {found['peak'] / 1e9:.2f} GB, {(found['peak'] - base) / 1e9:.2f} GB above the model's own"
    )
    print(f"anonymous    {found['anonymous'] / 1e9:.2f} GB")
    print(f"time         {found['seconds']} s {found['timings']}")


if __name__ == "__main__":
    main()
