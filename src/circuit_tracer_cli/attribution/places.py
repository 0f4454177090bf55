"""Where weights go and how large blocks are for a loaded model; the command line plans this before it loads one."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from dataclasses import replace
from typing import Any, Literal

import torch

from circuit_tracer_cli.files.capacity import free_memory
from circuit_tracer_cli.planning import Budget, Choices, MemoryPlan, TraceSizes, plan_memory
from circuit_tracer_cli.planning.facts import SetupSizes, trace_sizes
from circuit_tracer_cli.planning.free import busy_work, memory_budget
from circuit_tracer_cli.planning.memory import PROGRAM, PROGRAM_ON_GPU
from circuit_tracer_cli.planning.spread import held_bytes
from circuit_tracer_cli.replacement import ReplacementModel
from circuit_tracer_cli.transcoders.weights import WeightSource


def choose_places(
    model: ReplacementModel, n_pos: int, *, n_targets: int, max_feature_nodes: int, precision: str = "float32"
) -> Choices:
    """Return how to trace a prompt of `n_pos` tokens in the memory that is free now, with model and set loaded."""
    sizes = trace_sizes(
        sizes_of_loaded(model),
        dtype_bytes=model.dtype.itemsize,
        n_pos=n_pos,
        n_targets=n_targets,
        max_feature_nodes=max_feature_nodes,
        precision=precision,
    )
    return plan_for_loaded(model, sizes)[0].choices


def plan_for_loaded(
    model: ReplacementModel, sizes: TraceSizes, offload: Literal["none", "cpu", "disk"] | None = None
) -> tuple[MemoryPlan, Budget]:
    """Return the plan of a trace on a loaded model, and the memory that is free or taken by it and its set.

    Args:
        model: Model and set.
        sizes: Sizes of the trace.
        offload: Where to move weights that aren't in use; None to decide.
    """
    encoders, decoders = _weights(model)
    now = memory_budget(model.model.layer_devices, free_memory(), free_memory, busy_work)
    in_memory = _bytes([weights for weights in (*encoders, *decoders) if not weights.lazy])
    budget = with_what_is_held(now, sizes, in_memory)
    plan = plan_memory(
        sizes,
        budget,
        lazy_encoder=all(weights.lazy for weights in encoders),
        lazy_decoder=all(weights.lazy for weights in decoders),
        offload=offload,
    )
    return plan, budget


def target_count(attribution_targets: Any, most: int) -> int:
    """Return how many logits are explained: the given ones, else at most `most`."""
    if isinstance(attribution_targets, str):
        return 1
    if isinstance(attribution_targets, torch.Tensor):
        return attribution_targets.numel()
    return len(attribution_targets) if isinstance(attribution_targets, Sized) else most


def sizes_of_loaded(model: ReplacementModel) -> SetupSizes:
    """Return the sizes of a loaded model and its set."""
    transcoders = model.transcoders
    encoders, decoders = _weights(model)
    return SetupSizes(
        shape=model.model.shape,
        model_elements=model.model.n_parameters,
        closed_form=model.model.has_closed_form,
        kind=transcoders.kind,
        d_transcoder=transcoders.d_transcoder,
        encoder_elements=_elements(encoders),
        decoder_elements=_elements(decoders),
        skip_layers=sum(transcoders.skip_matrix(layer) is not None for layer in range(transcoders.n_layers)),
        active_per_position=transcoders.expected_l0,
    )


def with_what_is_held(now: Budget, sizes: TraceSizes, weights: int) -> Budget:
    """Return the memory that is free or taken by the program, the model and the set, by device.

    Args:
        now: The free memory.
        sizes: Sizes of the trace.
        weights: Bytes of the encoders and decoders that are in memory.
    """
    if now.devices:
        held = held_bytes(sizes, weights, now.devices)
        devices = tuple(replace(device, free=device.free + held[device.name]) for device in now.devices)
        return replace(now, host=now.host + held.get("cpu", PROGRAM), devices=devices)
    loaded = sizes.model_params * sizes.dtype_bytes + weights
    if now.device is None:
        return replace(now, host=now.host + PROGRAM + loaded)
    shared = PROGRAM_ON_GPU + loaded if now.unified else 0
    return replace(now, host=now.host + PROGRAM + shared, device=now.device + PROGRAM_ON_GPU + loaded)


def _weights(model: ReplacementModel) -> tuple[Sequence[WeightSource], Sequence[WeightSource]]:
    """Yield encoders and decoders of a set made of layers; nothing for other sets."""
    layers = getattr(model.transcoders, "layers", ())
    return [layer.W_enc for layer in layers], [layer.W_dec for layer in layers]


def _elements(weights: Sequence[WeightSource]) -> int:
    return sum(torch.Size(one.shape).numel() for one in weights)


def _bytes(weights: Sequence[WeightSource]) -> int:
    return sum(torch.Size(one.shape).numel() * one.dtype.itemsize for one in weights)
