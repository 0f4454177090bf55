"""From prompt to graph, phase by phase. Read this first.

    TraceRequest → prepare → load_model → attribute → Graph

`request.py` defines what can be requested, `prepare.py` resolves it without reading weights, this module reads them and
runs the trace, and `attribution/attribute.py` has the phases of the trace.
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
    """Load what a request needs and return its graph.

    Args:
        prepared: The request, as resolved by `prepare`; it must have a prompt.
        progress: Progress callback for phases, steps and notes.
        on_partial: Called as the graph grows, with a function that makes the graph of the rows known so far.
        on_model: Receives the model once it is fully loaded, to keep it.

    Raises:
        CircuitTracerError: One of its subclasses.
    """
    model = load_model(prepared, progress)
    whole = prepared.plan.choices.offload == "none"  # otherwise its weights are back only when the trace ends
    if on_model is not None and whole:
        on_model(model)
    graph = trace_with(model, prepared, progress, on_partial)
    if on_model is not None and not whole:
        on_model(model)
    return graph


def load_model(prepared: Prepared, progress: Progress) -> ReplacementModel:
    """Load the transcoders and then the model of a request. Raises what `load_transcoders` and the backend raise."""
    import torch

    from circuit_tracer_cli.replacement import ReplacementModel
    from circuit_tracer_cli.transcoders.loading import load_transcoders
    from circuit_tracer_cli.transcoders.references import neuron_reference

    request, setup, choices = prepared.request, prepared.setup, prepared.plan.choices
    placement, dtype = setup.placement, getattr(torch, request.dtype)
    if not prepared.plan.fits:
        progress.note(
            "this may not fit in memory; circuit-tracer estimate shows what it needs, and a smaller --max-feature-nodes or a "
            "16-bit --dtype needs less"
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
    """Return the graph of a prepared prompt, with a loaded model."""
    from circuit_tracer_cli.attribution.attribute import attribute
    from circuit_tracer_cli.transcoders.references import neuron_reference

    request, choices = prepared.request, prepared.plan.choices
    assert prepared.tokens is not None
    graph = attribute(
        prepared.tokens,
        model,
        attribution_targets=prepared.completion or list(request.targets) or None,
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
