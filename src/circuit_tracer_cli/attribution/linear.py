"""The linear engine: rows of direct effects, by walking cotangents down the frozen network. No hooks, no autograd.

A row of target `t` at (layer, position) with direction `v` is the gradient of `⟨v, read point⟩` contracted with every
source vector (Ameisen et al. 2025, "attribution graphs"). With attention patterns and norm scales frozen the map is
linear, so the gradient is a product of matrices. Everything that is fixed for a prompt is folded into them once: norm
gains and centring into `W_V` and `W_O`, norm scales into the pattern, a post-MLP norm into the source vectors.

Cotangents of a block are kept as `(row, pos, d_model)`, rows sorted by the layer of their target from high to low. Rows
that have started at a layer are a prefix, and rows and positions that nothing has reached are never touched.

Layers can be on several devices. Frozen and folded tensors stay with their layer while cotangents travel down; each device
collects the columns of its own layers, and they are added up on layer 0's device.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from circuit_tracer_cli.attribution.products import add_product, product
from circuit_tracer_cli.attribution.sources import Sources
from circuit_tracer_cli.attribution.transfer import sent_to_device
from circuit_tracer_cli.backends.base import FrozenLayer, FrozenPass, LayerWeights, LinearWeights, NormWeights
from circuit_tracer_cli.backends.points import FeaturePoints

LARGEST_IMAGES = 2**25
"""Largest size of the tokens' images under the first attention, in elements; above it, that block is treated like the others."""

FOLDED_AT_ONCE = 2**14
"""Source vectors that are folded at once where they are stored in another dtype than that of the engine."""

SMALLEST_KEY_BLOCK = 64
"""Smallest number of keys pulled through a pattern together: with fewer, products cost more than skipping zeros saves."""


@dataclass(frozen=True, slots=True)
class Targets:
    """Targets to compute rows for: layer (`n_layers` for logits), position and direction of each."""

    layers: Tensor  # (n) int64
    positions: Tensor  # (n) int64
    vectors: Tensor  # (n, d_model)

    def __len__(self) -> int:
        return len(self.layers)

    def select(self, index: Tensor) -> Targets:
        """Return some of the targets, in the order of `index`."""
        return Targets(
            self.layers[index],
            self.positions[index],
            self.vectors[sent_to_device(index, self.vectors.device)],
        )


class Positions:
    """The positions of a block's targets `(n)`, sent to each device once, when they are first wanted there."""

    def __init__(self, on_host: Tensor) -> None:
        self._held = {on_host.device: on_host}

    def on(self, device: torch.device) -> Tensor:
        """The positions on a device."""
        if device not in self._held:
            self._held[device] = sent_to_device(next(iter(self._held.values())), device)
        return self._held[device]


@dataclass(frozen=True, slots=True)
class FoldedLayer:
    """One block's linear maps with everything that is fixed for the prompt folded in; all but scales as the engine stores it."""

    W_O: Tensor  # (d_model, head * d_head)
    W_V: Tensor  # (kv_head * d_head, d_model)
    pattern: Tensor  # (kv_head, key, query, group), transposed for pulling back, divided by the norms' scales
    skip: (
        Tensor | None
    )  # (d_model, d_model), pulls a cotangent at the stream back through the skip connection
    skip_scale: Tensor | None  # (pos)

    def stored(self, dtype: torch.dtype) -> FoldedLayer:
        """The same maps in another dtype."""
        skip = None if self.skip is None else self.skip.to(dtype)
        maps = self.W_O.to(dtype), self.W_V.to(dtype), self.pattern.to(dtype)
        return FoldedLayer(*maps, skip, self.skip_scale)


def fold_norm_out(matrix: Tensor, norm: NormWeights) -> Tensor:
    """Rewrite `matrix (n, d_model)`, which applies to a norm's output, to apply to its input divided by the scale."""
    out = matrix * norm.gain.to(matrix)
    return out - out.mean(-1, keepdim=True) if norm.kind == "layer" else out


def through_norm(vectors: Tensor, norm: NormWeights) -> Tensor:
    """Return `vectors (n, d_model)` written to a norm's input as they reach its output, without the division by the scale."""
    centred = vectors - vectors.mean(-1, keepdim=True) if norm.kind == "layer" else vectors
    return centred * norm.gain.to(vectors)


