"""The whole journey from a request to a graph, as one short function. Read this first.

request → check → transcoders → model → prompt → attribute → Graph
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from circuit_tracer_cli.errors import BadPrompt, BadTarget, InvalidValue
from circuit_tracer_cli.types import Progress

if TYPE_CHECKING:
    import torch

    from circuit_tracer_cli.graph.graph import Graph
    from circuit_tracer_cli.planning import Budget, MemoryPlan, TraceSizes
    from circuit_tracer_cli.replacement import ReplacementModel

DTYPES = {
    "float32": "float32",
    "fp32": "float32",
    "bfloat16": "bfloat16",
    "bf16": "bfloat16",
    "float16": "float16",
    "fp16": "float16",
}
OFFLOADS = ("auto", "none", "cpu", "disk")


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceRequest:
    """Everything that `circuit-tracer attribute` needs to know to make a graph."""

    prompt: str
    transcoder_set: str = "demo"
    model: str | None = None
    dtype: str = "float32"
    device: str = "auto"
    device_map: str | None = None
    backend: str = "transformerlens"
    targets: tuple[str, ...] = ()
    max_n_logits: int = 10
    desired_logit_prob: float = 0.95
    batch_size: int = 256
    max_feature_nodes: int = 7500
    update_interval: int = 4
    offload: str = "auto"
    lazy_encoder: bool | None = None
    lazy_decoder: bool | None = None
    chat: bool = False
    system: str | None = None
    prefill: str | None = None
    offline: bool = False
    command: str = ""


def check_values(request: TraceRequest) -> None:
    """Raise for anything that is wrong whatever the files say."""
    if not request.prompt.strip():
        raise BadPrompt("the prompt is empty", hint='for example --prompt "The capital of France is"')
    if request.dtype not in DTYPES:
        raise InvalidValue(f"unknown dtype {request.dtype!r}", hint=f"choose one of {', '.join(DTYPES)}")
    if request.offload.lower() not in OFFLOADS:
        raise InvalidValue(
            f"unknown offload {request.offload!r}", hint=f"choose one of {', '.join(OFFLOADS)}"
        )
    for name in ("max_n_logits", "batch_size", "update_interval"):
        if getattr(request, name) < 1:
            raise InvalidValue(f"{name} must be at least 1, not {getattr(request, name)}")
    if request.max_feature_nodes < 0:
        raise InvalidValue(f"max_feature_nodes must not be negative: {request.max_feature_nodes}")
    probability = request.desired_logit_prob
    if not (math.isfinite(probability) and 0 < probability <= 1):
        raise InvalidValue(f"desired_logit_prob must lie in (0, 1], not {probability}")
    check_one_kind(request.targets)
    if request.device_map is not None and request.device != "auto":
        raise InvalidValue(
            "--device and --device-map both say where the model is", hint="leave one of them out"
        )
    if (request.system is not None or request.prefill is not None) and not request.chat:
        raise InvalidValue("--system and --prefill need --chat", hint="add --chat")


def check_one_kind(targets: tuple[str, ...]) -> None:
    """Raise BadTarget where tokens and differences are mixed."""
    if len({" - " in target for target in targets}) > 1:
        raise BadTarget("tokens and differences can't be mixed", hint="trace them one after the other")


def check(request: TraceRequest) -> None:
    """Everything that can be judged without reading weights: values, the set's files, the model's configuration."""
    check_values(request)
    from circuit_tracer_cli.backends import backend_class
    from circuit_tracer_cli.backends.families import family_for
    from circuit_tracer_cli.backends.model_config import check_agreement, model_shape, read_config
    from circuit_tracer_cli.backends.points import feature_points
    from circuit_tracer_cli.transcoders.loading import inspect_transcoders
    from circuit_tracer_cli.transcoders.references import EMBEDDED

    backend_class(request.backend)
    described = inspect_transcoders(request.transcoder_set)
    layer_devices(request)
    hooks = described.config.feature_input_hook, described.config.feature_output_hook
    folder = model_folder(request.model or described.config.model_name)
    if folder is None:
        if request.transcoder_set in EMBEDDED:
            raise InvalidValue(
                f"the embedded transcoders belong to the embedded model, not to {request.model}",
                hint="name the model's own with --transcoder-set, for example user/repo or a folder",
            )
        return
    config = read_config(folder)
    family_for(config)
    shape = model_shape(config)
    feature_points(*hooks, parallel=shape.parallel, model=str(folder), layout=shape.layout)
    check_agreement(shape, described.shape, str(folder))
    if request.max_n_logits > shape.d_vocab:
        raise InvalidValue(
            f"max_n_logits is {request.max_n_logits}, but the vocabulary has {shape.d_vocab} tokens",
            hint=f"--max-n-logits {shape.d_vocab} at most",
        )
    check_prompt(request, folder)


def check_prompt(request: TraceRequest, folder: Path) -> None:
    """The prompt and the targets through the model's tokenizer, before any weight is read."""
    from circuit_tracer_cli.attribution.targets import TokenReader
    from circuit_tracer_cli.backends.model_config import model_shape, read_config
    from circuit_tracer_cli.backends.tokenizers import load_tokenizer
    from circuit_tracer_cli.tokens import ensure_tokenized

    shape = model_shape(read_config(folder))
    tokenizer = load_tokenizer(str(folder))
    ensure_tokenized(
        prompt_text(request, tokenizer),
        tokenizer,
        model_name=str(folder),
        d_vocab=shape.d_vocab,
        n_ctx=shape.n_ctx,
    )
    TokenReader(tokenizer, shape.d_vocab).check(request.targets)


