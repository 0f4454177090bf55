"""Which head carries the city in the demo, whether ablation agrees, what answers cost: `python -m benchmarks.attention`."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from circuit_tracer_cli import ReplacementModel, attribute, prune_graph
from circuit_tracer_cli.attention.loadings import loadings, mixed
from circuit_tracer_cli.attention.prompt import FrozenPrompt, freeze
from circuit_tracer_cli.attention.qk import attend
from circuit_tracer_cli.attention.walks import pull
from circuit_tracer_cli.attribution.linear import push_attention
from circuit_tracer_cli.backends.base import Edit, Hooks
from circuit_tracer_cli.graph.influence import compute_edge_influence
from circuit_tracer_cli.graph.prune import pruned_graph
from circuit_tracer_cli.interventions.run import Constraints
from circuit_tracer_cli.interventions.spec import HeadEdit
from training.corpus import Sentence, build_corpus
from training.dataset import answer_id

QUESTIONS = 20
TOGETHER = (1, 2, 4, 8)
"""Heads whose looks at the city are cut together."""
SEED = 7


def held_out(count: int) -> list[Sentence]:
    """Two-hop questions about pairs of city and relation that the model wasn't trained on."""
    found = [one for one in build_corpus().splits["pairs"] if one.kind == "state"]
    return random.Random(SEED).sample(found, min(count, len(found)))


def place_of(model: ReplacementModel, sentence: Sentence) -> int:
    """The position of the city."""
    ids: list[int] = model.tokenize(sentence.prompt).ids.tolist()
    return ids.index(answer_id(model.tokenizer, sentence.entity))


def carriers(prompt: FrozenPrompt, position: int) -> Tensor:
    """`(layer, head)`: what each head brings of everything that stands at a position to the answer, when it arrives there."""
    graph, layout = prompt.graph, prompt.graph.layout
    columns, _ = graph.edges.row(layout.logit_offset)
    at = prompt.engine.columns.places(prompt.source_columns(columns.tolist()))[1]
    edges = [(source, layout.logit_offset) for source in columns[at == position].tolist()]
    out = torch.zeros(prompt.engine.n_layers, prompt.n_heads, dtype=torch.float64)
    for edge in loadings(prompt, edges, "arrive", 0):
        for share in edge.heads:
            out[share.layer, share.head] += share.value
    return out


def flow(prompt: FrozenPrompt, position: int) -> Tensor:
    """`(layer, head)`: what each head brings away from a position on all paths to the answer.

    Every kept edge that leaves the position counts by its influence, which goes to heads by their shares of the edge.
    """
    pruned = pruned_graph(prompt.graph)
    influence = compute_edge_influence(pruned.edges, pruned.logit_weights).tolist()
    triples = [triple for block in pruned.edges.blocks() for triple in block.triples()]
    at = prompt.engine.columns.places(prompt.source_columns([source for source, _, _ in triples]))[1].tolist()
    asked = [place for place, there in enumerate(at) if there == position]
    found = loadings(prompt, [triples[place][:2] for place in asked], "arrive", 0)
    out = torch.zeros(prompt.engine.n_layers, prompt.n_heads, dtype=torch.float64)
    for place, edge in zip(asked, found, strict=True):
        for share in edge.heads:
            out[share.layer, share.head] += influence[place] * share.value / edge.weight
    return out


@torch.no_grad()
def through_heads(prompt: FrozenPrompt) -> Tensor:
    """`(layer, head)`: what goes through each head straight to the answer's logit, the whole stream taken together."""
    target, engine = prompt.targets([prompt.graph.layout.logit_offset]), prompt.engine
    rows = []
    for level in pull(engine, target):
        folded, stream = engine.layers[level.layer], prompt.frozen.layers[level.layer].residual
        assert stream is not None
        read = mixed(folded, push_attention(folded, stream.to(engine.dtype)[None], 0)[0], 0)
        rows.append((read[0] * level.z[0]).sum((0, 3)).flatten())
    return torch.stack(rows[::-1]).double()


