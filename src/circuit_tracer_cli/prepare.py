"""Resolve a request once, before weights are read: model, set, tokens, devices, plan.

`set_up` describes the model and the transcoder set, which many prompts may share; `prepare` adds what one prompt needs.
Every command and the server start here, so that file headers are read once, a prompt is tokenized once, and faults are
found in one place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from circuit_tracer_cli.errors import BadTranscoders, UnsuitablePrompt, UnsuitableValue
from circuit_tracer_cli.request import TraceRequest, offline_mode
from circuit_tracer_cli.types import Progress, SilentProgress

if TYPE_CHECKING:
    from circuit_tracer_cli.attribution.target_texts import TokenAt
    from circuit_tracer_cli.backends.base import ModelShape
    from circuit_tracer_cli.backends.devices import Placement
    from circuit_tracer_cli.backends.model_source import ModelSource
    from circuit_tracer_cli.planning import Budget, MemoryPlan, TraceSizes
    from circuit_tracer_cli.planning.facts import SetupSizes
    from circuit_tracer_cli.replacement import ReplacementModel
    from circuit_tracer_cli.tokens import Tokens
    from circuit_tracer_cli.transcoders.loading import InspectedTranscoders
    from circuit_tracer_cli.transcoders.references import NeuronReference


@dataclass(frozen=True, slots=True)
class Setup:
    """A model and a matching transcoder set, as described by their files or the loaded model.

    Attributes:
        model: Where the model is.
        sizes: Sizes of both.
        placement: The device of each layer.
        described: The set, if it was described by its files.
        loaded: Model and set, if they are loaded.
    """

    model: ModelSource
    sizes: SetupSizes
    placement: Placement
    described: InspectedTranscoders | None = None
    loaded: ReplacementModel | None = None

    @property
    def shape(self) -> ModelShape:
        """Return sizes and facts of the model."""
        return self.sizes.shape

    @property
    def tokenizer(self) -> Any:
        """Return the model's tokenizer, read on first use. Raises BadModel."""
        if self.loaded is not None:
            return self.loaded.tokenizer
        from circuit_tracer_cli.backends.tokenizers import load_tokenizer

        return load_tokenizer(self.model.name, self.model.revision)

    def tokenize(self, text: str | list[int]) -> Tokens:
        """Return the prompt's tokens as the model will see them. Raises BadPrompt."""
        if self.loaded is not None:
            return self.loaded.tokenize(text)
        from circuit_tracer_cli.tokens import ensure_tokenized

        shape = self.shape
        return ensure_tokenized(
            text, self.tokenizer, model_name=self.model.name, d_vocab=shape.d_vocab, n_ctx=shape.n_ctx
        )


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request and everything known about it before weights are read.

    Attributes:
        request: The request.
        setup: Model and set.
        text: The prompt, in the chat template with --chat; None without a prompt.
        tokens: The prompt's tokens; with a completion, also those of it but the last.
        completion: The completion's tokens as targets, if one is asked for.
        sizes: Sizes of the trace.
        plan: How to run it: what stays in files, where weights go, how large blocks are.
        budget: The memory that the plan was made for.
    """

    request: TraceRequest
    setup: Setup
    text: str | None
    tokens: Tokens | None
    completion: list[TokenAt]
    sizes: TraceSizes
    plan: MemoryPlan
    budget: Budget


def prepare(
    request: TraceRequest,
    setup: Setup | None = None,
    *,
    progress: Progress | None = None,
    n_tokens: int | None = None,
    active: float | None = None,
) -> Prepared:
    """Resolve everything that can be known before weights are read, and find every fault that can be found by then.

    Args:
        request: The request.
        setup: Its model and set, if already known; their files aren't read again.
        progress: Progress callback for downloads of configurations and headers.
        n_tokens: Length of the prompt to plan for if the request has none; None for a typical one.
        active: Active features per position and layer to plan for; None for the set's own value, else a typical one.

    Raises:
        CircuitTracerError: Something is missing or malformed, or model and set don't match.
    """
    with offline_mode(request.offline):
        setup = setup or set_up(request, progress)
        check_counts(request, setup)
        text = prompt_text(request, setup)
        tokens = None if text is None else setup.tokenize(text)
        check_targets(request, setup)
        completion: list[TokenAt] = []
        if tokens is not None:
            tokens, completion = with_completion(request, setup, tokens)
        n_pos, n_targets = len(tokens) if tokens is not None else n_tokens, len(completion)
        sizes = _sizes(request, setup, n_pos, active, n_targets)
        plan, budget = _plan(request, setup, sizes)
    return Prepared(request, setup, text, tokens, completion, sizes, plan, budget)


def set_up(request: TraceRequest, progress: Progress | None = None) -> Setup:
    """Return the model and set of a request from their configurations and headers, checked against each other.

    Raises:
        CircuitTracerError: Something is missing or malformed, or model and set don't match.
    """
    progress = progress or SilentProgress()
    progress.phase("loading libraries")
    from circuit_tracer_cli.attribution.products import check_precision
    from circuit_tracer_cli.backends import backend_class
    from circuit_tracer_cli.backends.families import family_for
    from circuit_tracer_cli.backends.model_config import check_agreement, model_shape
    from circuit_tracer_cli.backends.model_source import find_model
    from circuit_tracer_cli.backends.points import feature_points
    from circuit_tracer_cli.planning.facts import sizes_of_files
    from circuit_tracer_cli.transcoders.loading import inspect_transcoders
    from circuit_tracer_cli.transcoders.references import EMBEDDED, neuron_reference

    progress.phase("reading configurations")
    _check_devices(request)
    with offline_mode(request.offline):
        backend_class(request.backend).require()
        neurons = neuron_reference(request.transcoder_set)
        if neurons is not None:
            return _set_up_neurons(request, neurons)
        described = inspect_transcoders(request.transcoder_set, progress=progress)
        name = request.model or described.config.model_name
        if name is None:
            raise BadTranscoders("the transcoder set doesn't name its model", "name one with --model")
        placement = _placement(request, described.shape.n_layers)
        check_precision(request.precision, placement.devices)
        source = find_model(name)
        if source.folder is None and request.transcoder_set in EMBEDDED:
            raise UnsuitableValue(
                f"the embedded transcoders belong to the embedded model, not to {request.model}",
                "name the model's own with --transcoder-set, for example user/repo or a folder",
            )
        config = source.config()
    family_for(config)
    shape = model_shape(config)
    hooks = described.config.feature_input_hook, described.config.feature_output_hook
    feature_points(*hooks, parallel=shape.parallel, model=source.name, layout=shape.layout)
    check_agreement(shape, described.shape, source.name)
    return Setup(source, sizes_of_files(described, config, source.folder), placement, described)


def _set_up_neurons(request: TraceRequest, neurons: NeuronReference) -> Setup:
    """A model and its own neurons. Raises UnsuitableValue without a model, UnsupportedArchitecture for MLPs of another form."""
    from circuit_tracer_cli.backends.families import class_name, family_for
    from circuit_tracer_cli.backends.model_config import model_shape
    from circuit_tracer_cli.backends.model_source import find_model
    from circuit_tracer_cli.planning.facts import sizes_of_files
    from circuit_tracer_cli.replacement import check_neurons
    from circuit_tracer_cli.transcoders.neurons import inspect_neurons

    name = request.model or neurons.model
    if name is None:
        raise UnsuitableValue("neurons are a model's own, and no model is named", "name one with --model")
    source = find_model(name)
    config = source.config()
    family_for(config)
    shape = model_shape(config)
    check_neurons(neurons, class_name(config), source.name)
    described = inspect_neurons(
        neurons, model=source.name, n_layers=shape.n_layers, d_model=shape.d_model, d_mlp=shape.d_mlp
    )
    placement = _placement(request, shape.n_layers)
    return Setup(source, sizes_of_files(described, config, source.folder), placement, described)


def setup_of(model: ReplacementModel) -> Setup:
    """Return the setup of a loaded model; nothing is read."""
    from circuit_tracer_cli.attribution.places import sizes_of_loaded
    from circuit_tracer_cli.backends.devices import Placement
    from circuit_tracer_cli.backends.model_source import ModelSource

    return Setup(
        ModelSource(model.cfg.model_name, model.revision),
        sizes_of_loaded(model),
        Placement(tuple(model.model.layer_devices)),
        loaded=model,
    )


def check_counts(request: TraceRequest, setup: Setup) -> None:
    """Raise UnsuitableValue for more logits than the vocabulary has tokens."""
    if request.max_n_logits > setup.shape.d_vocab:
        raise UnsuitableValue(
            f"max_n_logits is {request.max_n_logits}, but the vocabulary has {setup.shape.d_vocab} tokens",
            f"use --max-n-logits {setup.shape.d_vocab} or less",
        )


def check_targets(request: TraceRequest, setup: Setup) -> None:
    """Raise BadTarget for a target that the model doesn't have."""
    if request.targets:
        from circuit_tracer_cli.attribution.target_texts import check_inside, placed
        from circuit_tracer_cli.attribution.targets import TokenReader

        TokenReader(setup.tokenizer, setup.shape.d_vocab).check(request.targets)
        check_inside(placed(request.targets), setup.shape.n_layers, setup.shape.d_model)


