"""Make the annotated graphs in demos/graphs from the embedded model: groups, labels, notes and a validation, all measured."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from circuit_tracer_cli.cli.demo_next import place_edits
from circuit_tracer_cli.cli.examples import labels_of
from circuit_tracer_cli.demo import DemoPrompt, places, prompts
from circuit_tracer_cli.export import Destination
from circuit_tracer_cli.export.records import QParams, cantor_code
from circuit_tracer_cli.export.report import REPORT
from circuit_tracer_cli.export.viewer import export
from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.graph.nodes import NodeView, iter_nodes
from circuit_tracer_cli.graph.paths import strongest_nodes
from circuit_tracer_cli.graph.prune import pruned_graph
from circuit_tracer_cli.interventions.run import Constraints
from circuit_tracer_cli.interventions.spec import Intervention
from circuit_tracer_cli.pipeline import trace
from circuit_tracer_cli.prepare import prepare
from circuit_tracer_cli.replacement import ReplacementModel
from circuit_tracer_cli.request import TraceRequest
from circuit_tracer_cli.types import SilentProgress
from circuit_tracer_cli.validation.checks import stored_report
from circuit_tracer_cli.validation.report import Effort, validate_graph

FOLDER = Path(__file__).resolve().parents[1] / "demos" / "graphs"
SHIPPED: tuple[tuple[str, Literal["clt", "plt"]], ...] = (
    ("dallas", "clt"), ("dallas", "plt"), ("osaka-language", "clt"), ("antonym-en", "clt")
)  # fmt: skip
IN_A_GROUP = 6
"""Features of a group at most, the strongest first; a place has all of its own."""


@dataclass(frozen=True)
class Annotator:
    """One graph and what is to be said about it."""

    chosen: DemoPrompt
    kind: Literal["clt", "plt"]
    model: ReplacementModel
    graph: Graph

    def nodes(self) -> list[NodeView]:
        """The features that pruning leaves, those with the most influence first."""
        views = {node.index: node for node in iter_nodes(self.graph)}
        ranked = [views[index] for index, _ in strongest_nodes(self.graph, len(views)) if index in views]
        return [node for node in ranked if node.kind == "feature"]

    def groups(self) -> Iterator[tuple[str, list[NodeView]]]:
        """Names and members: the place in between, what is asked for, and what says the answer."""
        tokens = list(self.graph.prompt_tokens or ())
        last = len(tokens) - 1
        if "place" in self.chosen:
            own = {(one.layer, one.feature) for one in places(self.kind)[self.chosen["place"]].features}
            at = tokens.index(f" {self.chosen['city']}")
            yield (
                self.chosen["place"],
                [node for node in self.nodes() if node.position == at and (node.layer, node.feature) in own],
            )
        for word in (" capital", " language", " opposite", " small"):
            if word in tokens:
                at = tokens.index(word)
                yield word.strip(), [node for node in self.nodes() if node.position == at][:IN_A_GROUP]
        answer = self.graph.layout.logit_offset
        weights = self.graph.adjacency_matrix[answer]
        saying = [node for node in self.nodes() if node.position == last and float(weights[node.index]) > 0]
        saying.sort(key=lambda node: -float(weights[node.index]))
        yield f"say{self.chosen['answer']}", saying[:IN_A_GROUP]

    def annotations(self) -> QParams:
        """Groups, labels and notes."""
        taken: set[str] = set()
        supernodes, clerps, notes = [], {}, {}
        proposed = labels_of(self.graph.scan, None)
        for name, members in self.groups():
            own = [node for node in members if node.node_id not in taken]
            if not own:
                continue
            taken.update(node.node_id for node in own)
            supernodes.append([name, *(node.node_id for node in own)])
            for node in own:
                assert node.layer is not None
                assert node.feature is not None
                text = proposed.get((node.layer, node.feature), "")
                clerps[str(cantor_code(node.layer, node.feature))] = f"{name}: {text}" if text else name
            notes[own[0].node_id] = f"The strongest of the group {name}."
        ends = [
            node.node_id for node in iter_nodes(self.graph) if node.index == self.graph.layout.logit_offset
        ]
        pinned = [*(node for group in supernodes for node in group[1:]), *self._tokens(), *ends]
        return QParams(
            pinnedIds=pinned,
            supernodes=supernodes,
            extra={
                "clerps": list(map(list, clerps.items())),
                "notes": {"graph": self.note(), "nodes": notes},
            },
        )

    def _tokens(self) -> list[str]:
        """The embeddings of the words that the groups are about."""
        words = {f" {self.chosen.get('city', '')}", " capital", " language", " opposite", " small"}
        return [
            node.node_id for node in iter_nodes(self.graph) if node.kind == "token" and node.token in words
        ]

    def note(self) -> str:
        """What it is about, and what edits were seen to do."""
        lines = [f"{self.chosen['title']}.", self.chosen["note"]]
        if "place" in self.chosen:
            known, at = (
                places(self.kind),
                list(self.graph.prompt_tokens or ()).index(f" {self.chosen['city']}"),
            )
            own, other = known[self.chosen["place"]], known[self.chosen["other"]]
            for what, edits in (
                (f"With the features of {own.name} off", place_edits(own, None, at)),
                (f"With those of {other.name} in their place", place_edits(own, other, at)),
            ):
                lines.append(f'{what} the model says "{self.answer(edits)}".')
        return " ".join(lines)

    def answer(self, edits: Sequence[Intervention]) -> str:
        """The likeliest token after edits that spread through everything."""
        tokens = self.model.tokenize(self.chosen["prompt"])
        logits = self.model.interventions.run(tokens, edits, Constraints(freeze_attention=False)).logits[-1]
        return str(self.model.tokenizer.decode([int(logits.argmax())]))


def make(name: str, kind: Literal["clt", "plt"], folder: Path) -> Path:
    """Trace, validate, annotate and write one graph."""
    chosen = next(one for one in prompts() if one["id"] == name)
    loaded: list[ReplacementModel] = []
    request = TraceRequest(
        prompt=chosen["prompt"],
        transcoder_set=f"demo-{kind}",
        offline=True,
        command=f"circuit-tracer demo --prompt-id {name} --transcoders {kind}",
    )
    graph = trace(prepare(request), SilentProgress(), on_model=loaded.append)
    graph.metadata[REPORT] = stored_report(
        validate_graph(graph, loaded[0], Effort(samples=24, perturbations=4))
    )
    pruned = pruned_graph(graph)
    slug = name if kind == "clt" else f"{name}-{kind}"
    target = folder / f"{slug}.json"
    target.unlink(missing_ok=True)  # annotations of an older one would be kept
    annotations = Annotator(chosen, kind, loaded[0], pruned).annotations()
    export(pruned, Destination(slug, folder), annotations=annotations)
    return target


def main() -> None:
    """Make all, into the folder named or the repository's own."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name, kind in SHIPPED:
        path = make(name, kind, folder)
        file = json.loads(path.read_text(encoding="utf-8"))
        sizes = f"{len(file['nodes'])} nodes, {len(file['links'])} links, {path.stat().st_size / 1e6:.2f} MB"
        print(f"{path.name}: {sizes}; {', '.join(group[0] for group in file['qParams']['supernodes'])}")
    (folder / ".graph-metadata.json.lock").unlink(missing_ok=True)


if __name__ == "__main__":
    main()
