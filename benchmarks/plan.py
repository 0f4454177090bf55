"""Predicted against measured peak memory, phase by phase, each case in a process of its own.

python -m benchmarks.plan --tokens 16 64 256 --kinds plt clt
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

SMALL = {
    "d_model": 512,
    "n_layers": 8,
    "n_heads": 8,
    "n_kv_heads": 4,
    "d_mlp": 2048,
    "plt_features": 8192,
    "clt_features": 4096,
}


def write_case(kind: str, folder: Path, sizes: dict[str, int]) -> None:
    """A random model and set on disk."""
    import torch

    from benchmarks.shapes import Shape, llama, number_tokenizer, random_model

    llama(Shape(**sizes)).save_pretrained(folder / "model")
    number_tokenizer().save_pretrained(folder / "model")
    model = random_model(kind, Shape(**sizes), torch.device("cpu"), torch.float32)
    model.transcoders.to_safetensors(folder / "set")
    (folder / "set" / "config.yaml").write_text(
        json.dumps(
            {
                "model_kind": "transcoder_set" if kind == "plt" else "cross_layer_transcoder",
                "model_name": str(folder / "model"),
                "feature_input_hook": "mlp.hook_in",
                "feature_output_hook": "hook_mlp_out",
                "scan": "random",
            }
        )
    )


class PeakPhases:
    """A progress display that reads the process's peak memory at the end of every phase."""

    def __init__(self) -> None:
        self.peaks: dict[str, int] = {}
        self.name = "loading"

    def end(self) -> None:
        """Write down the peak since the phase began."""
        status = Path("/proc/self/status").read_text()
        peak = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
        self.peaks[self.name] = max(peak, self.peaks.get(self.name, 0))
        Path("/proc/self/clear_refs").write_text("5")

    def phase(self, name: str, total: int | None = None) -> None:
        """The next phase."""
        self.end()
        self.name = {"targets": "forward pass", "logit rows": "rows", "feature rows": "rows"}.get(name, name)

    def advance(self, amount: int = 1) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""


def run_case(
    folder: Path, n_tokens: int, nodes: int, lazy_encoder: bool, lazy_decoder: bool
) -> dict[str, Any]:
    """One trace in this process."""
    import torch

    from benchmarks.shapes import random_prompt
    from circuit_tracer_cli.attribution.attribute import attribute
    from circuit_tracer_cli.replacement import ReplacementModel

    torch.set_num_threads(1)
    peaks = PeakPhases()
    model = ReplacementModel.from_pretrained(
        str(folder / "model"),
        str(folder / "set"),
        device="cpu",
        lazy_encoder=lazy_encoder,
        lazy_decoder=lazy_decoder,
    )
    graph = attribute(random_prompt(n_tokens), model, max_feature_nodes=nodes, batch_size=256, progress=peaks)
    peaks.end()
    return {"peaks": peaks.peaks, "active": len(graph.active_features), "seconds": graph.metadata["timings"]}


def predicted(
    folder: Path, n_tokens: int, nodes: int, lazy_encoder: bool, lazy_decoder: bool, active: int
) -> dict[str, int]:
    """The plan's peaks for the number of features that were active."""
    from circuit_tracer_cli.planning.facts import trace_sizes
    from circuit_tracer_cli.planning.memory import WORK, predict
    from circuit_tracer_cli.planning.sizes import Choices

    sizes = trace_sizes(str(folder / "set"), str(folder / "model"), n_pos=n_tokens, max_feature_nodes=nodes)
    sizes = replace(sizes, active_per_position=active / sizes.n_layers / (n_tokens - 1))
    choices = Choices(work=WORK[False], lazy_encoder=lazy_encoder, lazy_decoder=lazy_decoder)
    return predict(sizes, choices).phases


def main() -> None:
    """Print a table of all cases."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--kinds", nargs="+", default=["plt", "clt"])
    parser.add_argument("--nodes", type=int, nargs="+", default=[0, 1000])
    parser.add_argument("--large", action="store_true", help="the d_model 1024 model of `make bench`")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        folder, *rest = json.loads(options.case)
        print(json.dumps(run_case(Path(folder), *rest)))
        return
    print(
        "| kind | tokens | nodes | lazy | phase | predicted MiB | measured MiB | ratio |\n|---|---|---|---|---|---|---|---|"
    )
    for kind in options.kinds:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_case(kind, folder, {} if options.large else SMALL)
            for n_tokens in options.tokens:
                for nodes in options.nodes:
                    for lazy in ((False, True), (True, True)):
                        compare(kind, folder, n_tokens, nodes, *lazy)


def compare(
    kind: str, folder: Path, n_tokens: int, nodes: int, lazy_encoder: bool, lazy_decoder: bool
) -> None:
    """Measure one case, predict it, print both."""
    case = json.dumps([str(folder), n_tokens, nodes, lazy_encoder, lazy_decoder])
    command = [sys.executable, "-m", "benchmarks.plan", "--case", case]
    measured = json.loads(
        subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
    )
    plan = predicted(folder, n_tokens, nodes, lazy_encoder, lazy_decoder, measured["active"])
    lazy = f"{'E' if lazy_encoder else '-'}{'D' if lazy_decoder else '-'}"
    rows = [(phase, plan[phase], measured["peaks"].get(phase, 0)) for phase in plan]
    rows.append(("peak", max(plan.values()), max(measured["peaks"].values())))
    for phase, theirs, ours in rows:
        ratio = f"{theirs / ours:.2f}" if ours else ""
        print(
            f"| {kind} | {n_tokens} | {nodes} | {lazy} | {phase} | {theirs >> 20} | {ours >> 20} | {ratio} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
