"""The model's own neurons as features: no transcoders, no training, no download.

A neuron is `y = act(g)` or `y = act(g) * u`, where `g = W_gate x + b` and `u = W_up x + b` read the MLP's input `x`. Its decoder
row is its column of `W_down`. Its encoder row is that of the linearisation that RelP freezes (Rezaei Jafari et al. 2025, arXiv
2508.21258): the ratio `act(g) / g` stays, and of a product

    half rule      each factor passes on half:   v = ½ act(g)/g · u · W_gate + ½ act(g) · W_up
    gate frozen    the gate is a constant:       v = act(g) · W_up

so that `⟨v, x⟩` plus what the biases give is `y`, exactly. Which rule is used is a convention, not a fact about the model.

Almost every neuron is active at every token. The ones that write most, `|y| · ‖W_down column‖`, may become nodes; what the others
write is part of the error node of their layer and position, so that nothing is lost from any sum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from torch import Tensor
from torch.nn import functional

from circuit_tracer_cli.transcoders.activations import TopKOverLayers
from circuit_tracer_cli.transcoders.base import Kind
from circuit_tracer_cli.transcoders.config import SetConfig
from circuit_tracer_cli.transcoders.formats.base import SetShape
from circuit_tracer_cli.transcoders.loading import InspectedTranscoders
from circuit_tracer_cli.transcoders.references import NeuronReference

READ_HOOK, WRITE_HOOK = "mlp.hook_in", "mlp.hook_out"


class Mlp(Protocol):
    """One block's MLP: `down @ (act(gate @ x + b) * (up @ x + b)) + b`, or `down @ act(up @ x + b) + b`."""

    @property
    def up(self) -> Tensor:
        """`(d_mlp, d_model)`."""

    @property
    def down(self) -> Tensor:
        """`(d_model, d_mlp)`."""

    @property
    def gate(self) -> Tensor | None:
        """`(d_mlp, d_model)`, or None."""

    @property
    def up_bias(self) -> Tensor | None:
        """`(d_mlp)`, or None."""

    @property
    def gate_bias(self) -> Tensor | None:
        """`(d_mlp)`, or None."""

    @property
    def down_bias(self) -> Tensor | None:
        """`(d_model)`, or None."""

    @property
    def activation(self) -> Callable[[Tensor], Tensor]:
        """Applied to the gate, or to `up` without one; 0 at 0."""