@torch.no_grad()
def logits_without(
    model: ReplacementModel, ids: Tensor, layer: int, head: int, pinned: Sequence[tuple[str, Edit]] = ()
) -> Tensor:
    """The last position's logits of the model itself with one head off; `pinned` are hooks that hold everything else."""

    def off(pattern: Tensor) -> Tensor:
        changed = pattern.clone()
        changed[:, head] = 0
        return changed

    by_name: dict[str, list[Edit]] = {}
    for name, edit in pinned:
        by_name.setdefault(name, []).append(edit)
    if layer >= 0:
        by_name.setdefault(f"blocks.{layer}.attn.hook_pattern", []).append(off)
    return model.model.run(ids, Hooks(by_name))[0][-1].double()


def without_looks(prompt: FrozenPrompt, heads: Sequence[tuple[int, int]], position: int) -> Tensor:
    """The last position's logits of the model with patterns kept, but for some heads' looks from later positions at one."""
    edits = []
    for layer, head in heads:
        rows = prompt.frozen.layers[layer].pattern[head, position + 1 :].clone()
        rows[:, position] = 0
        edits.append(HeadEdit(layer, head, slice(position + 1, None), rows))
    found = prompt.model.interventions.run(prompt.tokens, edits, Constraints(), last_logits=True)
    return found.logits[-1].double()


def knocked_out(model: ReplacementModel, count: int = QUESTIONS) -> dict[str, Any]:
    """How often answers change when the heads that bring the city can't look at it, beside as many others drawn."""
    rng, right = random.Random(SEED), 0
    tops: Counter[str] = Counter()
    changed = {name: Counter[int]() for name in ("carriers", "others")}
    fallen: dict[str, dict[int, float]] = {name: dict.fromkeys(TOGETHER, 0.0) for name in changed}
    for sentence in held_out(count):
        answer = answer_id(model.tokenizer, sentence.answer)
        graph = attribute(sentence.prompt, model, attribution_targets=torch.tensor([answer]))
        prompt = freeze(graph, model)
        place = place_of(model, sentence)
        carried = flow(prompt, place).flatten()
        tops["L{}H{}".format(*divmod(int(carried.argmax()), prompt.n_heads))] += 1
        order = [divmod(place, prompt.n_heads) for place in carried.argsort(descending=True).tolist()]
        before = without_looks(prompt, [], place)
        if int(before.argmax()) != answer:
            continue
        right += 1
        for n in TOGETHER:
            for name, heads in (("carriers", order[:n]), ("others", rng.sample(order[n:], n))):
                after = without_looks(prompt, heads, place)
                changed[name][n] += int(after.argmax()) != answer
                loss = before.log_softmax(0) - after.log_softmax(0)
                fallen[name][n] += float(loss[answer])
    return {
        "answers right before": right,
        "top head": dict(tops.most_common(4)),
        **{f"answers changed, {n} {name}": changed[name][n] / right for n in TOGETHER for name in changed},
        **{f"log probability lost, {n} {name}, mean": fallen[name][n] / right for n in TOGETHER for name in changed},
    }  # fmt: skip


