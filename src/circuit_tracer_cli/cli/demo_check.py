"""`demo --check`: change the place in the middle of every two-hop question, and count how often the answer follows."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Literal

from circuit_tracer_cli.cli.output import Output
from circuit_tracer_cli.cli.progress import progress_on

if TYPE_CHECKING:
    from circuit_tracer_cli.demo.story import Outcome

_EXPLAINED = """\
off      the state's or country's features are set to zero at the city's token
swapped  another place's are set to their usual activation as well
control  only the other place's are set to zero
Shares are of the questions answered right. Cities and wording are those on
which no feature was chosen; nothing is frozen, all that follows is computed."""


def check_story(
    transcoders: Literal["clt", "plt"], output: Output, *, bars: bool, as_json: bool
) -> list[Outcome]:
    """Ask everything, print a table or JSON, and return the outcomes."""
    import torch

    from circuit_tracer_cli.demo.story import all_questions, outcome
    from circuit_tracer_cli.pipeline import load_model
    from circuit_tracer_cli.prepare import prepare
    from circuit_tracer_cli.request import TraceRequest

    torch.set_num_threads(1)  # tiny matrices: more threads only wait for each other
    groups = list(all_questions())
    request = TraceRequest(transcoder_set=f"demo-{transcoders}", offline=True)
    with progress_on(output, bars=bars) as progress:
        model = load_model(prepare(request, progress=progress), progress)
        progress.phase("asking", sum(len(questions) for _, _, questions in groups))
        outcomes = [
            outcome(model, transcoders, kind, relation, questions, progress.advance)
            for kind, relation, questions in groups
        ]
    if as_json:
        output.data([asdict(one) for one in outcomes])
    else:
        _print(outcomes, output)
    return outcomes


def _print(outcomes: list[Outcome], output: Output) -> None:
    columns = ("question", "asked#", "right#", "off: other answer#", "swapped: its answer#", "control: same#")
    rows = [
        (
            f"{one.relation} of a city's {one.kind}",
            str(one.asked),
            str(one.right),
            f"{one.off_changes:.1%}",
            f"{one.swap_follows:.1%}",
            f"{one.control_keeps:.1%}",
        )
        for one in outcomes
    ]
    output.table("Does the answer follow the place in the middle?", columns, rows)
    output.result()
    output.result(_EXPLAINED)
