"""Reads from a model how a block's attention scores are made, as declared by its family."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from circuit_tracer_cli.backends.base import Projection, ScoreWeights
from circuit_tracer_cli.backends.families.base import Architecture, ScoreLayout
from circuit_tracer_cli.backends.modules import ModelModules, dense_weight, norm_record
from circuit_tracer_cli.errors import UnsupportedArchitecture


class ScoreModules:
    """Find the modules of a model that make its attention scores, before anything wraps the model.

    Args:
        modules: The model's other modules.
        architecture: What its family declares.

    Raises:
        UnsupportedArchitecture: A declared module is missing.
    """

    def __init__(self, modules: ModelModules, architecture: Architecture) -> None:
        self.modules, self.architecture, self.layout = modules, architecture, architecture.scores
        if self.layout is None:
            return
        paths = {self.layout.q, self.layout.k, self.layout.q_norm, self.layout.k_norm} - {None}
        self.of_block = [
            {path: modules.module(path, block) for path in paths if path is not None}
            for block in modules.blocks
        ]
        path = self.layout.rotary
        self.rotary = modules.module(path) if path is not None and "." in path else None

    def weights(self, layer: int, n_pos: int) -> ScoreWeights:
        """The score weights of a block, for prompts of up to `n_pos` tokens. Raises UnsupportedArchitecture."""
        layout = self._known()
        attn = self._attention(layer)
        cos, sin = self._rotation(layer, n_pos)
        scaling = float(getattr(attn, layout.scaling))
        cap = getattr(attn, layout.softcap, None) if layout.softcap else None
        shape = self.modules.shape
        return ScoreWeights(
            self._projection(layer, layout.q, layout.q_norm, 0, shape.n_heads),
            self._projection(layer, layout.k, layout.k_norm, 1, shape.n_kv_heads),
            cos, sin, layout.rotation == "pairs", 1 / scaling if layout.inverse_scaling else scaling,
            None if cap is None else float(cap), _window(self.modules.model.config, layer),
        )  # fmt: skip

    def _known(self) -> ScoreLayout:
        if self.layout is None:
            raise UnsupportedArchitecture(
                f"attention scores of {self.architecture.models} can't be explained yet: their computation isn't declared",
                hint="`circuit-tracer heads` still shows which heads carry an edge",
            )
        return self.layout

    def _attention(self, layer: int) -> Any:
        return self.modules.of_block[layer][self.modules.layout.attn]

    def _projection(self, layer: int, path: str, norm: str | None, slot: int, heads: int) -> Projection:
        """The query's (slot 0) or the key's (slot 1) projection."""
        module, shape, stored = self.of_block[layer][path], self.modules.shape, self._known().stored
        start = slot * shape.n_heads * shape.d_head if stored == "joined" else 0

        def own(values: Tensor) -> Tensor:
            """This side's part `(head, d_head, …)` of the projection's output."""
            if stored == "interleaved":
                return values.view(heads, 3, shape.d_head, *values.shape[1:])[:, slot]
            chosen = values[start : start + heads * shape.d_head]
            return chosen.reshape(heads, shape.d_head, *values.shape[1:])

        bias = getattr(module, "bias", None)
        record = None if norm is None else norm_record(self.of_block[layer][norm], self.modules.layout)
        return Projection(
            own(dense_weight(module)), None if bias is None else own(bias.detach()), record,
            record is not None and len(record.gain) > shape.d_head,
        )  # fmt: skip

    def _rotation(self, layer: int, n_pos: int) -> tuple[Tensor | None, Tensor | None]:
        """Cosines and sines `(pos, rotary_dim)`, times the rotation's factor (yarn); None without positions."""
        layout, attn = self._known(), self._attention(layer)
        if layout.rotary is None or not getattr(attn, "use_rope", True):
            return None, None
        device = self.modules.layer_devices[layer]
        if self.rotary is None:
            sin, cos = getattr(attn, layout.rotary)[:n_pos].to(device).float().chunk(2, dim=-1)
            return cos.repeat_interleave(2, -1), sin.repeat_interleave(2, -1)
        where = next(self.rotary.buffers()).device
        like = torch.zeros(1, n_pos, 1, dtype=torch.float32, device=where)
        positions = torch.arange(n_pos, device=where)[None]
        kinds = getattr(self.modules.model.config, "layer_types", None)
        takes_kind = "layer_type" in inspect.signature(self.rotary.forward).parameters
        with torch.no_grad():
            both = self.rotary(like, positions, *((kinds[layer],) if takes_kind and kinds else ()))
        cos, sin = (found[0].to(device) for found in both)
        return (torch.cat((cos, cos), -1), torch.cat((sin, sin), -1)) if layout.half_width else (cos, sin)


def _window(config: Any, layer: int) -> int | None:
    """How many positions a query of a layer sees; None for all earlier ones."""
    window, kinds = getattr(config, "sliding_window", None), getattr(config, "layer_types", None)
    if window is None or (kinds and kinds[layer] != "sliding_attention"):
        return None
    return int(window)