class NeuronSet:
    """The neurons of a model as a set of transcoders.

    Args:
        layers: The MLP of each block.
        reference: What was asked for: the rule, and how many neurons may be nodes.
        scan: The id of the set.
    """

    of_model = True
    has_skip = False
    feature_input_hook, feature_output_hook = READ_HOOK, WRITE_HOOK
    missing_layers: tuple[int, ...] = ()

    def __init__(self, layers: Sequence[Mlp], reference: NeuronReference, scan: str) -> None:
        self.layers_of_model = tuple(layers)
        self.reference = reference
        self.scan: str | list[str] | None = scan
        self.commit: str | None = None
        self.stated_l0: float | None = None
        self.joint: TopKOverLayers | None = None
        self.normalized: str | None = None
        self._norms: dict[int, Tensor] = {}

    @property
    def kind(self) -> Kind:
        """Neurons write to their own layer."""
        return "plt"

    @property
    def n_layers(self) -> int:
        """Layers of the model."""
        return len(self.layers_of_model)

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.layers_of_model[0].down.shape[0]

    @property
    def d_transcoder(self) -> int:
        """Neurons per layer."""
        return self.layers_of_model[0].down.shape[1]

    @property
    def expected_l0(self) -> float:
        """How many neurons per layer and position may become nodes."""
        return float(min(self.reference.top, self.d_transcoder))

    @property
    def dtype(self) -> torch.dtype:
        """The model's dtype."""
        return self.layers_of_model[0].down.dtype

    @property
    def device(self) -> torch.device:
        """Where layer 0 is."""
        return self.layers_of_model[0].down.device

    def conventions(self) -> dict[str, Any]:
        """What was decided, for the metadata of graphs; none of it is a fact about the model."""
        mlp = self.layers_of_model[0]
        ratio = "ratio act(x)/x frozen"
        if mlp.gate is None:
            rule = ratio
        elif self.reference.gate == "frozen":
            rule = "gate frozen: act(gate) is a constant"
        else:
            rule = f"half rule: gate and value pass on half of their product each; {ratio}"
        return {
            "linearisation": rule,
            "per_layer_and_position": min(self.reference.top, self.d_transcoder),
            "chosen_by": "|value| times the length of the column of W_down",
            "position_0": "all neurons are in the error node",
        }

    def cover(self, n_layers: int) -> Self:
        """The set, which has every layer."""
        return self

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """The set as it is: its weights are the model's."""
        return self

    def place(self, devices: Sequence[torch.device], dtype: torch.dtype | None = None) -> Self:
        """The set as it is: its weights are where the model is."""
        return self

    def encode_layer(self, x: Tensor, layer: int, apply_activation_function: bool = True) -> Tensor:
        """All neurons `(…, neuron)` on the MLP's input `x (…, d_model)`; they have no other pre-activation than `readings`."""
        mlp = self.layers_of_model[layer]
        x = x.to(mlp.down)
        gate, up = _products(mlp, x)
        return mlp.activation(up) if gate is None else mlp.activation(gate) * up

    def readings(self, x: Tensor, layer: int, frozen: Tensor) -> Tensor:
        """The linearisation at `frozen (pos, d_model)`, on `x (pos, d_model)`: `(pos, neuron)`; at `x = frozen` the neurons."""
        mlp = self.layers_of_model[layer]
        wide = torch.promote_types(mlp.down.dtype, torch.float32)
        gate0, up0 = (None if part is None else part.to(wide) for part in _products(mlp, frozen.to(mlp.down)))
        gate, up = (None if part is None else part.to(wide) for part in _products(mlp, x.to(mlp.down)))
        assert up0 is not None
        assert up is not None
        if gate0 is None or gate is None:
            return _ratio(mlp.activation, up0) * up
        of_up = mlp.activation(gate0) * up
        if self.reference.gate == "frozen":
            return of_up
        return 0.5 * (_ratio(mlp.activation, gate0) * up0 * gate + of_up)

    def strongest(self, acts: Tensor, layer: int) -> Tensor:
        """Neurons `(pos, neuron)` with all set to zero but those that write most at each position."""
        count = min(self.reference.top, acts.shape[-1])
        if count == acts.shape[-1]:
            return acts
        if layer not in self._norms:
            self._norms[layer] = self.layers_of_model[layer].down.float().norm(dim=0)
        places = (acts.abs().float() * self._norms[layer]).topk(count, dim=-1).indices
        return torch.zeros_like(acts).scatter(-1, places, acts.gather(-1, places))

    def encoder_rows(self, layer: int, features: Tensor, x: Tensor | None = None) -> Tensor:
        """Encoder rows `(n, d_model)` of neurons `features (n)` that read `x (n, d_model)`. Raises ValueError without it."""
        if x is None:
            raise ValueError("a neuron's encoder row depends on what it reads")
        mlp = self.layers_of_model[layer]
        wide = torch.promote_types(mlp.down.dtype, torch.float32)
        features, x = features.to(mlp.down.device), x.to(mlp.down.device, wide)
        W_up = mlp.up[features].to(wide)
        up = _one_each(W_up, mlp.up_bias, features, x)
        if mlp.gate is None:
            return _ratio(mlp.activation, up)[:, None] * W_up
        W_gate = mlp.gate[features].to(wide)
        gate = _one_each(W_gate, mlp.gate_bias, features, x)
        of_up = mlp.activation(gate)[:, None] * W_up
        if self.reference.gate == "frozen":
            return of_up
        return 0.5 * ((_ratio(mlp.activation, gate) * up)[:, None] * W_gate + of_up)

    def decoder_rows(self, layer: int, features: Tensor) -> Tensor:
        """Columns of `W_down (n, 1, d_model)` of neurons `features (n)`."""
        down = self.layers_of_model[layer].down
        return down[:, features.to(down.device)].T[:, None]

    def written_layers(self, layer: int) -> range:
        """The layer itself."""
        return range(layer, layer + 1)

    def bias(self, layer: int) -> Tensor:
        """The bias of `W_down (d_model)`, zero where there is none."""
        mlp = self.layers_of_model[layer]
        return mlp.down.new_zeros(self.d_model) if mlp.down_bias is None else mlp.down_bias

    def skip_matrix(self, layer: int) -> None:
        """None: what a neuron doesn't explain is in the error node."""


def _products(mlp: Mlp, x: Tensor) -> tuple[Tensor | None, Tensor]:
    """The gate before its activation function `(…, neuron)`, or None, and the other factor."""
    up = functional.linear(x, mlp.up, mlp.up_bias)
    return None if mlp.gate is None else functional.linear(x, mlp.gate, mlp.gate_bias), up


def _one_each(W: Tensor, bias: Tensor | None, features: Tensor, x: Tensor) -> Tensor:
    """`(n)`: each row of `W (n, d_model)` on its own `x (n, d_model)`, with the neuron's bias."""
    out = (W * x).sum(-1)
    return out if bias is None else out + bias[features].to(out)


def _ratio(activation: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """`act(z) / z`, and the slope at 0 where `z` is 0."""
    with torch.enable_grad():
        origin = torch.zeros(1, dtype=z.dtype, device=z.device, requires_grad=True)
        (slope,) = torch.autograd.grad(activation(origin).sum(), origin)
    return torch.where(z == 0, slope, activation(z) / z)


def inspect_neurons(
    reference: NeuronReference, *, model: str, n_layers: int, d_model: int, d_mlp: int
) -> InspectedTranscoders:
    """What is known about the neurons of a model before its weights are read."""
    config = SetConfig(
        kind="plt",
        feature_input_hook=READ_HOOK,
        feature_output_hook=WRITE_HOOK,
        model_name=model,
        scan=reference.scan(model),
        k=min(reference.top, d_mlp),
    )
    shape = SetShape(
        kind="plt",
        n_layers=n_layers,
        d_model=d_model,
        d_transcoder=d_mlp,
        activations=("neurons",) * n_layers,
        skip_layers=(),
        stored_dtype=torch.float32,
        encoder_bytes=(0,) * n_layers,
        decoder_bytes=(0,) * n_layers,
    )
    return InspectedTranscoders(Path(), config, shape, "neurons")
