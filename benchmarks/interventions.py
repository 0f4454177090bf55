"""Many edits of one prompt: the unmodified run kept, against everything done again for every edit.

python -m benchmarks.interventions --layers 8 --tokens 48 --threads 1 --cpu-time
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.shapes import SHAPES, random_model, random_prompt
from benchmarks.tables import markdown
from circuit_tracer_cli.interventions.run import Constraints
from circuit_tracer_cli.interventions.spec import Intervention, Scaled
from circuit_tracer_cli.replacement import ReplacementModel

MODES = ("free", "pinned")
"""Attention patterns pinned and all else free, or every layer constrained."""


def drawn_edits(model: ReplacementModel, prompt: Tensor, count: int) -> list[Intervention]:
    """Active features of all layers and positions, each to be turned around; always the same."""
    generator = torch.Generator().manual_seed(0)
    _, activations = model.get_activations(prompt, sparse=True)
    layer, position, feature = activations.indices().cpu()
    chosen = torch.randperm(len(layer), generator=generator)[:count].tolist()
    return [Intervention(int(layer[i]), int(position[i]), int(feature[i]), Scaled(-1.0)) for i in chosen]


def per_edit(
    edits: Sequence[Intervention], apply: Callable[[Intervention], Tensor], clock: Callable[[], float]
) -> tuple[float, list[Tensor]]:
    """Seconds per edit, and the last position's logits of each."""
    start = clock()
    logits = [apply(edit) for edit in edits]
    return (clock() - start) / len(edits), logits


def measure(
    model: ReplacementModel, n_tokens: int, mode: str, n_edits: int, n_again: int, clock: Callable[[], float]
) -> dict[str, Any]:
    """One row of the table. The first edit pays for the unmodified run."""
    prompt = random_prompt(n_tokens, model.device)
    edits = drawn_edits(model, prompt, n_edits)
    layers = range(model.transcoders.n_layers) if mode == "pinned" else None
    tokens, inner = model.tokenize(prompt), model.interventions
    constraints = Constraints(constrained_layers=layers)

    def kept(edit: Intervention) -> Tensor:
        return inner.run(tokens, [edit], constraints, last_logits=True).logits[-1]

    def again(edit: Intervention) -> Tensor:
        inner.forget()
        logits, _ = model.feature_intervention(prompt, [edit], layers, return_activations=False)
        return logits[0, -1]

    def again_with_activations(edit: Intervention) -> Tensor:
        inner.forget()
        model.setup_intervention_with_freeze(prompt, layers)
        return again(edit)

    inner.forget()
    fast, first = per_edit(edits, kept, clock)
    slow, second = per_edit(edits[:n_again], again, clock)
    slowest, _ = per_edit(edits[:n_again], again_with_activations, clock)
    wrong = max(float((a - b).abs().max()) for a, b in zip(first, second, strict=False))
    return {
        "tokens": n_tokens,
        "mode": mode,
        "edits": len(edits),
        "ms per edit": 1000 * fast,
        "again, ms": 1000 * slow,
        "with all activations, ms": 1000 * slowest,
        "ratio": slow / fast,
        "ratio with activations": slowest / fast,
        "largest difference": f"{wrong:.1e}",
    }


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="bench", choices=list(SHAPES))
    parser.add_argument("--layers", type=int, help="build only so many layers")
    parser.add_argument("--kinds", nargs="+", default=["plt", "clt"], choices=["plt", "clt"])
    parser.add_argument("--tokens", nargs="+", type=int, default=[48])
    parser.add_argument("--edits", type=int, default=100)
    parser.add_argument("--again", type=int, default=20, help="so many of them with everything done again")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--cpu-time", action="store_true", help="time of this process alone, for a busy machine"
    )
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> None:
    """Measure and print; `--json` also writes the numbers."""
    arguments = parsed()
    torch.set_num_threads(arguments.threads)
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    shape, results = SHAPES[arguments.model], []
    shape = replace(shape, n_layers=min(shape.n_layers, arguments.layers or shape.n_layers))
    for kind in arguments.kinds:
        model = random_model(kind, shape, torch.device(arguments.device), torch.float32)
        for n_tokens in arguments.tokens:
            for mode in MODES:
                row = measure(model, n_tokens, mode, arguments.edits, arguments.again, clock)
                results.append({"kind": kind, **row})
                print(markdown(results[-1:]).splitlines()[-1], flush=True)
        del model
    timed = "processor time" if arguments.cpu_time else "wall time"
    print(
        f"\n{arguments.model}, {shape.n_layers} layers, width {shape.d_model}; torch {torch.__version__}, {timed},"
    )
    print(f"{platform.machine()}, {arguments.threads} thread(s)\n\n{markdown(results)}")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
