"""Training of the demo's transcoders (per-layer and cross-layer) with a JumpReLU whose threshold is controlled.

Every layer has one threshold, moved after each step so that the mean number of active features follows a target
that falls from many to few. Errors are relative to the size of each output, so that no rare large one dominates.
Only active features are decoded, which is what makes an hour on a laptop enough.

Two things keep the features readable. Tokens of places are pressed harder than others to do with few features, so that
one feature stands for a state rather than several for a city. And training begins with more features than are kept:
the ones that do least are cut at the end, thresholds are raised and fixed, and the rest is refined.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.activations import Activations

Report = Callable[[int, int, str], None]


@dataclass(frozen=True)
class TranscoderRecipe:
    """Settings of one transcoder set's training."""

    cross_layer: bool
    features: int = 1280
    kept: int = 1088
    steps: int = 1100
    refining: int = 300
    batch: int = 1024
    learning_rate: float = 3e-3
    refining_rate: float = 1e-3
    warmup: int = 50
    first_target: float = 40.0
    target: float = 9.0
    anneal: float = 0.35
    decay_from: float = 0.6
    resample_every: int = 60
    resample_until: float = 0.8
    answer_allowance: float = 1.9
    crowd: int = 16
    crowd_weight: float = 0.015
    place_crowd: int = 4
    place_weight: float = 0.12
    raises: tuple[float, ...] = ()
    dense_share: float = 0.3
    dense_weight: float = 0.05
    seed: int = 0


