"""Plans: a prompt, its edits and what stays pinned, as JSON that people can read, change and rerun."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from circuit_tracer_cli.errors import BadIntervention, BadPlan
from circuit_tracer_cli.interventions.spec import AnyEdit, HeadEdit, as_interventions, parse_intervention

FORMAT = "circuit-tracer-plan"
FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to run.

    Args:
        prompt: The text; None if it's given elsewhere.
        transcoder_set: Reference of the set that the features belong to.
        model: Reference of the model; None for the set's own.
        edits: In order.
        constrained_layers: First layer, and the one after the last (None for up to the last); None for no layers.
        freeze_attention: Pin the attention patterns.
    """

    prompt: str | None = None
    transcoder_set: str | None = None
    model: str | None = None
    edits: tuple[AnyEdit, ...] = ()
    constrained_layers: tuple[int, int | None] | None = None
    freeze_attention: bool = True

    def to_json(self) -> str:
        """Return indented JSON; edits in their text form if possible."""
        values = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "prompt": self.prompt,
            "transcoder_set": self.transcoder_set,
            "model": self.model,
            "edits": [_edit_to_json(edit) for edit in self.edits],
            "constrained_layers": None if self.constrained_layers is None else list(self.constrained_layers),
            "freeze_attention": self.freeze_attention,
        }
        return json.dumps(values, ensure_ascii=False, indent=2) + "\n"


def _edit_to_json(edit: AnyEdit) -> Any:
    if isinstance(edit, HeadEdit):
        if not isinstance(edit.value, Tensor):
            return str(edit)
        where = edit.position
        place = {"slice": [where.start, where.stop, where.step]} if isinstance(where, slice) else where
        return {"layer": edit.layer, "head": edit.head, "position": place, "pattern": edit.value.tolist()}
    parts = (edit.position, edit.feature, edit.value)
    if not any(isinstance(part, Tensor) for part in parts):
        return str(edit)
    position: Any = edit.position
    if isinstance(position, slice):
        position = {"slice": [position.start, position.stop, position.step]}
    text = str(edit)
    value = edit.value.tolist() if isinstance(edit.value, Tensor) else text[text.rindex("=") + 1 :]
    return {
        "layer": edit.layer,
        "position": _plain(position),
        "feature": _plain(edit.feature),
        "value": value,
    }


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, Tensor) else value


def plan_from_json(content: str | bytes) -> Plan:
    """Read a plan from JSON text. Raises BadPlan naming the invalid part."""
    try:
        return _plan(content)
    except BadIntervention as error:
        raise BadPlan(error.message, error.hint) from None


def _plan(content: str | bytes) -> Plan:
    try:
        values = json.loads(content.decode("utf-8-sig") if isinstance(content, bytes) else content)
    except (ValueError, RecursionError) as error:
        raise BadIntervention(
            f"the plan isn't valid JSON: {error}", hint="`intervene --save-plan FILE` writes one"
        ) from None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise BadIntervention(
            "the file is not a plan", hint=f'a plan is a JSON object with "format": "{FORMAT}"'
        )
    if values.get("format_version") != FORMAT_VERSION:
        raise BadIntervention(
            f"the plan has format_version {values.get('format_version')!r}, but this version reads {FORMAT_VERSION}",
            hint="upgrade circuit-tracer-cli to read it",
        )
    known = {"format", "format_version", *Plan.__dataclass_fields__}
    unknown = sorted(set(values) - known)
    if unknown:
        raise BadIntervention(
            f"the plan has an unknown key {unknown[0]!r}", hint=f"known keys are {', '.join(sorted(known))}"
        )
    return Plan(
        prompt=_text(values, "prompt"),
        transcoder_set=_text(values, "transcoder_set"),
        model=_text(values, "model"),
        edits=_edits(values.get("edits", [])),
        constrained_layers=_layers(values.get("constrained_layers")),
        freeze_attention=_flag(values.get("freeze_attention", True)),
    )


def _text(values: Mapping[str, Any], name: str) -> str | None:
    value = values.get(name)
    if value is not None and not isinstance(value, str):
        raise BadIntervention(f"the plan's {name} must be text")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise BadIntervention("the plan's freeze_attention must be true or false")
    return value


def _layers(value: Any) -> tuple[int, int | None] | None:
    if value is None:
        return None
    if (
        not isinstance(value, list)
        or len(value) != 2
        or type(value[0]) is not int
        or type(value[1]) not in (int, type(None))
    ):
        raise BadIntervention("the plan's constrained_layers must be [first, end]", hint="for example [0, 4]")
    return value[0], value[1]


def _edits(values: Any) -> tuple[AnyEdit, ...]:
    if not isinstance(values, list):
        raise BadIntervention("the plan's edits must be a list")
    return tuple(_edit(value, number) for number, value in enumerate(values))


def _edit(value: Any, number: int) -> AnyEdit:
    if isinstance(value, str):
        return parse_intervention(value)
    of_head = isinstance(value, dict) and set(value) == {"layer", "head", "position", "pattern"}
    if not of_head and (
        not isinstance(value, dict) or set(value) != {"layer", "position", "feature", "value"}
    ):
        raise BadIntervention(
            f"the plan's edit #{number} is neither text, nor an object of layer, position, feature, value, nor one of "
            "layer, head, position, pattern"
        )
    position = value["position"]
    if isinstance(position, dict):
        ends = position.get("slice")
        if not isinstance(ends, list) or len(ends) not in (2, 3):
            raise BadIntervention(
                f'the position of edit #{number} in the plan in the plan is not {{"slice": [first, end]}}'
            )
        position = slice(*ends)
    given: Any = (value["layer"], position, value.get("feature"), value.get("value"))
    if of_head:
        given = HeadEdit(value["layer"], value["head"], position, value["pattern"])
    (edit,) = as_interventions([given])
    return edit
