"""The whole journey of a prompt, phase by phase. Read this first.

    TraceRequest → prepare → load_model → attribute → Graph

`request.py` says what may be asked for, `prepare.py` finds out what it means without reading weights, this page reads them and
runs the trace, `attribution/attribute.py` names the trace's own phases.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from circuit_tracer_cli.prepare import Prepared
from circuit_tracer_cli.request import offline_mode
from circuit_tracer_cli.types import Progress

if TYPE_CHECKING:
    from circuit_tracer_cli.graph.graph import Graph
    from circuit_tracer_cli.replacement import ReplacementModel
    from circuit_tracer_cli.transcoders.base import Transcoders
    from circuit_tracer_cli.transcoders.references import NeuronReference


def trace(
    prepared: Prepared,
    progress: Progress,
    on_partial: Callable[[Callable[[], Graph]], None] | None = None,
    on_model: Callable[[ReplacementModel], None] | None = None,
) -> Graph:
    """Load what a request needs and make its graph.

    Args:
        prepared: What is asked for, as `prepare` understood it; with a prompt.
        progress: Told about phases, steps and notes.
        on_partial: Called as the graph grows, with a function that makes the graph of the rows known so far.
        on_model: Gets the model once it is loaded and whole, to keep it.

    Raises:
        CircuitTracerError: one of its leaves.
    """
    model = load_model(prepared, progress)
    whole = prepared.plan.choices.offload == "none"  # else its weights are back only when the trace ends
    if on_model is not None and whole:
        on_model(model)
    graph = trace_with(model, prepared, progress, on_partial)
    if on_model is not None and not whole:
        on_model(model)
    return graph


def load_model(prepared: Prepared, progress: Progress) -> ReplacementModel:
    """The transcoders and then the model of a request. Raises CircuitTracerError, as `load_transcoders` and the backend do."""
    import torch

    from circuit_tracer_cli.replacement import ReplacementModel
    from circuit_tracer_cli.transcoders.loading import load_transcoders
    from circuit_tracer_cli.transcoders.references import neuron_reference

    request, setup, choices = prepared.request, prepared.setup, prepared.plan.choices
    placement, dtype = setup.placement, getattr(torch, request.dtype)
    if not prepared.plan.fits:
        progress.note(
            "this may not fit into memory; circuit-tracer estimate says what it needs, and a smaller --max-feature-nodes or a "
            "16-bit --dtype less"
        )
    with offline_mode(request.offline):
        transcoders: Transcoders | NeuronReference | None = neuron_reference(request.transcoder_set)
        if transcoders is None:
            progress.phase("loading transcoders")
            loaded = load_transcoders(
                request.transcoder_set,
                device=placement.layers,
                dtype=dtype,
                lazy_encoder=choices.lazy_encoder,
                lazy_decoder=choices.lazy_decoder,
                progress=progress,
            )
            for note in loaded.config.notes:
                progress.note(note)
            transcoders = loaded.transcoders
        progress.phase("loading the model")
        return ReplacementModel.from_pretrained_and_transcoders(
            str(setup.model),
            transcoders,
            request.backend,
            placement.first,
            dtype,
            placement if len(placement.devices) > 1 else None,
            mapped=choices.offload != "disk",
        )


def trace_with(
    model: ReplacementModel,
    prepared: Prepared,
    progress: Progress,
    on_partial: Callable[[Callable[[], Graph]], None] | None = None,
) -> Graph:
    """Make the graph of a prepared prompt with a model that is loaded already."""
    from circuit_tracer_cli.attribution.attribute import attribute
    from circuit_tracer_cli.transcoders.references import neuron_reference

    request, choices = prepared.request, prepared.plan.choices
    assert prepared.tokens is not None
    graph = attribute(
        prepared.tokens,
        model,
        attribution_targets=list(request.targets) or None,
        max_n_logits=request.max_n_logits,
        desired_logit_prob=request.desired_logit_prob,
        batch_size=request.batch_size,
        max_feature_nodes=request.max_feature_nodes,
        offload=choices.offload,
        compute_block=choices.work,
        update_interval=request.update_interval,
        progress=progress,
        on_partial=on_partial,
        labels=request.labels,
        precision=request.precision,
    )
    graph.metadata["command"] = request.command
    neurons = neuron_reference(request.transcoder_set)
    if neurons is not None:
        graph.metadata["transcoders"]["reference"] = neurons.text
    elif request.transcoder_set:
        folder = Path(request.transcoder_set).expanduser()
        reference = str(folder.resolve()) if folder.is_dir() else request.transcoder_set
        graph.metadata["transcoders"]["reference"] = reference
    return graph