class SparseTranscoder(nn.Module):
    """Encoders and decoders of all layers; decoder `l` writes to `reach[l]` layers from `l` on."""

    def __init__(self, layers: int, width: int, recipe: TranscoderRecipe) -> None:
        super().__init__()
        self.layers, self.width, self.features = layers, width, recipe.features
        self.reach = [layers - layer if recipe.cross_layer else 1 for layer in range(layers)]
        generator = torch.Generator().manual_seed(recipe.seed)
        self.encoder = nn.ParameterList(
            nn.Parameter(F.normalize(torch.randn(recipe.features, width, generator=generator), dim=1))
            for _ in range(layers)
        )
        self.decoder = nn.ParameterList(
            nn.Parameter(F.normalize(torch.randn(recipe.features, reach * width, generator=generator), dim=1))
            for reach in self.reach
        )
        self.encoder_bias = nn.Parameter(torch.zeros(layers, recipe.features))
        self.decoder_bias = nn.Parameter(torch.zeros(layers, width))
        self.threshold = nn.Buffer(torch.full((layers,), 1.0))

    def encode(self, x: Tensor, layer: int) -> Tensor:
        """Pre-activations of a layer."""
        return F.linear(x, self.encoder[layer], self.encoder_bias[layer])

    def decode(self, pre: Tensor, active: Tensor, layer: int) -> Tensor:
        """What the active features write: (tokens, reach, width)."""
        token, feature = active.nonzero(as_tuple=True)
        offsets = torch.zeros(len(pre), dtype=torch.long)
        offsets[1:] = active.sum(1).cumsum(0)[:-1]
        written = F.embedding_bag(
            feature, self.decoder[layer], offsets, mode="sum", per_sample_weights=pre[token, feature]
        )
        return written.view(len(pre), self.reach[layer], self.width)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Reconstructed outputs (layers, tokens, width), pre-activations and masks per layer."""
        outputs = [self.decoder_bias[layer].expand(x.shape[1], -1) for layer in range(self.layers)]
        pres, masks = [], []
        for layer in range(self.layers):
            pre = self.encode(x[layer], layer)
            active = pre > self.threshold[layer]
            written = self.decode(pre, active, layer)
            for step in range(self.reach[layer]):
                outputs[layer + step] = outputs[layer + step] + written[:, step]
            pres.append(pre)
            masks.append(active)
        return torch.stack(outputs), pres, masks


class TranscoderTrainer:
    """Trains one transcoder set; outputs are scaled per layer inside and unscaled on export."""

    def __init__(self, data: Activations, recipe: TranscoderRecipe) -> None:
        self.data, self.recipe = data, recipe
        layers, _, width = data.outputs.shape
        self.scale = data.outputs.std(dim=(1, 2))
        self.centre = data.outputs.mean(1) / self.scale[:, None]
        self.model = SparseTranscoder(layers, width, recipe)
        self.model.decoder_bias.data.copy_(self.centre)
        self.optimiser = self._fresh_optimiser()
        self.generator = torch.Generator().manual_seed(recipe.seed + 1)
        self.last_active = torch.zeros(layers, recipe.features, dtype=torch.long)
        self.frequency = torch.zeros(layers, recipe.features)
        self.step_number = 0

    def _fresh_optimiser(self) -> torch.optim.Adam:
        return torch.optim.Adam(self.model.parameters(), lr=self.recipe.learning_rate, betas=(0.9, 0.99))

    def run(self, report: Report, checkpoint: Path | None = None, every: int = 300) -> None:
        """Train to the end of the recipe."""
        recipe = self.recipe
        last = recipe.steps + recipe.refining
        while self.step_number < last:
            if self.step_number == recipe.steps:
                self.cut()
            message = self.step()
            self.step_number += 1
            report(self.step_number, last, message)
            if checkpoint is not None and self.step_number % every == 0:
                self.save(checkpoint)

    def step(self) -> str:
        """One optimiser step, then thresholds, norms and, now and then, dead features."""
        rate = self._learning_rate()
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        index = torch.multinomial(
            self.data.weight, self.recipe.batch, replacement=True, generator=self.generator
        )
        x, y = self.data.inputs[:, index], self.data.outputs[:, index] / self.scale[:, None, None]
        outputs, pres, masks = self.model(x)
        importance = 1 / ((y - self.centre[:, None]).square().mean(-1) + 0.1)
        errors = (y - outputs).square().mean(-1) * importance
        counts = torch.stack([mask.float().sum(1) for mask in masks])
        loss = errors.mean(1).sum() + self._dense_penalty(pres, masks)
        loss = loss + self._crowd_penalty(pres, masks, counts, importance, self.data.place[index])
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        with torch.no_grad():
            overall, answers = counts.mean(1), counts[:, self.data.answer[index]].mean(1)
            if self.step_number < self.recipe.steps:
                self._move_thresholds(torch.maximum(overall, answers / self.recipe.answer_allowance))
            self._after_step(x, y, outputs, errors, masks)
        parts = {"error": errors.mean(1), "active": overall, "at answers": answers}
        return " ".join(
            f"{name} {' '.join(f'{v:.3g}' for v in part.tolist())}" for name, part in parts.items()
        )

    def _learning_rate(self) -> float:
        """Warm-up, level, falling to a fiftieth; once more falling, from lower, while refining."""
        recipe, step = self.recipe, self.step_number
        if step >= recipe.steps:
            return recipe.refining_rate * max(1 - (step - recipe.steps) / recipe.refining, 0.02)
        share = step / recipe.steps
        falling = 1.0 if share < recipe.decay_from else (1 - share) / (1 - recipe.decay_from)
        return recipe.learning_rate * min(1.0, (step + 1) / recipe.warmup) * max(falling, 0.02)

    def _dense_penalty(self, pres: list[Tensor], masks: list[Tensor]) -> Tensor:
        """Discourages features that are active on a large share of all tokens."""
        total = torch.zeros(())
        for layer, (pre, mask) in enumerate(zip(pres, masks, strict=True)):
            dense = self.frequency[layer] > self.recipe.dense_share
            if dense.any():
                total = total + (pre[:, dense] * mask[:, dense]).mean(0).sum()
        return self.recipe.dense_weight * total

    def _crowd_penalty(
        self, pres: list[Tensor], masks: list[Tensor], counts: Tensor, importance: Tensor, place: Tensor
    ) -> Tensor:
        """Discourages many features at once: the activations of tokens that have more than their crowd."""
        recipe, total = self.recipe, torch.zeros(())
        crowd = torch.where(place, recipe.place_crowd, recipe.crowd)
        weight = torch.where(place, recipe.place_weight, recipe.crowd_weight)
        for layer, (pre, mask) in enumerate(zip(pres, masks, strict=True)):
            excess = F.relu(counts[layer] / crowd - 1) * (importance[layer] / self.model.width).sqrt()
            total = total + (excess * weight * (pre * mask).sum(1)).mean()
        return total

    def _move_thresholds(self, active: Tensor) -> None:
        """Raise or lower each layer's threshold towards the step's target number of active features."""
        recipe = self.recipe
        progress = min(1.0, self.step_number / recipe.steps / recipe.anneal)
        target = recipe.first_target * (recipe.target / recipe.first_target) ** progress
        self.model.threshold.mul_(((active + 0.1) / target).log().clamp(-1, 1).mul(0.05).exp())

    def _after_step(self, x: Tensor, y: Tensor, outputs: Tensor, errors: Tensor, masks: list[Tensor]) -> None:
        recipe, share = self.recipe, self.step_number / self.recipe.steps
        for decoder in self.model.decoder:
            decoder.data = F.normalize(decoder.data, dim=1)
        for layer, mask in enumerate(masks):
            self.frequency[layer].lerp_(mask.float().mean(0), 0.03)
            self.last_active[layer][mask.any(0)] = self.step_number
        due = self.step_number % recipe.resample_every == recipe.resample_every - 1
        if due and share < recipe.resample_until:
            for layer in range(self.model.layers):
                self._resample(layer, x[layer], y - outputs, errors)

    def _resample(self, layer: int, x: Tensor, residual: Tensor, errors: Tensor) -> None:
        """Point dead features at inputs with large errors."""
        dead = (self.step_number - self.last_active[layer] > self.recipe.resample_every // 2).nonzero()[:, 0]
        reach = self.model.reach[layer]
        if len(dead) == 0:
            return
        chances = errors[layer : layer + reach].sum(0).square()
        chosen = torch.multinomial(chances, len(dead), replacement=True, generator=self.generator)
        direction = F.normalize(x[chosen] - x.mean(0), dim=1)
        written = residual[layer : layer + reach, chosen].transpose(0, 1).reshape(len(dead), -1)
        encoder, decoder = self.model.encoder[layer], self.model.decoder[layer]
        encoder.data[dead] = direction
        decoder.data[dead] = F.normalize(written, dim=1)
        height = (x[chosen] * direction).sum(1)
        self.model.encoder_bias.data[layer, dead] = 2 * self.model.threshold[layer] - height
        self.last_active[layer][dead] = self.step_number
        for parameter in (encoder, decoder):
            for value in ("exp_avg", "exp_avg_sq"):
                self.optimiser.state[parameter][value][dead] = 0
        for value in ("exp_avg", "exp_avg_sq"):
            self.optimiser.state[self.model.encoder_bias][value][layer, dead] = 0

    @torch.no_grad()
    def cut(self) -> None:
        """Raise the thresholds of layers with too many active features, and keep the features that do most: the
        sum of their squared activations, every prefix weighted as it is drawn."""
        wide = self.model
        for layer, factor in enumerate(self.recipe.raises):
            wide.threshold[layer] *= factor
        worth = torch.zeros(wide.layers, wide.features)
        for layer in range(wide.layers):
            parts = zip(self.data.inputs[layer].split(8192), self.data.weight.split(8192), strict=True)
            for x, weight in parts:
                pre = wide.encode(x, layer)
                worth[layer] += weight @ (pre * (pre > wide.threshold[layer])).square()
        keep = worth.topk(min(self.recipe.kept, wide.features), dim=1).indices.sort(dim=1).values
        self._narrow(keep.shape[1])
        for layer, chosen in enumerate(keep):
            self.model.encoder[layer].copy_(wide.encoder[layer][chosen])
            self.model.decoder[layer].copy_(wide.decoder[layer][chosen])
        self.model.encoder_bias.copy_(wide.encoder_bias.gather(1, keep))
        self.model.decoder_bias.copy_(wide.decoder_bias)
        self.model.threshold.copy_(wide.threshold)

    def _narrow(self, features: int) -> None:
        """Start over with so many features, untrained."""
        model = self.model
        self.model = SparseTranscoder(model.layers, model.width, replace(self.recipe, features=features))
        self.optimiser = self._fresh_optimiser()
        self.last_active = torch.zeros(model.layers, features, dtype=torch.long)
        self.frequency = torch.zeros(model.layers, features)

    def save(self, path: Path) -> None:
        """Write everything needed to go on later."""
        state = {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step_number,
            "generator": self.generator.get_state(),
            "last": self.last_active,
            "frequency": self.frequency,
        }
        torch.save(state, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint."""
        state = torch.load(path, weights_only=True)
        if state["last"].shape[1] < self.model.features:
            self._narrow(state["last"].shape[1])
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step_number, self.last_active = int(state["step"]), state["last"]
        self.frequency = state["frequency"]
        self.generator.set_state(state["generator"])
