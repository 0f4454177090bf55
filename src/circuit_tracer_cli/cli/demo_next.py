"""What to do after `demo`: the place's features as a group in the viewer, and experiments that change the answer.

Every suggested experiment was run first, and did change it.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from circuit_tracer_cli.cli.graph_files import GraphFiles
from circuit_tracer_cli.cli.output import Output, quoted
from circuit_tracer_cli.cli.summary import GraphSummary

if TYPE_CHECKING:
    from circuit_tracer_cli.demo import DemoPrompt, Place
    from circuit_tracer_cli.export.records import QParams
    from circuit_tracer_cli.graph.nodes import NodeView
    from circuit_tracer_cli.interventions.spec import Intervention
    from circuit_tracer_cli.replacement import ReplacementModel

MOST_FEATURES = 64
"""Largest number of features turned off in the search for the few that matter."""


def place_edits(off: Place | None, on: Place | None, position: int) -> list[Intervention]:
    """Return edits that turn one place's features off and another's on, at their mean activation; shared features stay on."""
    from circuit_tracer_cli.interventions.spec import Intervention

    values: dict[tuple[int, int], float] = {}
    for place, factor in ((off, 0.0), (on, 1.0)):
        for one in place.features if place is not None else ():
            values[one.layer, one.feature] = factor * one.value
    return [
        Intervention(layer, position, feature, value) for (layer, feature), value in sorted(values.items())
    ]


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A command and its observed effect."""

    command: str
    effect: str


@dataclass(frozen=True)
class Following:
    """What to show and suggest after one traced example.

    Args:
        chosen: The traced example.
        transcoders: The transcoder set that it was traced with.
        summary: Summary of its graph.
    """

    chosen: DemoPrompt
    transcoders: Literal["clt", "plt"]
    summary: GraphSummary

    def annotations(self) -> QParams | None:
        """Return the circuit that the viewer shows first: the strongest paths, and the place's features as one group."""
        from circuit_tracer_cli.export.records import QParams

        if "place" not in self.chosen:
            return None
        group = [node.node_id for node in self.place_nodes()]
        nodes = self.summary.nodes
        on_paths = [nodes[index].node_id for path in self.summary.strongest_paths for index in path.nodes]
        pinned = list(dict.fromkeys([*on_paths, *group]))
        return QParams(pinnedIds=pinned, supernodes=[[self.chosen["place"], *group]])

    def place_nodes(self) -> list[NodeView]:
        """Return the graph's features at the city's token that represent its state or country."""
        from circuit_tracer_cli.demo import places

        own = {(one.layer, one.feature) for one in places(self.transcoders)[self.chosen["place"]].features}
        at = self.city_position()
        return [
            node
            for node in self.summary.nodes.values()
            if node.kind == "feature" and node.position == at and (node.layer, node.feature) in own
        ]

    def city_position(self) -> int:
        """Return the position of the city's token."""
        tokens = self.summary.graph.prompt_tokens
        assert tokens is not None
        return tokens.index(f" {self.chosen['city']}")

    def experiments(self, model: ReplacementModel, files: GraphFiles) -> list[Suggestion]:
        """Return commands that change the answer, and write their plans next to the graph. Raises OutputError."""
        found = [self._off(model, files)]
        if "place" in self.chosen:
            found.append(self._swap(model, files))
        return [one for one in found if one is not None]

    def _off(self, model: ReplacementModel, files: GraphFiles) -> Suggestion | None:
        for what, edits in self._sets_to_turn_off():
            after = self._answer(model, edits)
            if after != self.chosen["answer"]:
                command = _write_plan(self._plan(edits), files, "off")
                return Suggestion(command, f"{what} off: {self._becomes(after)}")
        return None

    def _sets_to_turn_off(self) -> Iterator[tuple[str, list[Intervention]]]:
        """Yield the place's features; in other examples the strongest ones, doubling the number each time."""
        from circuit_tracer_cli.demo import places

        if "place" in self.chosen:
            own = places(self.transcoders)[self.chosen["place"]]
            yield own.name, place_edits(own, None, self.city_position())
            return
        strongest = self._strongest_features()
        count = 1
        while count <= len(strongest):
            features = "feature" if count == 1 else f"{count} features"
            yield f"the strongest {features}", _off_edits(strongest[:count])
            count *= 2

    def _strongest_features(self) -> list[NodeView]:
        from circuit_tracer_cli.graph.paths import strongest_nodes

        nodes = (
            self.summary.nodes[index] for index, _ in strongest_nodes(self.summary.graph, 2 * MOST_FEATURES)
        )
        return [node for node in nodes if node.kind == "feature"][:MOST_FEATURES]

    def _swap(self, model: ReplacementModel, files: GraphFiles) -> Suggestion | None:
        from circuit_tracer_cli.demo import places

        known = places(self.transcoders)
        own, other = known[self.chosen["place"]], known[self.chosen["other"]]
        edits = place_edits(own, other, self.city_position())
        after = self._answer(model, edits)
        if after == self.chosen["answer"]:
            return None
        command = _write_plan(self._plan(edits), files, "swap")
        return Suggestion(command, f"{own.name} off, {other.name} on: {self._becomes(after)}")

    def _becomes(self, after: str) -> str:
        return f"{quoted(self.chosen['answer'])} becomes {quoted(after)}"

    def _plan(self, edits: Sequence[Intervention]) -> str:
        from circuit_tracer_cli.interventions.plan import Plan

        plan = Plan(
            prompt=self.chosen["prompt"],
            transcoder_set=f"demo-{self.transcoders}",
            edits=tuple(edits),
            freeze_attention=False,
        )
        return plan.to_json()

    def _answer(self, model: ReplacementModel, edits: Sequence[Intervention]) -> str:
        from circuit_tracer_cli.interventions.run import Constraints

        tokens = model.tokenize(self.chosen["prompt"])
        logits = model.interventions.run(tokens, edits, Constraints(freeze_attention=False)).logits[-1]
        return str(model.tokenizer.decode([int(logits.argmax())]))


def _off_edits(nodes: Sequence[NodeView]) -> list[Intervention]:
    from circuit_tracer_cli.interventions.spec import Intervention

    return [
        Intervention(node.layer, node.position, node.feature, 0.0)
        for node in nodes
        if node.layer is not None and node.feature is not None
    ]


def _write_plan(plan: str, files: GraphFiles, what: str) -> str:
    """Write a plan next to the graph and return the command that runs it."""
    from circuit_tracer_cli.files.atomic import write_bytes

    path = Path(str(files.directory)) / f"{files.slug}-{what}.plan"
    write_bytes(str(path), plan.encode())
    return f"circuit-tracer intervene --plan {shlex.quote(str(path))}"


def print_next(
    following: Following, suggestions: Sequence[Suggestion], files: GraphFiles, output: Output
) -> None:
    """Print what the example is about, which files were written, and what to type next."""
    chosen, raw = following.chosen, shlex.quote(str(files.graph_path))
    output.note("")
    output.note(chosen["title"] + ".")
    output.note(chosen["note"])
    output.note(f"written      {raw} and {files.slug}.json next to it")
    output.note("next")
    output.note(f"  circuit-tracer show {raw}")
    for one in suggestions:
        output.note(f"  {one.command}")
        output.note(f"      {one.effect}")
    output.note("  circuit-tracer demo --check")
    same = "the same" if "place" in chosen else "places turned off and swapped"
    output.note(f"      counts {same} for every state and country")
    output.note("  circuit-tracer demo --list")
    output.note("")