def pull_to_stream(vectors: Tensor, points: FeaturePoints, norm: NormWeights, scale: Tensor) -> Tensor:
    """Return directions at the read point as directions in the residual stream; `scale (…)` is the pre-MLP norm's."""
    if points.read == "resid_mid":
        return vectors
    if points.read == "normalized":
        out = vectors / scale[..., None]
        return out - out.mean(-1, keepdim=True) if norm.kind == "layer" else out
    return norm.pull_back(vectors, scale)


def fold_layer(
    weights: LayerWeights, frozen: FrozenLayer, points: FeaturePoints, skip: Tensor | None, dtype: torch.dtype
) -> FoldedLayer:
    """Fold one block for the engine."""
    d_model, n_heads, d_head = weights.W_O.shape
    n_kv = weights.W_V.shape[0]
    W_V = fold_norm_out(weights.W_V.to(dtype).reshape(n_kv * d_head, d_model), weights.ln1)
    W_O = weights.W_O.to(dtype).reshape(d_model, n_heads * d_head)
    pattern = frozen.pattern.to(dtype) / frozen.ln1_scale.to(dtype)
    if weights.ln1_post is not None and frozen.ln1_post_scale is not None:
        W_O = through_norm(W_O.T, weights.ln1_post).T.contiguous()
        pattern = pattern / frozen.ln1_post_scale.to(dtype)[:, None]
    n_pos = pattern.shape[-1]
    pattern = pattern.view(n_kv, n_heads // n_kv, n_pos, n_pos).permute(0, 3, 2, 1).contiguous()
    folded_skip, skip_scale = None, None
    if skip is not None:
        folded_skip, skip_scale = _fold_skip(skip.to(dtype), weights, frozen, points)
    return FoldedLayer(W_O, W_V, pattern, folded_skip, skip_scale)


def _fold_skip(
    skip: Tensor, weights: LayerWeights, frozen: FrozenLayer, points: FeaturePoints
) -> tuple[Tensor, Tensor]:
    """Return the skip map from stream to stream: post norm, transposed skip, read point's norm; without scales."""
    ones = torch.ones(len(frozen.ln2_scale), dtype=skip.dtype, device=skip.device)
    scale = ones.clone()
    if points.write == "mlp" and weights.ln2_post is not None and frozen.ln2_post_scale is not None:
        skip = through_norm(skip, weights.ln2_post)
        scale = scale / frozen.ln2_post_scale.to(skip.dtype)
    pulled = pull_to_stream(skip.T.contiguous(), points, weights.ln2, ones[:1].expand(len(skip)))
    if points.read != "resid_mid":
        scale = scale / frozen.ln2_scale.to(skip.dtype)
    return pulled, scale


def key_blocks(n_pos: int) -> list[tuple[int, int]]:
    """Yield runs of keys `(first, last)` whose queries are taken together: the causal half, in eighths."""
    size = max(SMALLEST_KEY_BLOCK, -(-n_pos // 8))
    return [(first, min(first + size, n_pos)) for first in range(0, n_pos, size)]


@dataclass(frozen=True, slots=True)
class Level:
    """What sources have added when a block begins. Valid until the next level is requested.

    Attributes:
        layer: The block; the number of layers before the final norm.
        first: The first position of the tensors.
        stream: `(source, pos, d_model)`, at the beginning of the block, for the sources that have written below it.
        values: `(source, pos, kv_head, d_head)`, what attention reads, before the division by the norm's scale.
        read: `(source, pos, d_model)`, where the MLP's norm reads.
    """

    layer: int
    first: int
    stream: Tensor
    values: Tensor
    read: Tensor


def push_attention(
    folded: FoldedLayer, D: Tensor, first: int, attention: bool = True
) -> tuple[Tensor, Tensor]:
    """Return values `(row, pos, kv_head, d_head)` and attention output `(row, pos, d_model)` for streams `(row, pos, d_model)`.

    Args:
        folded: The block.
        D: The streams, zero before position `first`.
        first: The position that the second axis begins with.
        attention: False for zero output.
    """
    rows, n_pos, _ = D.shape
    n_kv, _, _, group = folded.pattern.shape
    d_head = folded.W_V.shape[0] // n_kv
    values = (D @ folded.W_V.T).view(rows, n_pos, n_kv, d_head)
    if not attention or not rows:
        return values, torch.zeros_like(D)
    pattern = folded.pattern[:, first : first + n_pos, first : first + n_pos].flatten(
        2
    )  # (kv, key, query·group)
    z = torch.bmm(pattern.mT, values.permute(2, 1, 0, 3).reshape(n_kv, n_pos, rows * d_head))
    z = z.view(n_kv, n_pos, group, rows, d_head).permute(3, 1, 0, 2, 4).reshape(rows, n_pos, -1)
    return values, z @ folded.W_O.T


class LinearEngine:
    """Computes rows in closed form.

    Args:
        weights: The model's linear weights.
        frozen: One forward pass.
        points: Where the transcoders read and write.
        sources: The vectors to contract with; its decoder rows are folded in place. The engine keeps
            everything else that it multiplies with in their dtype.
        skips: The transcoders' skip matrix `(d_in, d_out)` for each layer, or None.
    """

    name = "closed-form"

    def __init__(
        self,
        weights: LinearWeights,
        frozen: FrozenPass,
        points: FeaturePoints,
        sources: Sources,
        skips: Sequence[Tensor | None],
    ) -> None:
        self.dtype, self.device = sources.tokens.dtype, sources.tokens.device
        self.devices = [layer.pattern.device for layer in frozen.layers]
        self.weights, self.frozen, self.points = weights, frozen, points
        self.columns, self.tokens = sources.columns, sources.tokens
        self.n_layers = len(weights.layers)
        self.stored = sources.decoders[0].rows.dtype if sources.decoders else self.dtype
        self.layers = [
            fold_layer(layer_weights, layer, points, skip, self.dtype).stored(self.stored)
            for layer_weights, layer, skip in zip(weights.layers, frozen.layers, skips, strict=True)
        ]
        self.decoders = sources.decoders
        starts = torch.tensor(self.columns.starts[1:])
        self.token_columns = (starts - 1).to(self.device)
        self._rooms: dict[tuple[str, torch.device], Tensor] = {}
        self.token_images = self._token_images()
        if points.write == "mlp":
            self._fold_post_norms()

    def _fold_post_norms(self) -> None:
        """Carry source vectors through the post-MLP norm once, so that cotangents need not be."""
        for index, (weights, frozen) in enumerate(zip(self.weights.layers, self.frozen.layers, strict=True)):
            if weights.ln2_post is None or frozen.ln2_post_scale is None:
                continue
            scale = frozen.ln2_post_scale.to(self.dtype)
            decoders = self.decoders[index]
            of_row = scale[decoders.position_of_row().to(scale.device)]
            step = len(of_row) if decoders.rows.dtype == self.dtype else FOLDED_AT_ONCE
            for rows, scales in zip(decoders.rows.split(step), of_row.split(step), strict=True):
                rows.copy_(through_norm(rows.to(self.dtype), weights.ln2_post) / scales[:, None])

    def rows(self, targets: Targets) -> Tensor:
        """Return rows of a block of targets, sorted by layer from high to low: `(row, columns up to the last position)`."""
        n_pos = int(targets.positions.max()) + 1
        outs: dict[torch.device, Tensor] = {}  # (column, row) on each device

        def out_on(device: torch.device) -> Tensor:
            if device not in outs:
                outs[device] = self.room("out", device, self.columns.starts[n_pos], len(targets)).zero_()
            return outs[device]

        positions = Positions(targets.positions)
        top = self.devices[min(int(targets.layers[0]), self.n_layers - 1)]
        G = self.room("G", top, len(targets), n_pos, self.tokens.shape[1]).zero_()
        descending = (-targets.layers).contiguous()
        started = self._start_logits(targets, positions, G)
        tokens = torch.zeros(len(targets), n_pos, dtype=self.dtype, device=self.device)
        for layer in range(self.n_layers - 1, -1, -1):
            reached = int(torch.searchsorted(descending, -layer, right=True))
            if reached == 0:
                continue
            G = self._travelled(G, self.devices[layer])
            if started:
                self.decoders[layer].contract(G[:started], out_on(G.device)[:, :started])
            if layer == 0 and self.token_images is not None:
                self._pull_first_block(targets, positions, G, started, reached, tokens)
            else:
                self._pull_block(layer, targets, positions, G, started, reached)
            started = reached
        out = out_on(self.device)
        for part in outs.values():
            if part is not out:
                out += part.to(self.device)
        self._contract_tokens(self._travelled(G, self.device), tokens, out)
        return out.T.clone(memory_format=torch.contiguous_format)

    def rows_from(self, layer: int, G: Tensor) -> Tensor:
        """Return rows `(row, columns up to the last position)` of cotangents `G (row, pos, d_model)` where `layer` begins."""
        width = self.columns.starts[G.shape[1]]
        devices = {*self.devices[:layer], self.device}
        outs = {device: G.new_zeros(width, len(G), device=device) for device in devices}
        nothing = Targets(
            torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), self.tokens[:0]
        )
        G = G.clone()
        for index in range(layer - 1, -1, -1):
            G = G.to(self.devices[index])
            self.decoders[index].contract(G, outs[G.device])
            self._pull_block(index, nothing, Positions(nothing.positions), G, len(G), len(G))
        out = sum((part.to(self.device) for part in outs.values()), start=torch.zeros_like(outs[self.device]))
        self._contract_tokens(G.to(self.device), G.new_zeros(G.shape[:2], device=self.device), out)
        return out.T.contiguous()

    def push(self, sources: Tensor, targets: Targets) -> Tensor:
        """Return the effects `(target, source)` of sources on targets by carrying sources forward: the transpose of `rows`.

        Args:
            sources: `(n)` int64, columns in the order of `self.columns`.
            targets: The targets, in any order.
        """
        out = torch.zeros(len(targets), len(sources), dtype=self.dtype, device=self.device)
        if not len(targets) or not len(sources):
            return out
        order = torch.argsort(self.columns.places(sources)[0], stable=True)
        for level in self.sweep(sources[order], int(targets.positions.max()) + 1):
            here = ((targets.layers == level.layer) & (targets.positions >= level.first)).nonzero().squeeze(1)
            if not len(here) or not len(level.read):
                continue
            at = targets.select(here)
            directions = self.directions(at)
            for pos in torch.unique(at.positions).tolist():
                rows = (at.positions == pos).nonzero().squeeze(1)
                effects = directions[rows.to(directions.device)] @ level.read[:, pos - level.first].T
                out[here[rows, None].to(out.device), order[: effects.shape[1]].to(out.device)] = effects.to(
                    out
                )
        return out

    def directions(self, targets: Targets) -> Tensor:
        """Return directions `(n, d_model)` in the residual stream for targets that all begin at one layer."""
        layer = int(targets.layers[0])
        if layer == self.n_layers:
            scale = self.frozen.ln_final_scale
            at = scale.to(self.dtype)[sent_to_device(targets.positions, scale.device)]
            return self.weights.ln_final.pull_back(targets.vectors.to(scale.device, self.dtype), at)
        fresh = self._start_features(layer, targets, Positions(targets.positions), 0, len(targets))
        assert fresh is not None
        return fresh

    def sweep(self, sources: Tensor, n_pos: int, attention: bool = True) -> Iterator[Level]:
        """Yield what sources add to the residual stream, block by block upwards, ending with the final norm's input.

        Args:
            sources: `(n)` int64, columns sorted by layer from low to high, tokens before all.
            n_pos: Number of positions.
            attention: False to leave attention out.
        """
        layers, positions = self.columns.places(sources)
        first = min(int(positions.min()), n_pos - 1)
        seen = positions < n_pos
        D = self.tokens.new_zeros(len(sources), n_pos - first, self.tokens.shape[1])
        tokens = ((layers < 0) & seen).nonzero().squeeze(1)
        D[tokens.to(D.device), (positions[tokens] - first).to(D.device)] = self.tokens[
            positions[tokens].to(D.device)
        ]
        started = int((layers < 0).sum())
        for layer, folded in enumerate(self.layers):
            D = D.to(self.devices[layer])
            values, out = push_attention(folded, D[:started], first, attention)
            read = D[:started] if self.weights.parallel else D[:started] + out
            yield Level(layer, first, D[:started], values, read)
            if folded.skip is not None and folded.skip_scale is not None:
                out = out + (read * folded.skip_scale[first:n_pos, None]) @ folded.skip.T
            D[:started] += out
            started = int(torch.searchsorted(layers, layer, right=True))
            writing, vectors = self.decoders[layer].written_by(sources, layers, positions)
            at = seen[writing].to(D.device)
            index = (writing.to(D.device)[at], (positions[writing] - first).to(D.device)[at])
            D.index_put_(index, vectors.to(D)[at], accumulate=True)
        D = D.to(self.frozen.ln_final_scale.device)
        yield Level(self.n_layers, first, D[:started], D.new_empty(0), D[:started])

    def _travelled(self, G: Tensor, device: torch.device) -> Tensor:
        """Return the cotangents on the device of the next layer."""
        return G if G.device == device else self.room("G", device, *G.shape).copy_(G)

    def room(self, name: str, device: torch.device, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Return uninitialized memory for one step, reused by the next call: fresh pages cost as much as the arithmetic."""
        count = math.prod(shape)
        held = self._rooms.get((name, device))
        if held is None or len(held) < count:
            self._rooms.pop((name, device), None)
            held = self._rooms[name, device] = torch.empty(count, dtype=dtype or self.dtype, device=device)
        return held[:count].view(shape)

    def give_back_memory(self) -> None:
        """Let go of the memory kept for the next block."""
        self._rooms.clear()

    def _token_images(self) -> Tensor | None:
        """Return what each token writes through the first block's attention, `(query, d_model, key)`; None if that is too large.

        Below the first block there are only tokens, so a row needs dot products with these images instead of full matrices.
        """
        n_pos, d_model = self.tokens.shape
        if n_pos**2 * d_model > LARGEST_IMAGES or not self.layers:
            return None
        first = self.layers[0]
        n_kv, _, _, group = first.pattern.shape
        values = (self.tokens @ first.W_V.to(self.dtype).T).view(n_pos, n_kv, -1)
        W_O = first.W_O.to(self.dtype).view(d_model, n_kv, group, -1).permute(1, 2, 0, 3).flatten(1, 2)
        through = torch.bmm(W_O, values.permute(1, 2, 0)).view(
            n_kv * group, d_model, n_pos
        )  # (head, d_model, key)
        pattern = first.pattern.to(self.dtype).permute(1, 2, 0, 3).flatten(2)  # (key, query, head)
        images = torch.bmm(pattern, through.permute(2, 0, 1))  # (key, query, d_model)
        return images.permute(1, 2, 0).to(self.stored).contiguous()

    def _pull_first_block(
        self, targets: Targets, places: Positions, G: Tensor, started: int, reached: int, tokens: Tensor
    ) -> None:
        """Take the last step down: what flows through the first attention goes straight to the tokens, `(row, key)`."""
        assert self.token_images is not None
        mlp = self._skip_cotangent(self.layers[0], G[:started])
        fresh = self._start_features(0, targets, places, started, reached)
        index = torch.arange(started, reached, device=self.device)
        positions, n_pos = places.on(self.device)[started:reached], G.shape[1]
        images = self.token_images[:n_pos, :, :n_pos]
        flat = self.token_images[:n_pos].flatten(0, 1)[:, :n_pos]  # a view: many products are one
        if self.weights.parallel:
            tokens[:started] = product(G[:started].flatten(1), flat)
        if mlp is not None:
            G[:started] += mlp
        if fresh is not None:
            G[index, positions] += fresh
        if not self.weights.parallel:
            tokens[:started] = product(G[:started].flatten(1), flat)
            if fresh is not None:
                on_host = targets.positions[started:reached]
                order = torch.argsort(on_host, stable=True)
                distinct, counts = torch.unique_consecutive(on_host[order], return_counts=True)
                groups = sent_to_device(order, self.device).split(counts.tolist())
                for pos, here in zip(distinct.tolist(), groups, strict=True):
                    tokens[index[here]] = product(fresh[here], images[pos])

    def _start_logits(self, targets: Targets, places: Positions, G: Tensor) -> int:
        """Start the rows of logit targets at the output of the final norm, and return their number."""
        count = int((targets.layers == self.n_layers).sum())
        if count:
            scale = self.frozen.ln_final_scale
            positions = places.on(scale.device)[:count]
            directions = targets.vectors[:count].to(scale.device, self.dtype)
            vectors = self.weights.ln_final.pull_back(directions, scale.to(self.dtype)[positions])
            G[torch.arange(count, device=G.device), places.on(G.device)[:count]] = vectors.to(G)
        return count

    def _pull_block(
        self, layer: int, targets: Targets, places: Positions, G: Tensor, started: int, reached: int
    ) -> None:
        """Pull the cotangent from above a block to below it; rows `started … reached` begin at its read point."""
        folded = self.layers[layer]
        mlp = self._skip_cotangent(folded, G[:started])
        if not self.weights.parallel and mlp is not None:
            G[:started] += mlp
        values = self._attention_values(folded, G[:started])
        fresh = self._start_features(layer, targets, places, started, reached)
        if fresh is not None and not self.weights.parallel:
            positions = places.on(G.device)[started:reached]
            values = torch.cat([values, self._fresh_values(folded, fresh, positions, G.shape[1])])
        if len(values):
            flat = G[: len(values)].view(-1, G.shape[2])
            add_product(flat, values.reshape(flat.shape[0], -1), folded.W_V)
        if self.weights.parallel and mlp is not None:
            G[:started] += mlp
        if fresh is not None:
            index = torch.arange(started, reached, device=G.device)
            G[index, places.on(G.device)[started:reached]] += fresh

    def _skip_cotangent(self, folded: FoldedLayer, G: Tensor) -> Tensor | None:
        """Return what flows from a layer's output to its input through the skip connection."""
        if folded.skip is None or folded.skip_scale is None or not len(G):
            return None
        through = G @ folded.skip if folded.skip.dtype == G.dtype else product(G.flatten(0, 1), folded.skip)
        return through.view(G.shape) * folded.skip_scale[: G.shape[1], None]

    def _start_features(
        self, layer: int, targets: Targets, places: Positions, started: int, reached: int
    ) -> Tensor | None:
        """Return encoder directions of the targets that begin at a layer, in the residual stream."""
        if started == reached:
            return None
        positions = places.on(self.devices[layer])[started:reached]
        scale = self.frozen.layers[layer].ln2_scale.to(self.dtype)[positions]
        vectors = targets.vectors[started:reached].to(scale)
        return pull_to_stream(vectors, self.points, self.weights.layers[layer].ln2, scale)

    def _attention_values(self, folded: FoldedLayer, G: Tensor) -> Tensor:
        """Return cotangents of the value vectors `(row, key, kv_head * d_head)` for cotangents at every position."""
        rows, n_pos, d_model = G.shape
        n_kv, group = folded.pattern.shape[0], folded.pattern.shape[3]
        d_head = folded.W_V.shape[0] // n_kv
        if not rows:
            return G.new_zeros(0, n_pos, n_kv * d_head)
        z = self.room("z", G.device, rows * n_pos, n_kv * group * d_head)
        product(G.reshape(-1, d_model), folded.W_O, out=z)
        by_head = self.room("z by head", G.device, n_kv, n_pos, group, rows, d_head, dtype=self.stored)
        by_head.copy_(z.view(rows, n_pos, n_kv, group, d_head).permute(2, 1, 3, 0, 4))
        z = by_head.view(n_kv, n_pos * group, rows * d_head)
        values = self.room("values", G.device, n_kv, n_pos, rows * d_head)
        for first, last in key_blocks(n_pos):  # no query before a key looks at it
            pattern = folded.pattern[:, first:last, first:n_pos].flatten(2)
            product(pattern, z[:, first * group :], out=values[:, first:last])
        return values.view(n_kv, n_pos, rows, d_head).permute(2, 1, 0, 3).reshape(rows, n_pos, -1)

    def _fresh_values(self, folded: FoldedLayer, fresh: Tensor, positions: Tensor, n_pos: int) -> Tensor:
        """Return the same for rows whose cotangent is at one position only."""
        n_kv, group = folded.pattern.shape[0], folded.pattern.shape[3]
        z = product(fresh, folded.W_O).view(len(fresh), n_kv, group, -1)
        at = folded.pattern[:, :n_pos].index_select(2, positions).to(z.dtype)
        return torch.einsum("vkrg,rvgd->rkvd", at, z).reshape(len(fresh), n_pos, -1)

    def _contract_tokens(self, G: Tensor, tokens: Tensor, out: Tensor) -> None:
        """Contract the cotangent at the embedding with the token vectors, and add what went through the first attention."""
        n_pos = G.shape[1]
        columns = self.token_columns[:n_pos]
        out[columns] = (torch.einsum("rpd,pd->rp", G, self.tokens[:n_pos]) + tokens).T
