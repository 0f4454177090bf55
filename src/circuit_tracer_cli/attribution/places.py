"""Where weights wait and how large blocks are, for a model that is loaded: what the command line plans before it loads one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from circuit_tracer_cli.graph.edges import available_memory
from circuit_tracer_cli.planning import Budget, Choices, TraceSizes, plan_memory
from circuit_tracer_cli.planning.free import memory_budget
from circuit_tracer_cli.planning.memory import PROGRAM, PROGRAM_ON_GPU
from circuit_tracer_cli.planning.sizes import DEFAULT_L0
from circuit_tracer_cli.replacement import ReplacementModel
from circuit_tracer_cli.transcoders.rows import WeightSource


def choose_places(model: ReplacementModel, n_pos: int, *, n_targets: int, max_feature_nodes: int) -> Choices:
    """How to trace a prompt of `n_pos` tokens in the memory that is free now, beside what the model and its set hold already."""
    sizes = sizes_of(model, n_pos, n_targets=n_targets, max_feature_nodes=max_feature_nodes)
    encoders, decoders = _weights(model)
    plan = plan_memory(
        sizes,
        _with_what_is_held(model, sizes),
        lazy_encoder=all(weights.lazy for weights in encoders),
        lazy_decoder=all(weights.lazy for weights in decoders),
    )
    return plan.choices


def sizes_of(model: ReplacementModel, n_pos: int, *, n_targets: int, max_feature_nodes: int) -> TraceSizes:
    """The sizes of a trace, from what is loaded."""
    shape, transcoders = model.model.shape, model.transcoders
    encoders, decoders = _weights(model)
    layers = range(transcoders.n_layers)
    return TraceSizes(
        n_layers=shape.n_layers,
        d_model=shape.d_model,
        n_heads=shape.n_heads,
        n_kv_heads=shape.n_kv_heads,
        d_head=shape.d_head,
        d_mlp=shape.d_mlp,
        d_vocab=shape.d_vocab,
        kind=transcoders.kind,
        d_transcoder=transcoders.d_transcoder,
        n_pos=n_pos,
        n_targets=n_targets,
        max_feature_nodes=max_feature_nodes,
        active_per_position=transcoders.expected_l0 or DEFAULT_L0,
        model_params=model.model.n_parameters,
        dtype_bytes=model.dtype.itemsize,
        encoder_bytes=_bytes(encoders),
        decoder_bytes=_bytes(decoders),
        skip_layers=sum(transcoders.skip_matrix(layer) is not None for layer in layers),
        closed_form=model.model.has_closed_form,
    )


def _with_what_is_held(model: ReplacementModel, sizes: TraceSizes) -> Budget:
    """The memory that is free now and what the program, the model and the set take of it, by device."""
    now = memory_budget(model.model.layer_devices, available_memory(torch.device("cpu")), available_memory)
    encoders, decoders = _weights(model)
    held = sizes.model_params * sizes.dtype_bytes + _bytes(
        [weights for weights in (*encoders, *decoders) if not weights.lazy]
    )
    if now.devices:
        share = {device.name: len(device.layers) / sizes.n_layers for device in now.devices}
        devices = tuple(
            replace(device, free=device.free + PROGRAM_ON_GPU + round(share[device.name] * held))
            for device in now.devices
        )
        return replace(now, host=now.host + PROGRAM, devices=devices)
    if now.device is None:
        return replace(now, host=now.host + PROGRAM + held)
    return replace(now, host=now.host + PROGRAM, device=now.device + PROGRAM_ON_GPU + held)


def _weights(model: ReplacementModel) -> tuple[Sequence[WeightSource], Sequence[WeightSource]]:
    """Encoders and decoders of a set made of layers; none of any other."""
    layers = getattr(model.transcoders, "layers", ())
    return [layer.W_enc for layer in layers], [layer.W_dec for layer in layers]


def _bytes(weights: Sequence[WeightSource]) -> int:
    return sum(torch.Size(one.shape).numel() * one.dtype.itemsize for one in weights)
