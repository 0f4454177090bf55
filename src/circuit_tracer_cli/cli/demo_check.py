"""`demo --check`: change the intermediate place of every two-hop question, and count how often the answer follows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from circuit_tracer_cli.cli.demo_next import place_edits
from circuit_tracer_cli.cli.output import Output
from circuit_tracer_cli.cli.progress import progress_on

if TYPE_CHECKING:
    from circuit_tracer_cli.demo import Question
    from circuit_tracer_cli.interventions.spec import Intervention
    from circuit_tracer_cli.replacement import ReplacementModel
    from circuit_tracer_cli.tokens import Tokens

_EXPLAINED = """\
off      the state's or country's features are set to zero at the city's token
swapped  another place's are set to their usual activation as well
control  only the other place's are set to zero
Shares are of the questions answered correctly. No feature was chosen with these
cities or this wording. Nothing is frozen: everything downstream is recomputed."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Results for a group of questions; shares are of the questions answered correctly.

    Attributes:
        kind, relation: The kind of question, such as "state" and "capital".
        asked, right: Number of questions, and of those answered correctly before any change.
        off_changes: How often the answer changes with the place's features off.
        swap_follows: How often the answer is the other place's, with that place's features on as well.
        control_keeps: How often the answer stays correct with only the other place's features off.
    """

    kind: str
    relation: str
    asked: int
    right: int
    off_changes: float
    swap_follows: float
    control_keeps: float


def check_story(
    transcoders: Literal["clt", "plt"], output: Output, *, bars: bool, as_json: bool
) -> list[Outcome]:
    """Ask all questions, print a table or JSON, and return the outcomes."""
    import torch

    from circuit_tracer_cli.demo import questions
    from circuit_tracer_cli.pipeline import load_model
    from circuit_tracer_cli.prepare import prepare
    from circuit_tracer_cli.request import TraceRequest

    torch.set_num_threads(1)  # the matrices are tiny: more threads would only wait for each other
    groups = questions()
    request = TraceRequest(transcoder_set=f"demo-{transcoders}", offline=True)
    with progress_on(output, bars=bars) as progress:
        model = load_model(prepare(request, progress=progress), progress)
        progress.phase("asking", sum(len(asked) for _, _, asked in groups))
        outcomes = [
            outcome(model, transcoders, kind, relation, asked, progress.advance)
            for kind, relation, asked in groups
        ]
    if as_json:
        output.data([asdict(one) for one in outcomes])
    else:
        _print(outcomes, output)
    return outcomes


def outcome(
    model: ReplacementModel,
    transcoders: Literal["clt", "plt"],
    kind: str,
    relation: str,
    asked: Sequence[Question],
    advance: Callable[[], None] = lambda: None,
) -> Outcome:
    """Ask each question as it is, then with the place off, swapped, and with the other place off."""
    import torch

    from circuit_tracer_cli.demo import places

    known = places(transcoders)
    results = []
    for question in asked:
        tokens = model.tokenize(question.prompt)
        at = tokens.strings.index(f" {question.city}")
        own, other = known[question.place], known[question.other]
        before, off, swapped, control = (
            _answer(model, tokens, some)
            for some in (
                [],
                place_edits(own, None, at),
                place_edits(own, other, at),
                place_edits(other, None, at),
            )
        )
        if before == question.answer:
            results.append((off != before, swapped == question.other_answer, control == before))
        advance()
    shares = torch.tensor(results, dtype=torch.float64).reshape(-1, 3).mean(0).tolist()
    return Outcome(kind, relation, len(asked), len(results), *shares)


def _answer(model: ReplacementModel, tokens: Tokens, some: list[Intervention]) -> str:
    from circuit_tracer_cli.interventions.run import Constraints

    logits = model.interventions.run(tokens, some, Constraints(freeze_attention=False)).logits[-1]
    return str(model.tokenizer.decode([int(logits.argmax())])).removeprefix(" ")


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
    output.table("Does the answer follow the intermediate place?", columns, rows)
    output.result()
    output.result(_EXPLAINED)
