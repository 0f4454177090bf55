"""The frozen network written out naively, for autograd in float64. Shares no formula with the engine but the records."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from circuit_tracer_cli.backends.base import FrozenPass, LinearWeights, NormWeights
from circuit_tracer_cli.replacement import ReplacementModel
from circuit_tracer_cli.transcoders.components import ActiveFeatures


def double(frozen: FrozenPass) -> FrozenPass:
    """The same record in float64."""

    def convert(value: object) -> object:
        if isinstance(value, Tensor):
            return value.double() if value.is_floating_point() else value
        if isinstance(value, tuple):
            return tuple(
                dataclasses.replace(
                    item, **{f.name: convert(getattr(item, f.name)) for f in dataclasses.fields(item)}
                )
                for item in value
            )
        return value

    return dataclasses.replace(
        frozen, **{f.name: convert(getattr(frozen, f.name)) for f in dataclasses.fields(frozen)}
    )


def norm(weights: NormWeights, x: Tensor, scale: Tensor) -> Tensor:
    """A norm at a frozen scale."""
    if weights.kind == "layer":
        x = x - x.mean(dim=-1, keepdim=True)
    y = x / scale.reshape(-1, 1) * weights.gain.double()
    return y if weights.bias is None else y + weights.bias.double()


@dataclass
class Replay:
    """A replacement model frozen on one prompt.

    Args:
        model: The replacement model.
        frozen: Its frozen pass in float64.
        start: `(pos, d_model)`, what the stream starts with beside the token embeddings.
    """

    model: ReplacementModel
    frozen: FrozenPass
    start: Tensor

    def run(self, embed: Tensor, outputs: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Values at the read points and at the final norm's output, for given embeddings and feature outputs."""
        weights: LinearWeights = self.model.model.weights
        stream = embed + self.start
        reads = []
        for index, (layer, fixed) in enumerate(zip(weights.layers, self.frozen.layers, strict=True)):
            attention = self.attention(index, norm(layer.ln1, stream, fixed.ln1_scale))
            if layer.ln1_post is not None:
                attention = norm(layer.ln1_post, attention, fixed.ln1_post_scale)
            middle = stream if weights.parallel else stream + attention
            reads.append(self.read(index, middle))
            output = outputs[index]
            skip = self.model.transcoders.skip_matrix(index)
            if skip is not None:
                original = self.frozen.layers[index].feature_input
                output = output + (reads[-1] - original) @ skip.double()
            if self.model.points.write == "mlp":
                output = norm(layer.ln2_post, output, fixed.ln2_post_scale)
            stream = stream + attention + output
        return reads, norm(weights.ln_final, stream, self.frozen.ln_final_scale)

    def attention(self, index: int, x: Tensor) -> Tensor:
        """Attention with frozen patterns, head by head."""
        layer = self.model.model.weights.layers[index]
        n_heads, n_kv = layer.W_O.shape[1], layer.W_V.shape[0]
        out = torch.zeros_like(x)
        for head in range(n_heads):
            kv = head * n_kv // n_heads
            value = x @ layer.W_V[kv].double().T
            if layer.b_V is not None:
                value = value + layer.b_V[kv].double()
            out = out + self.frozen.layers[index].pattern[head] @ value @ layer.W_O[:, head].double().T
        return out if layer.b_O is None else out + layer.b_O.double()

    def read(self, index: int, middle: Tensor) -> Tensor:
        """The value at the transcoders' read point."""
        layer, scale = self.model.model.weights.layers[index], self.frozen.layers[index].ln2_scale
        kind = self.model.points.read
        if kind == "resid_mid":
            return middle
        if kind == "normed":
            return norm(layer.ln2, middle, scale)
        centred = middle - middle.mean(dim=-1, keepdim=True) if layer.ln2.kind == "layer" else middle
        return centred / scale.reshape(-1, 1)


@dataclass
class Written:
    """What active features add: entry `i` adds `vectors[i]` at `(layers[i], positions[i])` for feature `owners[i]`."""

    owners: Tensor
    layers: Tensor
    positions: Tensor
    vectors: Tensor


def written(model: ReplacementModel, active: ActiveFeatures) -> Written:
    """Decoder vectors of every active feature, read one by one."""
    entries = []
    for owner, ((layer, pos, feature), value) in enumerate(
        zip(active.indices.tolist(), active.values.double(), strict=True)
    ):
        rows = model.transcoders.decoder_rows(layer, torch.tensor([feature]))[0].double()
        entries += [(owner, layer + slot, pos, value * row) for slot, row in enumerate(rows)]
    owners, layers, positions, vectors = zip(*entries, strict=True)
    return Written(torch.tensor(owners), torch.tensor(layers), torch.tensor(positions), torch.stack(vectors))


def oracle_row(
    replay: Replay, layer: int, pos: int, vector: Tensor, added: Written, n_features: int, errors: Tensor
) -> Tensor:
    """One row of direct effects by autograd, in the graph's node order without logits."""
    embed = replay.frozen.embed.clone().requires_grad_(True)
    outputs = [fixed.feature_output.clone().requires_grad_(True) for fixed in replay.frozen.layers]
    reads, final = replay.run(embed, outputs)
    value = (final if layer == len(reads) else reads[layer])[pos] @ vector.double()
    to_embed, *found = torch.autograd.grad(value, [embed, *outputs], allow_unused=True)
    to_outputs = torch.stack(
        [torch.zeros_like(o) if g is None else g for o, g in zip(outputs, found, strict=True)]
    )
    effects = (to_outputs[added.layers, added.positions] * added.vectors).sum(-1)
    features = torch.zeros(n_features, dtype=torch.float64).index_add(0, added.owners, effects)
    error_effects = (to_outputs * errors).sum(-1).flatten()
    tokens = (to_embed * replay.frozen.embed).sum(-1)
    return torch.cat([features, error_effects, tokens])
