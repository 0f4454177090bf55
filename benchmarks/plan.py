"""Predicted against measured peak memory, phase by phase, each case in a process of its own.

python -m benchmarks.plan --tokens 16 64 256 --kinds plt clt
python -m benchmarks.plan --long

`--long` says what a 2,048-token prompt with 8,192 feature nodes needs on a model of Gemma-2-2B's shape, and measures the same
at a quarter of the width and four of 26 layers, with so little memory pretended to be free that rows go to files there too.
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

from benchmarks.tables import markdown

SMALL = {
    "d_model": 512,
    "n_layers": 8,
    "n_heads": 8,
    "n_kv_heads": 4,
    "d_mlp": 2048,
    "plt_features": 8192,
    "clt_features": 4096,
}


QUARTER = {
    "d_model": 576,
    "n_layers": 4,
    "n_heads": 8,
    "n_kv_heads": 4,
    "d_mlp": 2304,
    "plt_features": 4096,
    "clt_features": 4096,
    "head_width": 64,
}
"""Gemma-2-2B at a quarter of its width, four of its 26 layers."""
LONG_TOKENS, LONG_NODES, REDUCED_NODES = 2048, 8192, 512
DEVICE_BYTES, HOST_BYTES = 80 * 10**9, 64 * 10**9


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


def resident() -> int:
    """Bytes of this process that are in memory."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))


def run_case(
    folder: Path, n_tokens: int, nodes: int, lazy_encoder: bool, lazy_decoder: bool, free: int | None = None
) -> dict[str, Any]:
    """One trace in this process, of which `free` bytes are pretended to be free at its start."""
    import torch

    from benchmarks.shapes import random_prompt
    from circuit_tracer_cli.attribution import ranking
    from circuit_tracer_cli.attribution.attribute import attribute
    from circuit_tracer_cli.replacement import ReplacementModel

    torch.set_num_threads(1)
    if free is not None:
        start = resident()
        ranking.free_memory = lambda device=None: max(0, free - (resident() - start))
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
    folder: Path,
    n_tokens: int,
    nodes: int,
    lazy_encoder: bool,
    lazy_decoder: bool,
    active: int,
    free: int | None = None,
) -> dict[str, int]:
    """The plan's peaks for the number of features that were active."""
    from circuit_tracer_cli.planning.memory import predict, usual_work
    from circuit_tracer_cli.planning.sizes import Choices
    from circuit_tracer_cli.prepare import prepare
    from circuit_tracer_cli.request import TraceRequest

    request = TraceRequest(
        transcoder_set=str(folder / "set"), model=str(folder / "model"), max_feature_nodes=nodes
    )
    sizes = prepare(request, n_tokens=n_tokens).sizes
    sizes = replace(sizes, active_per_position=active / sizes.n_layers / (n_tokens - 1))
    work = usual_work(sizes, on_gpu=False)
    choices = Choices(work=work, lazy_encoder=lazy_encoder, lazy_decoder=lazy_decoder)
    return predict(sizes, choices, free).phases


