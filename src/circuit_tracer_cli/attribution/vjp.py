"""The generic engine: the same rows from vector-Jacobian products through the model itself, frozen at the same points.

For families without a closed form, and as a check on those with one. One unbatched forward pass keeps its
autograd graph; each block of rows is one batched backward pass over it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from circuit_tracer_cli.attribution.linear import Targets
from circuit_tracer_cli.attribution.sources import Sources
from circuit_tracer_cli.backends.base import FrozenGraph


class VjpEngine:
    """Computes rows by autograd.

    Args:
        graph: The frozen forward pass with its autograd graph; leaves at the embedding and at every write point.
        sources: The vectors to contract with.
    """

    name = "vector-jacobian"

    def __init__(self, graph: FrozenGraph, sources: Sources) -> None:
        self.graph, self.sources, self.columns = graph, sources, sources.columns
        self.n_layers = len(graph.reads)
        self.dtype, self.device = sources.tokens.dtype, sources.tokens.device

    def rows(self, targets: Targets) -> Tensor:
        """Return rows of a block of targets: `(row, columns up to the last position)`."""
        n_pos = int(targets.positions.max()) + 1
        out = torch.zeros(len(targets), self.columns.starts[n_pos], dtype=self.dtype, device=self.device)
        for layer in torch.unique(targets.layers).tolist():
            index = torch.nonzero(targets.layers == layer).squeeze(1)
            self._rows_of_layer(layer, targets.select(index), index.to(self.device), out, n_pos)
        return out

    def give_back_memory(self) -> None:
        """Nothing is kept between two blocks."""

    def _rows_of_layer(self, layer: int, targets: Targets, index: Tensor, out: Tensor, n_pos: int) -> None:
        """Return rows of targets that all begin at one layer."""
        start = self.graph.final if layer == self.n_layers else self.graph.reads[layer]
        cotangent = torch.zeros(len(targets), *start.shape, dtype=start.dtype, device=start.device)
        rows = torch.arange(len(targets), device=start.device)
        cotangent[rows, targets.positions.to(start.device)] = targets.vectors.to(cotangent)
        inputs = [self.graph.embed, *self.graph.writes[:layer]]
        pulled = torch.autograd.grad(
            start, inputs, cotangent, is_grads_batched=True, retain_graph=True, allow_unused=True
        )
        if pulled[0] is not None:
            self._contract_tokens(pulled[0].to(self.device, self.dtype), index, out, n_pos)
        for write, gradient in enumerate(pulled[1:]):
            if gradient is not None:
                self._contract(write, gradient.to(self.dtype), index, out, n_pos)

    def _contract(self, layer: int, G: Tensor, index: Tensor, out: Tensor, n_pos: int) -> None:
        """Contract with the decoders and errors that write to a layer."""
        contracted = torch.zeros(out.shape[1], len(index), dtype=self.dtype, device=G.device)
        self.sources.decoders[layer].contract(G[:, :n_pos], contracted)
        out[index] += contracted.T.to(self.device)

    def _contract_tokens(self, G: Tensor, index: Tensor, out: Tensor, n_pos: int) -> None:
        for pos in range(n_pos):
            out[index, self.columns.token_column(pos)] = G[:, pos] @ self.sources.tokens[pos]
