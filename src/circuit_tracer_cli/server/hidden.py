"""What a graph file hides of a node's input, and nodes added to it: `POST /api/hidden` and `/api/expand`.

Importing this loads no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from circuit_tracer_cli.errors import InvalidValue
from circuit_tracer_cli.server.attention import frozen_prompt
from circuit_tracer_cli.server.bodies import parsed
from circuit_tracer_cli.server.edits import AboutPrompt
from circuit_tracer_cli.server.model import Desk, memory_in_words
from circuit_tracer_cli.server.runs import Work
from circuit_tracer_cli.types import Progress

_EXAMPLE = 'for example {"prompt": "…", "node": "3_88_9", "shown": ["1_203_7"], "top": 10}'


class HiddenRequest(AboutPrompt):
    """The body of `POST /api/hidden`.

    Attributes:
        node: Id of the feature or logit whose input is asked about.
        shown: Ids of the nodes that the page has; other ids are passed over.
        top: How many of the strongest hidden sources to name.
    """

    node: str
    shown: Annotated[list[str], Field(max_length=1 << 17)] = Field([])
    top: Annotated[int, Field(ge=1, le=1000)] = 10


_ADD = 'for example {"prompt": "…", "add": ["1_203_7"], "shown": ["3_88_9", "E_17_7"]}'


class ExpandRequest(AboutPrompt):
    """The body of `POST /api/expand`.

    Attributes:
        add: Ids of features that aren't in the graph file.
        shown: Ids of the nodes that the page has.
    """

    add: Annotated[list[str], Field(min_length=1, max_length=256)]
    shown: Annotated[list[str], Field(max_length=1 << 17)] = Field([])


def plan_hidden(desk: Desk, body: object, _path: Mapping[str, Any]) -> Work:
    """Return the work of one row. Raises UsageError for a body that is wrong whatever the model is."""
    wanted = parsed(HiddenRequest, body, _EXAMPLE)
    if not wanted.prompt:
        raise InvalidValue("the prompt is empty", "send the graph's prompt")
    return lambda progress: _hidden(desk, wanted, progress)


def _hidden(desk: Desk, wanted: HiddenRequest, progress: Progress) -> dict[str, Any]:
    from dataclasses import asdict

    from circuit_tracer_cli.attention.prompt import with_nodes
    from circuit_tracer_cli.expansion import hidden_inputs
    from circuit_tracer_cli.graph.roots import node_of

    with memory_in_words():
        prompt = frozen_prompt(desk, wanted, progress)
        progress.phase("inputs")
        asked = with_nodes(prompt, [wanted.node, *wanted.shown])
        found = hidden_inputs(asked, node_of(asked.graph, wanted.node), wanted.top)
    return {"node": wanted.node, **asdict(found)}


def plan_expand(desk: Desk, body: object, _path: Mapping[str, Any]) -> Work:
    """Return the work of adding nodes. Raises UsageError for a body that is wrong whatever the model is."""
    wanted = parsed(ExpandRequest, body, _ADD)
    if not wanted.prompt:
        raise InvalidValue("the prompt is empty", "send the graph's prompt")
    return lambda progress: _expand(desk, wanted, progress)


def _expand(desk: Desk, wanted: ExpandRequest, progress: Progress) -> dict[str, Any]:
    from circuit_tracer_cli.expansion import links_of_new
    from circuit_tracer_cli.export.records import Link, Node, to_values
    from circuit_tracer_cli.graph.nodes import iter_nodes

    with memory_in_words():
        prompt = frozen_prompt(desk, wanted, progress)
        progress.phase("rows and columns")
        graph, links = links_of_new(prompt, wanted.add, wanted.shown)
    views = {view.node_id: view for view in iter_nodes(graph)}
    nodes = [
        Node.feature_node(view.layer, view.position, view.feature, None, view.activation)
        for view in (views[name] for name in dict.fromkeys(wanted.add))
        if view.layer is not None and view.feature is not None
    ]
    return {
        "nodes": [to_values(node) for node in nodes],
        "links": [to_values(Link(*link)) for link in links],
    }