def prompt_text(request: TraceRequest, tokenizer: Any) -> str:
    """The prompt, in the tokenizer's chat template when that is asked for."""
    from circuit_tracer_cli.tokens import chat_text

    return (
        chat_text(tokenizer, request.prompt, request.system, request.prefill)
        if request.chat
        else request.prompt
    )


def with_whole_prompt(request: TraceRequest) -> TraceRequest:
    """The request with its prompt as the model sees it, in the chat template if that was asked for."""
    if not request.chat:
        return request
    from circuit_tracer_cli.backends.tokenizers import load_tokenizer
    from circuit_tracer_cli.transcoders.loading import inspect_transcoders

    name = request.model or inspect_transcoders(request.transcoder_set).config.model_name
    text = prompt_text(request, load_tokenizer(str(model_folder(name) or name)))
    return replace(request, prompt=text, chat=False, system=None, prefill=None)


def model_folder(name: str | None) -> Path | None:
    """The local folder that a model name means, or None for a model of the hub. Raises for a name that is neither."""
    from circuit_tracer_cli.errors import BadModel, UsageError

    if name is None:
        raise UsageError("the transcoder set names no model", hint="name one with --model")
    if name == "demo":
        from circuit_tracer_cli.demo import model_dir

        return model_dir()
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise BadModel(f"there is no model folder {name}", hint="check the path given with --model")
    return None


@contextmanager
def offline_mode(offline: bool) -> Iterator[None]:
    """Keep the hub's client from the network when asked to. Set before it is imported, or it won't notice."""
    import os

    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if offline else ()
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a trace would need, and what there is."""

    sizes: TraceSizes
    plan: MemoryPlan
    seconds: dict[str, float]  # by phase
    budget: Budget
    device: str


def estimate_trace(
    request: TraceRequest, n_tokens: int | None = None, active: float | None = None
) -> Estimate:
    """Memory and time of a request from configurations and headers; reads no weights.

    Args:
        request: What would be traced.
        n_tokens: Length of the prompt; None to count the request's own, or for a usual length where that's empty.
        active: Active features per position and layer; None for what the set's name says, else a usual number.

    Raises:
        CircuitTracerError: one of its leaves, for what is missing or doesn't belong together.
    """
    from circuit_tracer_cli.backends.devices import in_words
    from circuit_tracer_cli.planning import plan_time
    from circuit_tracer_cli.planning.rates import measure_rates

    with offline_mode(request.offline):
        sizes, plan, budget = planned(request, n_tokens, active)
        layers = layer_devices(request)
    rates = measure_rates(str(layers[0]))
    return Estimate(sizes, plan, plan_time(sizes, plan.choices, rates), budget, in_words(layers))


def layer_devices(request: TraceRequest) -> tuple[torch.device, ...]:
    """The device of each layer. Raises InvalidValue for devices that aren't here and maps that don't fit the model."""
    from circuit_tracer_cli.backends.devices import pick_device, place_layers
    from circuit_tracer_cli.transcoders.loading import inspect_transcoders

    n_layers = inspect_transcoders(request.transcoder_set).shape.n_layers
    if request.device_map is None:
        return (pick_device(request.device),) * n_layers
    return place_layers(request.device_map, n_layers).layers


def planned(
    request: TraceRequest, n_tokens: int | None = None, active: float | None = None
) -> tuple[TraceSizes, MemoryPlan, Budget]:
    """The plan of a request, for the memory that is free now."""

    from circuit_tracer_cli.files.capacity import free_memory
    from circuit_tracer_cli.planning import plan_memory
    from circuit_tracer_cli.planning.facts import trace_sizes
    from circuit_tracer_cli.planning.free import memory_budget
    from circuit_tracer_cli.transcoders.loading import inspect_transcoders

    name = request.model or inspect_transcoders(request.transcoder_set).config.model_name
    model = model_folder(name) or name
    sizes = trace_sizes(
        request.transcoder_set,
        model,
        n_pos=n_tokens or (count_tokens(request, str(model)) if request.prompt else None),
        dtype=DTYPES[request.dtype],
        max_feature_nodes=request.max_feature_nodes,
        n_targets=len(request.targets) or request.max_n_logits,
        active_per_position=active,
    )
    budget = memory_budget(layer_devices(request), free_memory(), free_memory)
    wish = request.offload.lower()
    plan = plan_memory(
        sizes,
        budget,
        lazy_encoder=request.lazy_encoder,
        lazy_decoder=request.lazy_decoder,
        offload=None if wish == "auto" else cast("Any", wish),
    )
    return sizes, plan, budget


def count_tokens(request: TraceRequest, model: str) -> int:
    """Tokens of the request's prompt, special ones included."""
    from circuit_tracer_cli.backends.tokenizers import load_tokenizer
    from circuit_tracer_cli.tokens import ensure_tokenized

    tokenizer = load_tokenizer(model)
    return len(ensure_tokenized(prompt_text(request, tokenizer), tokenizer, model_name=model))