def with_completion(request: TraceRequest, setup: Setup, tokens: Tokens) -> tuple[Tokens, list[TokenAt]]:
    """Return the prompt with the completion behind it, and its targets. Raises BadPrompt."""
    if request.completion is None:
        return tokens, []
    from circuit_tracer_cli.attribution.targets import completion_targets
    from circuit_tracer_cli.tokens import completed

    whole, follow = completed(tokens, request.completion, setup.tokenizer, setup.tokenize)
    return whole, completion_targets(len(tokens), follow)


def prompt_text(request: TraceRequest, setup: Setup) -> str | None:
    """Return the prompt, in the tokenizer's chat template if requested. Raises BadPrompt."""
    if request.prompt is None or not request.chat:
        return request.prompt
    from circuit_tracer_cli.tokens import chat_text

    return chat_text(setup.tokenizer, request.prompt, request.system, request.prefill)


def _check_devices(request: TraceRequest) -> None:
    """Raise InvalidValue for missing devices, and for a device map that is invalid for any model."""
    from circuit_tracer_cli.backends.devices import check_device_map, pick_device

    if request.device_map is None:
        pick_device(request.device)
    else:
        check_device_map(request.device_map)


def _placement(request: TraceRequest, n_layers: int) -> Placement:
    """Return the device of each layer. Raises UnsuitableValue for a map that doesn't fit the model."""
    from circuit_tracer_cli.backends.devices import Placement, pick_device, place_layers

    if request.device_map is None:
        return Placement((pick_device(request.device),) * n_layers)
    return place_layers(request.device_map, n_layers)


