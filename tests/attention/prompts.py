"""Tiny graphs with their prompts frozen, in float64."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from circuit_tracer_cli.attention.prompt import FrozenPrompt, freeze
from circuit_tracer_cli.attribution.attribute import attribute
from circuit_tracer_cli.attribution.linear import LinearEngine
from circuit_tracer_cli.attribution.sources import build_sources
from circuit_tracer_cli.backends.base import FrozenPass
from tests.builders import FAMILIES, PROMPT, readable, replacement
from tests.oracle.replay import double


def cases() -> list[tuple[str, str, bool, str, str]]:
    """Every family with both kinds of transcoders; skip connections, read and write points in turn."""
    found = []
    for number, family in enumerate(FAMILIES):
        reads = readable(family)
        for turn, kind in enumerate(("plt", "clt")):
            write = ("hook_mlp_out", "mlp.hook_out")[(number // 2 + turn) % 2]
            found.append(
                (family, kind, bool((number + turn) % 2), reads[(number + turn) % len(reads)], write)
            )
    return found


def engine_of(prompt: FrozenPrompt, frozen: FrozenPass) -> LinearEngine:
    """A float64 engine of another frozen pass."""
    model = prompt.model
    sources = build_sources(
        frozen, model.transcoders, prompt.active, prompt.tokens.zero_positions, torch.float64
    )
    skips = [model.transcoders.skip_matrix(layer) for layer in range(model.transcoders.n_layers)]
    assert model.model.weights is not None
    return LinearEngine(model.model.weights, frozen, model.points, sources, skips)


@functools.lru_cache(maxsize=64)
def frozen_prompt(
    family: str, kind: str, skip: bool = False, read: str = "mlp.hook_in", write: str = "hook_mlp_out",
    backend_name: str = "transformerlens", prompt: tuple[int, ...] = PROMPT, precise: bool = True,
) -> FrozenPrompt:  # fmt: skip
    """A traced prompt, with the record and the engine in float64 if `precise`."""
    model = replacement(family, kind, "relu", skip, read=read, write=write, backend_name=backend_name)
    graph = attribute(list(prompt), model, max_n_logits=3)
    found = freeze(graph, model)
    if not precise:
        return found
    frozen = double(found.frozen)
    sources = build_sources(
        frozen, model.transcoders, found.active, found.tokens.zero_positions, torch.float64
    )
    return replace(found, frozen=frozen, engine=engine_of(found, frozen), sources=sources)


def some_edges(prompt: FrozenPrompt, count: int = 40) -> list[tuple[int, int]]:
    """Pairs (source, target): of some targets, logits among them, the strongest sources at the same and at other positions."""
    graph, layout = prompt.graph, prompt.graph.layout
    targets = [*range(layout.n_features - 1, -1, -max(1, layout.n_features // 6)), layout.logit_offset]
    found = []
    for target in targets:
        columns, values = graph.edges.row(target)
        at = prompt.engine.columns.places(prompt.source_columns(columns.tolist()))[1]
        own = at == int(prompt.targets([target]).positions[0])
        for here in (own, ~own):
            strongest = columns[here][values[here].abs().argsort(descending=True)]
            found += [(int(source), target) for source in strongest[: count // len(targets) // 2 + 1]]
    found += [(source, layout.logit_offset) for source in range(layout.error_offset, layout.logit_offset, 5)]
    return found


def exact_weights(prompt: FrozenPrompt, edges: list[tuple[int, int]]) -> Tensor:
    """The edges' weights by the engine, pulled back."""
    weights = []
    for source, target in edges:
        row = prompt.engine.rows(prompt.targets([target]))[0]
        column = int(prompt.source_columns([source])[0])
        weights.append(row[column] if column < len(row) else row.new_zeros(()))
    return torch.stack(weights)


def positions(prompt: FrozenPrompt, edges: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """Positions of sources and targets."""
    columns = prompt.source_columns([source for source, _ in edges])
    return prompt.engine.columns.places(columns)[1], prompt.targets([target for _, target in edges]).positions


def without(prompt: FrozenPrompt, layer: int, change: Any) -> LinearEngine:
    """An engine whose pattern of a layer has been changed by a function that gets a copy."""
    pattern = prompt.frozen.layers[layer].pattern.clone()
    change(pattern)
    layers = list(prompt.frozen.layers)
    layers[layer] = replace(layers[layer], pattern=pattern)
    return engine_of(prompt, replace(prompt.frozen, layers=tuple(layers)))