def city_to_answer(model: ReplacementModel, count: int = QUESTIONS) -> dict[str, Any]:
    """The heads that carry the city to the answer, and ablation of each, over held-out questions."""
    tops: Counter[str] = Counter()
    shares, predicted, measured, flips, others = [], [], [], [], []
    rng = random.Random(SEED)
    for sentence in held_out(count):
        answer = answer_id(model.tokenizer, sentence.answer)
        graph = attribute(sentence.prompt, model, attribution_targets=torch.tensor([answer]))
        prompt = freeze(graph, model)
        carried, through = carriers(prompt, place_of(model, sentence)), through_heads(prompt)
        layer, head = divmod(int(carried.argmax()), prompt.n_heads)
        tops[f"L{layer}H{head}"] += 1
        shares.append(float(carried.max() / carried.sum()))
        ids = prompt.tokens.ids
        before = logits_without(model, ids, -1, 0)
        _, pinned = model.setup_intervention_with_freeze(ids, range(prompt.engine.n_layers))
        right = int(before.argmax()) == answer
        off = {}
        for place in range(through.numel()):
            one = divmod(place, prompt.n_heads)
            off[one] = logits_without(model, ids, *one)
            held = logits_without(model, ids, *one, pinned)
            drop = (before - before.mean())[answer] - (held - held.mean())[answer]
            predicted.append(float(through[one]))
            measured.append(float(drop))
        if right:
            flips.append(int(off[layer, head].argmax()) != answer)
            other = rng.choice([one for one in off if one != (layer, head)])
            others.append(int(off[other].argmax()) != answer)
    both = torch.tensor([predicted, measured])
    return {
        "questions": len(shares),
        "top head": dict(tops.most_common(4)),
        "its share of what arrives, mean": sum(shares) / len(shares),
        "answers right before": len(flips),
        "answers changed without the top head": sum(flips) / len(flips),
        "answers changed without another head": sum(others) / len(others),
        "direct effect, predicted against measured: Pearson": float(torch.corrcoef(both)[0, 1]),
        "direct effect, largest difference": float((both[0] - both[1]).abs().max()),
    }


def fastest(work: Callable[[], object], times: int = 3) -> float:
    """Return the seconds of the fastest of several runs."""
    best = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def row_flops(prompt: FrozenPrompt) -> float:
    """Operations of one row from the last position through all blocks, by attention alone."""
    shape = prompt.model.model.shape
    d_attention, n_pos = shape.n_heads * shape.d_head, prompt.n_pos
    return 2.0 * shape.n_layers * n_pos * (2 * shape.d_model * d_attention + n_pos * d_attention)


def cost(model: ReplacementModel) -> dict[str, float]:
    """Times of the questions as multiples of one row's time and of its operations."""
    torch.set_num_threads(1)
    words = "Fact: the capital of the state containing Dallas is Austin. "
    ids = model.tokenize(words * 5).ids
    graph = attribute(ids, model, max_feature_nodes=500)
    prompt = freeze(graph, model)
    kept = prune_graph(graph, 0.8, 0.98)
    matrix = graph.adjacency_matrix * kept.edge_mask
    targets, sources = matrix.nonzero().unbind(1)
    edges = list(zip(sources.tolist(), targets.tolist(), strict=True))
    logit = graph.layout.logit_offset
    target = prompt.targets([logit])
    row = fastest(lambda: prompt.engine.rows(target), 20)
    one = [(graph.layout.token_offset + 5, logit)]
    size = 4 * 1024
    square = torch.randn(size // 4, size // 4)
    speed = 2 * (size // 4) ** 3 / fastest(lambda: square @ square, 5)
    floor = row_flops(prompt) / speed
    return {
        "tokens": len(ids),
        "kept edges": len(edges),
        "one row, ms": 1e3 * row,
        "one row, times the floor": row / floor,
        "one edge (arrive), times its floor of two rows": fastest(lambda: loadings(prompt, one)) / floor / 2,
        "one edge (arrive), rows": fastest(lambda: loadings(prompt, one)) / row,
        "one edge (through), rows": fastest(lambda: loadings(prompt, one, "through")) / row,
        "kept edges (arrive), ms each": 1e3 * fastest(lambda: loadings(prompt, edges, n=4), 1) / len(edges),
        "one QK query, rows": fastest(lambda: attend(prompt, 3, 2, -1, 8)) / row,
        "one QK query, times the floor of its rows": fastest(lambda: attend(prompt, 3, 2, -1, 8))
        / (2.0 * model.model.shape.d_head * floor),
        "one QK query, rows that it asks for": 2.0 * model.model.shape.d_head,
        "freezing the prompt, rows": fastest(lambda: freeze(graph, model)) / row,
    }


def main() -> None:
    """Print both as JSON."""
    model = ReplacementModel.from_pretrained("demo", "demo", device="cpu", lazy_decoder=False)
    for name, measure in (
        ("cost", cost),
        ("city to answer", city_to_answer),
        ("looks at the city cut", knocked_out),
    ):
        print(json.dumps({name: measure(model)}, indent=2), flush=True)


if __name__ == "__main__":
    main()