def print_full_plan() -> None:
    """What the long prompt needs at full size, with features as active as in the measured sets."""
    from benchmarks.shapes import L0, SHAPES
    from circuit_tracer_cli.planning import Budget, TraceSizes, plan_memory

    shape = SHAPES["gemma-2-2b"]
    block = 2 * shape.d_model * shape.d_head * (shape.n_heads + shape.n_kv_heads)
    parameters = shape.n_layers * (block + 3 * shape.d_model * shape.d_mlp) + shape.vocabulary * shape.d_model
    encoders = 2 * shape.n_layers * shape.plt_features * shape.d_model
    sizes = TraceSizes(
        n_layers=shape.n_layers, d_model=shape.d_model, n_heads=shape.n_heads, n_kv_heads=shape.n_kv_heads,
        d_head=shape.d_head, d_mlp=shape.d_mlp, d_vocab=shape.vocabulary, kind="plt",
        d_transcoder=shape.plt_features, n_pos=LONG_TOKENS, max_feature_nodes=LONG_NODES,
        active_per_position=L0, model_params=parameters, dtype_bytes=2, encoder_bytes=encoders,
        decoder_bytes=encoders,
    )  # fmt: skip
    plan = plan_memory(sizes, Budget(host=HOST_BYTES, device=DEVICE_BYTES))
    assert plan.device_peak is not None
    rows: list[dict[str, Any]] = [
        {"what": name, "GB": size / 1e9, "where": "device"} for name, size in plan.phases.items()
    ]
    rows.append(
        {"what": f"peak, of {DEVICE_BYTES / 1e9:.0f}", "GB": plan.device_peak / 1e9, "where": "device"}
    )
    rows.append({"what": f"peak, of {HOST_BYTES / 1e9:.0f}", "GB": plan.host_peak / 1e9, "where": "host"})
    rows.append({"what": "rows and edges beyond", "GB": plan.scratch / 1e9, "where": "files"})
    print(
        f"Gemma-2-2B's shape, {LONG_TOKENS:,} tokens, {LONG_NODES:,} feature nodes, bfloat16: fits {plan.fits}"
    )
    print(markdown(rows), end="\n\n")


def main() -> None:
    """Print a table of all cases."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--kinds", nargs="+", default=["plt", "clt"])
    parser.add_argument("--nodes", type=int, nargs="+", default=[0, 1000])
    parser.add_argument("--large", action="store_true", help="the d_model 1024 model of `make bench`")
    parser.add_argument(
        "--long", action="store_true", help="the long prompt, planned whole and measured reduced"
    )
    parser.add_argument("--free", type=int, help="MiB of memory to pretend are free", default=None)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        folder, *rest = json.loads(options.case)
        print(json.dumps(run_case(Path(folder), *rest)))
        return
    lazy, sizes = [(False, True), (True, True)], {} if options.large else SMALL
    if options.long:
        print_full_plan()
        options.tokens, options.nodes, options.kinds = [LONG_TOKENS], [REDUCED_NODES], ["plt"]
        options.free, lazy, sizes = options.free or 2400, [(False, True)], QUARTER
    free = None if options.free is None else options.free << 20
    print(
        "| kind | tokens | nodes | lazy | phase | predicted MiB | measured MiB | ratio |\n|---|---|---|---|---|---|---|---|"
    )
    results = []
    for kind in options.kinds:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_case(kind, folder, sizes)
            for n_tokens in options.tokens:
                for nodes in options.nodes:
                    for choice in lazy:
                        results += compare(kind, folder, n_tokens, nodes, *choice, free)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


def compare(
    kind: str,
    folder: Path,
    n_tokens: int,
    nodes: int,
    lazy_encoder: bool,
    lazy_decoder: bool,
    free: int | None,
) -> list[dict[str, Any]]:
    """Measure one case, predict it, print both."""
    case = json.dumps([str(folder), n_tokens, nodes, lazy_encoder, lazy_decoder, free])
    command = [sys.executable, "-m", "benchmarks.plan", "--case", case]
    measured = json.loads(
        subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
    )
    plan = predicted(folder, n_tokens, nodes, lazy_encoder, lazy_decoder, measured["active"], free)
    lazy = f"{'E' if lazy_encoder else '-'}{'D' if lazy_decoder else '-'}"
    rows = [(phase, plan[phase], measured["peaks"].get(phase, 0)) for phase in plan]
    rows.append(("peak", max(plan.values()), max(measured["peaks"].values())))
    found = []
    for phase, theirs, ours in rows:
        ratio = f"{theirs / ours:.2f}" if ours else ""
        print(
            f"| {kind} | {n_tokens} | {nodes} | {lazy} | {phase} | {theirs >> 20} | {ours >> 20} | {ratio} |",
            flush=True,
        )
        found.append(
            {"kind": kind, "tokens": n_tokens, "nodes": nodes, "lazy": lazy, "phase": phase,
             "predicted": theirs, "measured": ours}
        )  # fmt: skip
    return found


if __name__ == "__main__":
    main()