def _sizes(
    request: TraceRequest, setup: Setup, n_pos: int | None, active: float | None, n_targets: int = 0
) -> TraceSizes:
    """Return the sizes of the trace. Raises UnsuitablePrompt for a prompt that is too long for the model."""
    import torch

    from circuit_tracer_cli.planning.facts import trace_sizes

    longest = setup.shape.n_ctx
    if n_pos is not None and n_pos > longest:
        raise UnsuitablePrompt(
            f"the prompt has {n_pos} tokens, but the model takes at most {longest}", f"--tokens {longest}"
        )
    dtype = getattr(torch, request.dtype) if setup.loaded is None else setup.loaded.dtype
    return trace_sizes(
        setup.sizes,
        dtype_bytes=dtype.itemsize,
        n_pos=n_pos,
        n_targets=n_targets or len(request.targets) or request.max_n_logits,
        max_feature_nodes=request.max_feature_nodes,
        active_per_position=active,
        precision=request.precision,
    )


def _plan(request: TraceRequest, setup: Setup, sizes: TraceSizes) -> tuple[MemoryPlan, Budget]:
    """Return how to run the trace in the memory that is free now."""
    offload = None if request.offload == "auto" else cast('Literal["none", "cpu", "disk"]', request.offload)
    if setup.loaded is not None:
        from circuit_tracer_cli.attribution.places import plan_for_loaded

        return plan_for_loaded(setup.loaded, sizes, offload)
    from circuit_tracer_cli.files.capacity import free_memory
    from circuit_tracer_cli.planning import plan_memory
    from circuit_tracer_cli.planning.free import busy_work, memory_budget

    budget = memory_budget(setup.placement.layers, free_memory(), free_memory, busy_work)
    plan = plan_memory(
        sizes,
        budget,
        lazy_encoder=request.lazy_encoder if setup.sizes.encoder_elements else False,
        lazy_decoder=request.lazy_decoder if setup.sizes.decoder_elements else False,
        offload=offload,
    )
    return plan, budget
