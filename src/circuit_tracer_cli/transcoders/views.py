"""Weights that a file holds in another order than they are delivered in. Nothing that was read is kept."""

from __future__ import annotations

import torch
from torch import Tensor

from circuit_tracer_cli.files.tensors import TensorFile
from circuit_tracer_cli.transcoders.rows import LazyWeights


class TransposedWeights(LazyWeights):
    """A matrix stored `(d_model, feature)` and delivered `(feature, d_model)`."""

    stored_by_rows = False

    def __init__(
        self,
        file: TensorFile,
        name: str,
        device: torch.device,
        dtype: torch.dtype,
        row_shape: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__(file, name, device, dtype)
        d_model, d_transcoder = file.tensors[name].shape
        self.shape = (d_transcoder, d_model)

    def _gather(self, distinct: Tensor) -> Tensor:
        return self.file.view(self.name).index_select(1, distinct).T.contiguous()

    def _slice(self, start: int, stop: int) -> Tensor:
        return self.file.view(self.name)[:, start:stop].T.contiguous()


class LaterSlots(LazyWeights):
    """A decoder stored `(feature, layer, d_model)` over all layers; of the slots only the last are delivered."""

    stored_by_rows = False

    def _gather(self, distinct: Tensor) -> Tensor:
        return self.file.gather(self.name, distinct)[:, self._first :].contiguous()

    def _slice(self, start: int, stop: int) -> Tensor:
        return self.file.rows(self.name, start, stop)[:, self._first :].contiguous()

    @property
    def _first(self) -> int:
        return self.file.tensors[self.name].shape[1] - self.shape[1]
