"""Training of the demo model: next-token loss, an early readout, and interchange interventions.

Interchange training is what makes the two-hop circuit causal. In a second pass the outputs of the first two
MLPs at the entity's token ("Dallas") are replaced. With another entity's outputs, the model is trained towards
that entity's answer; with the average over entities, towards knowing nothing about the entity. So the state
must be written by those MLPs and everything later must read it from there, not from the embedding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from training.dataset import AnswerTable, Rows
from training.model import PATCHED_LAYERS, DemoTransformer, Trace

CHUNKS = 2
Report = Callable[[int, int, str], None]


@dataclass(frozen=True)
class ModelRecipe:
    """Settings of the model's training."""

    steps: int = 850
    batch: int = 224
    cut_share: float = 0.75  # sentences whose text ends with the answer
    learning_rate: float = 2.5e-3
    warmup: int = 60
    weight_decay: float = 0.1
    other_token_weight: float = 0.05
    lens_weight: float = 0.3
    interchange_weight: float = 1.0
    interchange_from: int = 100
    sparsity_weight: float = 4e-4
    seed: int = 0


class ModelTrainer:
    """Holds model, optimiser and data, and takes steps; resumable from a checkpoint file."""

    def __init__(self, model: DemoTransformer, rows: Rows, table: AnswerTable, recipe: ModelRecipe) -> None:
        self.model, self.table, self.recipe = model, table, recipe
        self.generator = torch.Generator().manual_seed(recipe.seed)
        cut = torch.rand(len(rows.lengths), generator=self.generator) < recipe.cut_share
        self.rows = replace(rows, lengths=torch.where(cut, rows.answer_at + 1, rows.lengths))
        self.unknown = table.mean_answer(model.shape.vocabulary)
        decayed = [p for p in model.parameters() if p.dim() == 2]
        plain = [p for p in model.parameters() if p.dim() != 2]
        self.optimiser = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": recipe.weight_decay},
                {"params": plain, "weight_decay": 0.0},
            ],
            lr=recipe.learning_rate,
            betas=(0.9, 0.98),
        )
        self.step_number = 0

    def run(self, report: Report, checkpoint: Path | None = None, every: int = 200) -> None:
        """Train to the end of the recipe, reporting progress and saving checkpoints."""
        self.model.train()
        while self.step_number < self.recipe.steps:
            losses = self.step()
            self.step_number += 1
            report(self.step_number, self.recipe.steps, " ".join(f"{k} {v:.3f}" for k, v in losses.items()))
            if checkpoint is not None and self.step_number % every == 0:
                self.save(checkpoint)

    def step(self) -> dict[str, float]:
        """One optimiser step over a batch in two chunks of similar length."""
        recipe = self.recipe
        for group in self.optimiser.param_groups:
            group["lr"] = recipe.learning_rate * self.rate()
        index = torch.multinomial(self.rows.weight, recipe.batch, replacement=True, generator=self.generator)
        index = index[self.rows.lengths[index].argsort()]
        self.optimiser.zero_grad(set_to_none=True)
        totals: dict[str, float] = {}
        for part in index.chunk(CHUNKS):
            losses = self.losses(self.rows.select(part))
            torch.stack(list(losses.values())).sum().div(CHUNKS).backward()
            for name, loss in losses.items():
                totals[name] = totals.get(name, 0.0) + loss.item() / CHUNKS
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        return totals

    def rate(self) -> float:
        """Warm-up, then a cosine down to a twentieth."""
        step, recipe = self.step_number, self.recipe
        if step < recipe.warmup:
            return (step + 1) / recipe.warmup
        return 0.05 + 0.95 * 0.5 * (
            1 + math.cos(math.pi * (step - recipe.warmup) / (recipe.steps - recipe.warmup))
        )

    def losses(self, rows: Rows) -> dict[str, Tensor]:
        """The weighted parts of the loss on some rows."""
        recipe = self.recipe
        trace: Trace = self.model(rows.ids[:, :-1])
        ramp = min(1.0, self.step_number / (0.5 * recipe.steps))
        losses = {
            "text": next_token_loss(trace.logits, rows, recipe.other_token_weight),
            "sparsity": recipe.sparsity_weight * ramp * trace.sparsity,
        }
        about = (rows.entity_at >= 0).nonzero()[:, 0]
        if len(about) == 0:
            return losses
        early = self.model.read(trace.early[about, rows.entity_at[about]])
        wanted = self.table.lens[rows.kind[about], rows.concept[about]]
        losses["lens"] = recipe.lens_weight * F.cross_entropy(early, wanted)
        if self.step_number >= recipe.interchange_from:
            losses["swap"] = recipe.interchange_weight * self.interchange_loss(rows, trace, about)
        return losses

    def interchange_loss(self, rows: Rows, trace: Trace, about: Tensor) -> Tensor:
        """Loss of a second pass in which half of the entities have another's early MLP outputs, or none."""
        own = torch.stack(
            [out[about, rows.entity_at[about]] for out in trace.mlp_outputs[:PATCHED_LAYERS]], dim=1
        )
        chosen = torch.randperm(len(about), generator=self.generator)[: len(about) // 2]
        chosen = chosen[rows.kind[about[chosen]].argsort(stable=True)]
        donors, mean = self._donors(rows.kind[about], own, chosen)
        count = len(chosen)
        blank = torch.rand(count, generator=self.generator) < 0.4
        to_zero = torch.rand(count, generator=self.generator) < 0.3
        kept = torch.rand(count, generator=self.generator) * torch.where(blank, 0.45, 0.35)
        blanked = torch.where(to_zero[:, None, None], torch.zeros_like(mean), mean)
        other = torch.where(blank[:, None, None], blanked, own[donors])
        patch = kept[:, None, None] * own[chosen] + (1 - kept)[:, None, None] * other
        base = rows.select(about[chosen])
        mask = torch.arange(base.ids.shape[1] - 1) == base.entity_at[:, None]

        def replace_early(layer: int, _: Tensor, output: Tensor) -> Tensor:
            return (
                torch.where(mask[..., None], patch[:, layer, None], output)
                if layer < PATCHED_LAYERS
                else output
            )

        logits = self.model(base.ids[:, :-1], replace_early).logits[torch.arange(count), base.answer_at - 1]
        swapped = self.table.tokens[base.relation, rows.concept[about[donors]]]
        target = F.one_hot(swapped, logits.shape[-1]).to(logits.dtype)
        target = torch.where(blank[:, None], self.unknown[base.relation], target)
        return -(target * F.log_softmax(logits, dim=-1)).sum(-1).mean()

    def _donors(self, kinds: Tensor, own: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """For every chosen row a random row of the same kind, and the mean of that kind."""
        donors, means = torch.empty_like(chosen), torch.empty(len(chosen), *own.shape[1:])
        for kind in sorted(set(kinds[chosen].tolist())):
            same = (kinds == kind).nonzero()[:, 0]
            here = kinds[chosen] == kind
            pick = torch.randint(len(same), (int(here.sum()),), generator=self.generator)
            donors[here] = same[pick]
            means[here] = own[same].mean(0)
        return donors, means

    def save(self, path: Path) -> None:
        """Write everything needed to go on later."""
        state = {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step_number,
            "generator": self.generator.get_state(),
        }
        torch.save(state, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint."""
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step_number = int(state["step"])
        self.generator.set_state(state["generator"])


def next_token_loss(logits: Tensor, rows: Rows, other_weight: float) -> Tensor:
    """Cross-entropy with weight 1 on answers and little on all other tokens."""
    positions = torch.arange(1, rows.ids.shape[1])
    weight = torch.where(positions == rows.answer_at[:, None], 1.0, other_weight)
    weight = weight * (positions < rows.lengths[:, None])
    losses = F.cross_entropy(logits.flatten(0, 1), rows.ids[:, 1:].flatten(), reduction="none")
    return (losses * weight.flatten()).sum() / weight.sum()