def load_model(request: TraceRequest, progress: Progress, plan: MemoryPlan | None = None) -> ReplacementModel:
    """The transcoders and then the model of a request."""
    import torch

    from circuit_tracer_cli.backends.devices import Placement
    from circuit_tracer_cli.replacement import ReplacementModel
    from circuit_tracer_cli.transcoders.loading import load_transcoders

    placement, dtype = Placement(layer_devices(request)), getattr(torch, DTYPES[request.dtype])
    plan = plan or planned(request)[1]
    if not plan.fits:
        progress.note(
            "this may not fit into memory; circuit-tracer estimate says what it needs, and a smaller --max-feature-nodes or a "
            "16-bit --dtype less"
        )
    progress.phase("loading transcoders")
    loaded = load_transcoders(
        request.transcoder_set,
        device=placement.layers,
        dtype=dtype,
        lazy_encoder=plan.choices.lazy_encoder,
        lazy_decoder=plan.choices.lazy_decoder,
        progress=progress,
    )
    for note in loaded.config.notes:
        progress.note(note)
    name = request.model or loaded.config.model_name
    folder = model_folder(name)
    progress.phase("loading the model")
    return ReplacementModel.from_pretrained_and_transcoders(
        str(folder) if folder is not None else str(name),
        loaded.transcoders,
        request.backend,
        placement.first,
        dtype,
        placement if len(placement.devices) > 1 else None,
    )


def trace(
    request: TraceRequest,
    progress: Progress,
    on_partial: Callable[[Callable[[], Graph]], None] | None = None,
    on_model: Callable[[ReplacementModel], None] | None = None,
) -> Graph:
    """Make the graph that is asked for.

    Args:
        request: What is asked for.
        progress: Somebody to tell.
        on_partial: May look at the graph as it grows.
        on_model: Gets the model when it's loaded, to keep it.

    Raises:
        CircuitTracerError: one of its leaves; values, files and configurations are judged before weights are read.
    """
    progress.phase("starting")
    with offline_mode(request.offline):
        check(request)
        plan = planned(request)[1]
        model = load_model(request, progress, plan)
        whole = plan.choices.offload == "none"  # else others must wait until its weights are back
        if on_model is not None and whole:
            on_model(model)
        graph = trace_with(model, request, progress, on_partial, plan)
        if on_model is not None and not whole:
            on_model(model)
        return graph


def trace_with(
    model: ReplacementModel,
    request: TraceRequest,
    progress: Progress,
    on_partial: Callable[[Callable[[], Graph]], None] | None = None,
    plan: MemoryPlan | None = None,
) -> Graph:
    """Make a graph with a model that is loaded already; the plan says where weights wait and how large blocks are."""
    from circuit_tracer_cli.attribution.attribute import attribute

    graph = attribute(
        prompt_text(request, model.tokenizer),
        model,
        attribution_targets=list(request.targets) or None,
        max_n_logits=request.max_n_logits,
        desired_logit_prob=request.desired_logit_prob,
        batch_size=request.batch_size,
        max_feature_nodes=request.max_feature_nodes,
        offload=request.offload.lower() if plan is None else plan.choices.offload,
        compute_block=None if plan is None else plan.choices.work,
        update_interval=request.update_interval,
        progress=progress,
        on_partial=on_partial,
    )
    graph.metadata["command"] = request.command
    folder = Path(request.transcoder_set).expanduser()
    graph.metadata["transcoders"]["reference"] = (
        str(folder.resolve()) if folder.is_dir() else request.transcoder_set
    )
    return graph
