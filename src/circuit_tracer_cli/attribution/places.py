"""Where weights wait and how large blocks are, for a model that is loaded: what the command line plans before it loads one."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from dataclasses import replace
from typing import Any

import torch

from circuit_tracer_cli.files.capacity import free_memory
from circuit_tracer_cli.planning import Budget, Choices, TraceSizes, plan_memory
from circuit_tracer_cli.planning.free import memory_budget
from circuit_tracer_cli.planning.memory import PROGRAM, PROGRAM_ON_GPU
from circuit_tracer_cli.planning.sizes import of_model, usual_l0
from circuit_tracer_cli.planning.spread import held_bytes
from circuit_tracer_cli.replacement import ReplacementModel
from circuit_tracer_cli.transcoders.weights import WeightSource


def choose_places(model: ReplacementModel, n_pos: int, *, n_targets: int, max_feature_nodes: int) -> Choices:
    """How to trace a prompt of `n_pos` tokens in the memory that is free now, beside what the model and its set hold already."""
    sizes = sizes_of(model, n_pos, n_targets=n_targets, max_feature_nodes=max_feature_nodes)
    encoders, decoders = _weights(model)
    now = memory_budget(model.model.layer_devices, free_memory(), free_memory)
    in_memory = _bytes([weights for weights in (*encoders, *decoders) if not weights.lazy])
    plan = plan_memory(
        sizes,
        with_what_is_held(now, sizes, in_memory),
        lazy_encoder=all(weights.lazy for weights in encoders),
        lazy_decoder=all(weights.lazy for weights in decoders),
    )
    return plan.choices


def target_count(attribution_targets: Any, most: int) -> int:
    """How many logits are explained: those given, else `most` at most."""
    if isinstance(attribution_targets, str):
        return 1
    if isinstance(attribution_targets, torch.Tensor):
        return attribution_targets.numel()
    return len(attribution_targets) if isinstance(attribution_targets, Sized) else most


def sizes_of(model: ReplacementModel, n_pos: int, *, n_targets: int, max_feature_nodes: int) -> TraceSizes:
    """The sizes of a trace, from what is loaded."""
    shape, transcoders = model.model.shape, model.transcoders
    encoders, decoders = _weights(model)
    layers = range(transcoders.n_layers)
    return TraceSizes(
        **of_model(shape),
        kind=transcoders.kind,
        d_transcoder=transcoders.d_transcoder,
        n_pos=n_pos,
        n_targets=n_targets,
        max_feature_nodes=max_feature_nodes,
        active_per_position=transcoders.expected_l0 or usual_l0(transcoders.d_transcoder),
        model_params=model.model.n_parameters,
        dtype_bytes=model.dtype.itemsize,
        encoder_bytes=_bytes(encoders),
        decoder_bytes=_bytes(decoders),
        skip_layers=sum(transcoders.skip_matrix(layer) is not None for layer in layers),
        closed_form=model.model.has_closed_form,
    )


def with_what_is_held(now: Budget, sizes: TraceSizes, weights: int) -> Budget:
    """The memory that is free now and what the program, the model and the set take of it already, by device.

    Args:
        now: What is free.
        sizes: Of the trace.
        weights: Bytes of the encoders and decoders that are in memory.
    """
    if now.devices:
        held = held_bytes(sizes, weights, now.devices)
        devices = tuple(replace(device, free=device.free + held[device.name]) for device in now.devices)
        return replace(now, host=now.host + held.get("cpu", PROGRAM), devices=devices)
    loaded = sizes.model_params * sizes.dtype_bytes + weights
    if now.device is None:
        return replace(now, host=now.host + PROGRAM + loaded)
    return replace(now, host=now.host + PROGRAM, device=now.device + PROGRAM_ON_GPU + loaded)


def _weights(model: ReplacementModel) -> tuple[Sequence[WeightSource], Sequence[WeightSource]]:
    """Encoders and decoders of a set made of layers; none of any other."""
    layers = getattr(model.transcoders, "layers", ())
    return [layer.W_enc for layer in layers], [layer.W_dec for layer in layers]


def _bytes(weights: Sequence[WeightSource]) -> int:
    return sum(torch.Size(one.shape).numel() * one.dtype.itemsize for one in weights)
