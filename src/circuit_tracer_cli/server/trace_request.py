"""What a page asks to be traced: the body of `POST /api/traces`, and the same as a command line. Imports no torch."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from circuit_tracer_cli.graph.defaults import EDGE_THRESHOLD, NODE_THRESHOLD
from circuit_tracer_cli.request import TraceRequest
from circuit_tracer_cli.server.fields import flag, number, record, text, texts, whole

MOST_TARGETS, MOST_COUNT = 256, 1 << 30
_DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(TraceRequest)}
SETTINGS = ("max_n_logits", "desired_logit_prob", "max_feature_nodes", "batch_size")
_OPTIONS = (
    ("model", "-m"), ("system", "--system"), ("prefill", "--prefill"), ("max_n_logits", "--max-n-logits"),
    ("desired_logit_prob", "--desired-logit-prob"), ("max_feature_nodes", "--max-feature-nodes"),
    ("batch_size", "--batch-size"), ("update_interval", "--update-interval"), ("dtype", "--dtype"),
    ("device", "--device"), ("device_map", "--device-map"), ("offload", "--offload"), ("backend", "--backend"),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceBody:
    """The body of `POST /api/traces`, `/api/traces/draft` and `/api/predictions`.

    Args:
        prompt: The text, or the user's message in a conversation.
        chat, system, prefill: Whether it's put into the tokenizer's chat template, and the turns around it.
        targets: As `--target`; none for the likeliest tokens.
        max_n_logits, desired_logit_prob, max_feature_nodes, batch_size: As for `attribute`.
        node_threshold, edge_threshold: How the graph file is pruned.
        slug: Name of the graph file; None for one made from the prompt.
    """

    prompt: str
    chat: bool = False
    system: str | None = None
    prefill: str | None = None
    targets: tuple[str, ...] = ()
    max_n_logits: int = 10
    desired_logit_prob: float = 0.95
    max_feature_nodes: int = 7500
    batch_size: int = 256
    node_threshold: float = NODE_THRESHOLD
    edge_threshold: float = EDGE_THRESHOLD
    slug: str | None = None

    @classmethod
    def from_json(cls, body: object) -> TraceBody:
        """The request that a body means. Raises InvalidType or InvalidValue naming the part that is wrong."""
        given = record(body, cls.__dataclass_fields__, '{"prompt": "The capital of France is"}')

        def count(name: str, least: int) -> int:
            return whole(given, name, _DEFAULTS[name], least, MOST_COUNT)

        return cls(
            prompt=text(given, "prompt") or "",
            chat=flag(given, "chat", False),
            system=text(given, "system") or None,
            prefill=text(given, "prefill") or None,
            targets=texts(given, "targets", MOST_TARGETS) or (),
            max_n_logits=count("max_n_logits", 1),
            desired_logit_prob=number(given, "desired_logit_prob", 0.95, 0, 1),
            max_feature_nodes=count("max_feature_nodes", 0),
            batch_size=count("batch_size", 1),
            node_threshold=number(given, "node_threshold", NODE_THRESHOLD, 0, 1),
            edge_threshold=number(given, "edge_threshold", EDGE_THRESHOLD, 0, 1),
            slug=text(given, "slug") or None,
        )

    def conversation(self, base: TraceRequest) -> TraceRequest:
        """What the model was loaded with, and this prompt; targets and numbers as by default. Raises BadPrompt."""
        return replace(
            base,
            prompt=self.prompt,
            chat=self.chat,
            system=self.system if self.chat else None,
            prefill=self.prefill if self.chat else None,
            update_interval=_DEFAULTS["update_interval"],
            command="",
        )

    def request(self, base: TraceRequest) -> TraceRequest:
        """The whole request. Raises as `TraceRequest`."""
        asked: dict[str, Any] = {name: getattr(self, name) for name in ("targets", *SETTINGS)}
        return replace(self.conversation(base), **asked)


def defaults() -> dict[str, Any]:
    """The settings that a request has unless it says otherwise."""
    settings = {name: _DEFAULTS[name] for name in SETTINGS}
    return {**settings, "node_threshold": NODE_THRESHOLD, "edge_threshold": EDGE_THRESHOLD}


def command_line(request: TraceRequest, body: TraceBody, slug: str, folder: Path) -> str:
    """The same trace as a command for a POSIX shell; what is as by default isn't said."""
    words = ["circuit-tracer", "attribute", "-p", request.prompt or "", "-t", request.transcoder_set]
    for name, option in _OPTIONS:
        value = getattr(request, name)
        if value != _DEFAULTS[name]:
            words += [option, _number(value) if isinstance(value, float) else str(value)]
    words += ["--chat"] if request.chat else []
    words += [word for target in request.targets for word in ("--target", target)]
    for wish, option in ((request.lazy_encoder, "lazy-encoder"), (request.lazy_decoder, "lazy-decoder")):
        words += [] if wish is None else [f"--{option}" if wish else f"--no-{option}"]
    words += ["--offline"] if request.offline else []
    for threshold, default, option in (
        (body.node_threshold, NODE_THRESHOLD, "--node-threshold"),
        (body.edge_threshold, EDGE_THRESHOLD, "--edge-threshold"),
    ):
        words += [] if threshold == default else [option, _number(threshold)]
    return shlex.join([*words, "--slug", slug, "--graph-file-dir", _shown(folder)])


def _number(value: float) -> str:
    """The shortest text that is read as the same number."""
    return repr(float(value)).removesuffix(".0")


def _shown(folder: Path) -> str:
    """A folder below the current one by its relative name."""
    try:
        here = Path.cwd()
    except OSError:
        return str(folder)
    return str(folder.relative_to(here)) if folder.is_relative_to(here) else str(folder)
