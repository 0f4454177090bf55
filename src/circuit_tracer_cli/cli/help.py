"""Help text in plain columns, with options in named groups. It fits 80 columns without cutting a name."""

from __future__ import annotations

import re
from typing import Any

from typer.core import TyperCommand


class GroupedCommand(TyperCommand):
    """A command whose help lists options under their `rich_help_panel`, in order of appearance."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write one definition list per group; options without a group come last, under "Options"."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is None:
                continue
            default = "Arguments" if param.param_type_name == "argument" else "Options"
            groups.setdefault(getattr(param, "rich_help_panel", None) or default, []).append(_tidied(*record))
        if "Options" in groups:
            groups["Options"] = groups.pop("Options")
        for title, records in groups.items():
            with formatter.section(title):
                formatter.write_dl(records)


def _tidied(name: str, text: str) -> tuple[str, str]:
    """Return the entry with its range and default in words: `0<=x<=1` becomes `0 to 1`, `(auto)` becomes `auto`."""
    text = re.sub(r"(\S+)<=x<=(\S+?)(?=[;\]])", r"\1 to \2", text)
    text = re.sub(r"x>=(\S+?)(?=[;\]])", r"at least \1", text)
    text = re.sub(r"default: \(([^()]*)\)", r"default: \1", text)
    return name.replace(" <str>", ""), text
