"""What makes the neurons of a block's MLP, read from the modules that its family declares and compared with what they do."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from circuit_tracer_cli.backends.base import MlpWeights
from circuit_tracer_cli.backends.families.base import Architecture, MlpLayout
from circuit_tracer_cli.backends.modules import ModelModules, bias_of, dense_weight, is_plain
from circuit_tracer_cli.errors import UnsupportedArchitecture

_PROBES = 4
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
_TOLERANCE_OF_16_BITS = 0.05


class MlpModules:
    """The MLPs of a model.

    Args:
        modules: Its parts.
        architecture: Its entry in the table of families.
    """

    def __init__(self, modules: ModelModules, architecture: Architecture) -> None:
        self.modules, self.layout = modules, architecture.mlp
        self.problem: UnsupportedArchitecture | None = None
        self.of_block: list[dict[str, Any]] = []
        try:
            # Found and judged now, before anything wraps the model.
            self.of_block = [self._parts(block[modules.layout.mlp]) for block in modules.of_block]
        except UnsupportedArchitecture as error:
            self.problem = error
        self._plain = {id(part) for block in self.of_block for part in block.values() if is_plain(part)}

    def _parts(self, mlp: Any) -> dict[str, Any]:
        """The modules of one MLP by path. Raises UnsupportedArchitecture."""
        if self.layout is None:
            raise no_neurons(type(self.modules.model).__name__)
        paths = self.layout.up, self.layout.gate, self.layout.down, self.layout.act
        return {path: self.modules.module(path, mlp) for path in paths if path is not None}

    def weights(self, layer: int) -> MlpWeights:
        """A block's MLP. Raises UnsupportedArchitecture where the family or a changed module can't be put into this form."""
        name = type(self.modules.model).__name__
        if self.problem is not None or self.layout is None:
            raise self.problem or no_neurons(name)
        block = self.of_block[layer]
        for path in (self.layout.up, self.layout.gate, self.layout.down):
            if path is not None and id(block[path]) not in self._plain:
                raise UnsupportedArchitecture(
                    f"neurons can't be traced: {path} in layer {layer} is quantised, or changed by an adapter or a hook",
                    "load the model's own weights, unquantised",
                )
        found = _record(block, self.layout)
        self._compare(layer, found, name)
        return found

    def _compare(self, layer: int, found: MlpWeights, name: str) -> None:
        """Raise UnsupportedArchitecture unless the record does what the module does."""
        mlp = self.modules.of_block[layer][self.modules.layout.mlp]
        like = found.down
        with torch.no_grad():
            x = torch.randn(_PROBES, like.shape[0], generator=torch.Generator().manual_seed(layer)).to(like)
            theirs = mlp(x[None])
            ours = torch.nn.functional.linear(neuron_values(found, x), found.down, found.down_bias)
            at_zero = found.activation(torch.zeros(1, dtype=like.dtype, device=like.device))
        tolerance = _TOLERANCE.get(like.dtype, _TOLERANCE_OF_16_BITS)
        fits = isinstance(theirs, Tensor) and theirs[0].shape == ours.shape
        if not fits or float((theirs[0] - ours).norm()) > tolerance * float(ours.norm()) + 1e-30:
            raise UnsupportedArchitecture(
                f"neurons can't be traced: the MLP of layer {layer} in this {name} doesn't do what its family's does",
                "load the model's own weights, without adapters or hooks",
            )
        if float(at_zero):
            raise UnsupportedArchitecture(
                f"neurons can't be traced: the activation function of this {name} isn't 0 at 0"
            )


def no_neurons(name: str) -> UnsupportedArchitecture:
    """The error for a family whose MLP isn't one gated or plain product."""
    return UnsupportedArchitecture(
        f"the neurons of {name} can't be traced: its MLP has experts, or clamps its products",
        "use a transcoder set; circuit-tracer doctor --models lists the families",
    )


def neuron_values(mlp: MlpWeights, x: Tensor) -> Tensor:
    """Neurons `(…, d_mlp)` on the MLP's input `x (…, d_model)`."""
    up = torch.nn.functional.linear(x, mlp.up, mlp.up_bias)
    if mlp.gate is None:
        return mlp.activation(up)
    return mlp.activation(torch.nn.functional.linear(x, mlp.gate, mlp.gate_bias)) * up


def _record(block: dict[str, Any], layout: MlpLayout) -> MlpWeights:
    """The weights of plain modules, as views."""
    up, down = block[layout.up], block[layout.down]
    W_up, b_up = dense_weight(up, True), bias_of(up, True)
    gate = None if layout.gate is None else block[layout.gate]
    W_gate, b_gate = (None, None) if gate is None else (dense_weight(gate, True), bias_of(gate, True))
    if layout.joined:
        W_gate, W_up = W_up.chunk(2)
        b_gate, b_up = (None, None) if b_up is None else b_up.chunk(2)
    return MlpWeights(
        up=W_up,
        down=dense_weight(down, True),
        activation=block[layout.act],
        gate=W_gate,
        up_bias=b_up,
        gate_bias=b_gate,
        down_bias=bias_of(down, True),
    )
