"""The phases of attribution in order: tokens, frozen pass, active features, targets, rows, graph."""

from __future__ import annotations

import functools
import logging
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib import metadata as packages
from typing import Any, get_args

import torch
from torch import Tensor

from circuit_tracer_cli import __version__
from circuit_tracer_cli.attribution.linear import LinearEngine, Targets
from circuit_tracer_cli.attribution.offload import Offload, Place
from circuit_tracer_cli.attribution.places import choose_places, target_count
from circuit_tracer_cli.attribution.products import check_precision, stored_as, tensor_cores
from circuit_tracer_cli.attribution.rows import (
    BlockSize,
    Engine,
    encoder_rows,
    is_out_of_memory,
    largest_work,
    target_rows,
)
from circuit_tracer_cli.attribution.selection import Packing, Tracing, packed
from circuit_tracer_cli.attribution.sources import build_sources
from circuit_tracer_cli.attribution.targets import AttributionTargets, completion_targets
from circuit_tracer_cli.attribution.vjp import VjpEngine
from circuit_tracer_cli.backends.base import FrozenPass, LinearWeights, WeightGroup
from circuit_tracer_cli.backends.devices import in_words
from circuit_tracer_cli.errors import InvalidValue, NoActiveFeatures, UnsuitableTarget
from circuit_tracer_cli.features.proposals import proposals
from circuit_tracer_cli.graph.edges import Edges
from circuit_tracer_cli.graph.graph import Graph
from circuit_tracer_cli.graph.predictions import TOP_PREDICTIONS, top_predictions
from circuit_tracer_cli.graph.proposals import PROPOSALS
from circuit_tracer_cli.replacement import ReplacementModel
from circuit_tracer_cli.tokens import Tokens, completed
from circuit_tracer_cli.transcoders.base import Transcoders
from circuit_tracer_cli.transcoders.components import ActiveFeatures, active_features, why_inactive
from circuit_tracer_cli.transcoders.layers import ranges_in_words
from circuit_tracer_cli.transcoders.neurons import NeuronSet
from circuit_tracer_cli.transcoders.plausibility import Plausibility, judge, other_reading
from circuit_tracer_cli.types import Progress, SilentProgress, TargetPlace

SIXTEEN_BIT = {
    "bfloat16": "bfloat16 rounds to 3 digits: on real models edges from features were off by 0.7 to 2.2%, edges from errors by"
    " up to 38%; circuit-tracer validate measures a graph",
    "float16": "float16 rounds to 4 digits; circuit-tracer validate measures how far a graph's edges are off",
}
"""What to expect of a graph computed in 16 bits (docs/models.md, "16 bits")."""

ROUNDED = {
    "tf32": "precision tf32 rounds the factors of the engine's products to 4 digits; circuit-tracer validate measures a graph",
    "bf16": "precision bf16 rounds the factors of the engine's products to 3 digits; circuit-tracer validate measures a graph",
}
"""What to expect of a graph whose rows aren't computed in float32 (docs/models.md, "Precision of the rows")."""

PartialGraphs = Callable[[Callable[[], Graph]], None]
"""Called when more rows are known, with a function that makes their graph; costs nothing unless the function is called."""
OFFLOADS: dict[str | None, Place] = {
    None: "none", "None": "none", "none": "none", "auto": "none", "cpu": "cpu", "disk": "disk",
}  # fmt: skip


def attribute(
    prompt: str | Tensor | Sequence[int] | Tokens,
    model: ReplacementModel,
    *,
    attribution_targets: Any = None,
    max_n_logits: int = 10,
    desired_logit_prob: float = 0.95,
    batch_size: int = 512,
    max_feature_nodes: int | None = None,
    offload: str | None = None,
    verbose: bool = False,
    update_interval: int = 4,
    engine: str = "auto",
    progress: Progress | None = None,
    on_partial: PartialGraphs | None = None,
    compute_block: int | None = None,
    labels: bool = True,
    precision: str = "float32",
    completion: str | Sequence[int] | None = None,
) -> Graph:
    """Return the attribution graph of a prompt: direct effects of features, errors and tokens on each other and on the targets.

    Args:
        prompt: Text, token ids, or tokens as `model.tokenize` gives them.
        model: Model and transcoders.
        attribution_targets: None for the most likely tokens; a tensor of ids; token strings or differences `"A - B"`; tokens
            at positions of the prompt (`TokenAt`, or `"token:TEXT@POSITION"`); features and directions inside the model
            (`FeatureAt`, `DirectionAt`, or as for `--target`); or `(token_str, prob, vec)` tuples, behind the final norm.
        max_n_logits: Largest number of tokens to explain when they are chosen by probability.
        desired_logit_prob: Stop choosing when their probabilities sum to this.
        batch_size: Number of features to select per batch.
        max_feature_nodes: Largest number of feature nodes; None or 0 for all.
        offload: Where to move weights that the trace no longer needs: `cpu`, `disk`, or None to leave them. MLPs, embeddings,
            encoders and decoders are back when the call ends. `auto` decides by the memory that is free now and also plans the
            compute block, as the command line does.
        verbose: Log progress.
        update_interval: Number of batches between two rankings of features.
        engine: `auto`, `closed-form` or `vector-jacobian`.
        progress: Progress callback for phases and rows.
        on_partial: Callback that can look at the graph of the rows known so far.
        compute_block: Largest number of rows times positions that the engine computes at once; None suits the device. Halved if
            memory runs out. Never changes which features are chosen.
        precision: Of the engine's products, `float32`, `tf32` or `bf16` whatever the model's dtype, see `products.py`.
        completion: What follows the prompt, as text or ids. Each of its tokens is a target at its own position, given those
            before it, instead of `attribution_targets`.
        labels: Propose labels for the most influential features and store them in the metadata; see `features/proposals.py`.

    Returns:
        The graph, rows in float32, row = target, column = source (Ameisen et al. 2025, "Attribution graphs").

    Raises:
        BadPrompt: The prompt is empty, too long or can't be tokenized.
        BadTarget: A target can't be used.
        NoActiveFeatures: There is nothing to trace.
    """
    settings = AttributionSettings(
        max_n_logits, desired_logit_prob, batch_size, max_feature_nodes, update_interval
    )
    if offload not in OFFLOADS:
        raise InvalidValue(f"unknown offload {offload!r}", hint="choose cpu, disk, auto or none")
    if progress is None:
        progress = _terminal_progress() if verbose else SilentProgress()
    if completion is not None:
        if attribution_targets is not None:
            raise InvalidValue("a completion has its own targets", "leave out attribution_targets")
        tokens = model.tokenize(prompt)
        prompt, follow = completed(tokens, completion, model.tokenizer, model.tokenize)
        attribution_targets = completion_targets(len(tokens), follow)
    place = OFFLOADS[offload]
    if offload == "auto":
        prompt = model.tokenize(prompt)
        choices = choose_places(
            model,
            len(prompt),
            n_targets=target_count(attribution_targets, max_n_logits),
            max_feature_nodes=max_feature_nodes or 0,
            precision=precision,
        )
        place, compute_block = choices.offload, compute_block or choices.work
    size = BlockSize(compute_block) if compute_block else None
    run = Attribution(model, settings, engine, progress, on_partial, size, precision)
    with Offload(place, model.model.forget_weights) as run.offload:
        graph = run.run(prompt, attribution_targets)
    if labels:
        _add_labels(graph, model, progress)
    return graph


def _add_labels(graph: Graph, model: ReplacementModel, progress: Progress) -> None:
    """Add proposed labels to the metadata; omit them if memory runs out, rather than lose the trace."""
    progress.phase("labels")
    try:
        graph.metadata[PROPOSALS] = proposals(graph, model)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        progress.note("not enough memory to propose labels, so the graph has none")


def _terminal_progress() -> Progress:
    """Send progress lines to the standard logging module, for `verbose=True` in scripts and notebooks."""
    from circuit_tracer_cli.attribution.attribute import LogProgress

    return LogProgress()


class Attribution:
    """One run of `attribute`."""

    def __init__(
        self,
        model: ReplacementModel,
        settings: AttributionSettings,
        engine: str,
        progress: Progress,
        on_partial: PartialGraphs | None = None,
        size: BlockSize | None = None,
        precision: str = "float32",
    ) -> None:
        if engine not in ("auto", LinearEngine.name, VjpEngine.name):
            raise InvalidValue(
                f"unknown engine {engine!r}", hint=f"choose auto, {LinearEngine.name} or {VjpEngine.name}"
            )
        check_precision(precision, model.model.layer_devices)
        self.precision = precision
        self.model, self.settings, self.engine_name, self.progress = model, settings, engine, progress
        self.watch = Stopwatch(progress)
        self.on_partial = on_partial
        self.size = size or BlockSize(largest_work(model.device))
        self.size_given = size is not None
        self.offload = Offload("none")
        self.plausibility: Plausibility | None = None
        self.normalized: str | None = None  # how `ln2.hook_normalized` is read, if it matters in this model
        self.linear_weights: LinearWeights | None = None  # without embeddings while those are offloaded

    @torch.no_grad()
    def run(self, prompt: str | Tensor | Sequence[int] | Tokens, attribution_targets: Any) -> Graph:
        """Run the phases in order and return the graph."""
        tokens = self.model.tokenize(prompt)
        for note in (*tokens.notes, *self.notes_on_set()):
            self.progress.note(note)
        if self.model.cfg.dtype in SIXTEEN_BIT:
            self.progress.note(f"warning: {SIXTEEN_BIT[self.model.cfg.dtype]}")
        if self.precision in ROUNDED:
            self.progress.note(f"warning: {ROUNDED[self.precision]}")
        with self.watch.phase("forward pass"):
            frozen = self.model.frozen_pass(tokens.ids)
        with self.watch.phase("targets"):
            targets = self.targets(attribution_targets, frozen)
            ends = engine_targets(targets)
        self.rest_of_model()
        with self.watch.phase("active features"):
            active = self.active(frozen, tokens)
            candidates = behind(targets.places, active)
            self.check_features(targets, active, tokens, frozen)
        with self.watch.phase("source vectors"):
            engine = self.engine(frozen, active, tokens)
        self.offload.transcoders(self.model.transcoders)
        if not self.size_given:
            self.size = BlockSize(largest_work(self.model.device, len(tokens.ids), self.model.cfg.d_model))
        with tensor_cores(self.precision), self.watch.phase("logit rows", len(targets)):
            first_rows = []
            for block in target_rows(engine, ends, self.size):
                self.progress.advance(len(block.nodes))
                first_rows.append(block)
        count = min(self.settings.max_feature_nodes or len(active), len(candidates))
        made_of = partial(self.graph, tokens, frozen, active, targets, engine)

        def offer(pack: Packing) -> None:
            if self.on_partial is not None:
                self.on_partial(lambda: made_of(*pack()))

        offer(lambda: packed(engine.columns, first_rows, len(targets)))
        step = self.settings.update_interval * self.settings.batch_size
        tracing = Tracing(
            engine,
            self.model.transcoders,
            active,
            candidates,
            targets,
            first_rows,
            step,
            self.size,
            self.progress,
            offer,
        )
        with tensor_cores(self.precision), self.watch.phase("feature rows", count):
            selected, packager = tracing.run(count)
        with self.watch.phase("packaging"):
            return made_of(selected, packager.edges())

    def notes_on_set(self) -> list[str]:
        """Return a note on a set that has no transcoder for some layers."""
        missing, n_layers = self.model.transcoders.missing_layers, self.model.cfg.n_layers
        if not missing:
            return []
        return [
            f"the set has transcoders for {n_layers - len(missing)} of {n_layers} layers; in layers "
            f"{ranges_in_words(missing)} the whole output of the MLP is an error node"
        ]

    def targets(self, attribution_targets: Any, frozen: FrozenPass) -> AttributionTargets:
        """Choose the targets."""
        return AttributionTargets(
            attribution_targets,
            frozen.logits,
            self.model.model.W_U,
            self.model.tokenizer,
            max_n_logits=self.settings.max_n_logits,
            desired_logit_prob=self.settings.desired_logit_prob,
            note=self.progress.note,
            n_layers=self.model.cfg.n_layers,
            n_pos=len(frozen.tokens),
            logits_at=partial(self.model.model.logits_at, frozen.tokens),
            encoders=partial(self.encoders, frozen),
        )

    def encoders(self, frozen: FrozenPass, indices: Tensor) -> Tensor:
        """Return encoder rows `(n, d_model)` of features `(n, 3)`. Raises UnsuitableTarget for one that the set doesn't have."""
        inputs, transcoders = [layer.feature_input for layer in frozen.layers], self.model.transcoders
        for layer, position, feature in indices.tolist():
            if feature >= transcoders.d_transcoder:
                reason = why_inactive(transcoders, (layer, position, feature), (), inputs[layer])
                raise UnsuitableTarget(f"target {reason.message}", reason.hint)
        return encoder_rows(transcoders, indices, inputs)

    def rest_of_model(self) -> None:
        """Offload the weights that the closed form doesn't need: MLPs, embedding, unembedding."""
        backend = self.model.model
        if self.offload.place == "none" or self.engine_name == VjpEngine.name or not backend.has_closed_form:
            return
        weights = backend.weights
        assert weights is not None
        empty = weights.W_U.new_empty(0, weights.W_U.shape[1])
        self.linear_weights = replace(weights, W_U=empty, W_E=empty)
        backend.forget_weights()
        for part in get_args(WeightGroup):
            if part == "mlp" and self.model.transcoders.of_model:
                continue  # neurons are read from it until the last row
            self.offload.parameters(backend.parameters_of(part))

    def active(self, frozen: FrozenPass, tokens: Tokens) -> ActiveFeatures:
        """Find the active features. Raises NoActiveFeatures."""
        inputs = [layer.feature_input for layer in frozen.layers]
        active = active_features(self.model.transcoders, inputs, tokens.zero_positions)
        if not len(active):
            raise NoActiveFeatures(
                "no feature is active on this prompt, so there is nothing to trace",
                hint="use a longer prompt, or check that model, dtype and transcoders match",
            )
        return active

    def check_features(
        self, targets: AttributionTargets, active: ActiveFeatures, tokens: Tokens, frozen: FrozenPass
    ) -> None:
        """Raise UnsuitableTarget for a feature among the targets that isn't active."""
        wanted = [
            (place.layer, place.position, target.vocab_idx)
            for place, target in zip(targets.places, targets.logit_targets, strict=True)
            if place.kind == "feature"
        ]
        known = set(map(tuple, active.indices.tolist())) if wanted else set()
        for one in wanted:
            if one not in known:
                inputs = frozen.layers[one[0]].feature_input
                reason = why_inactive(self.model.transcoders, one, tokens.zero_positions, inputs)
                raise UnsuitableTarget(f"target {reason.message}", reason.hint)

    def engine(self, frozen: FrozenPass, active: ActiveFeatures, tokens: Tokens) -> Engine:
        """Return the closed form if the family has one, else vector-Jacobian products."""
        transcoders, backend = self.model.transcoders, self.model.model
        dtype = torch.promote_types(self.model.dtype, torch.float32)
        stored = stored_as(self.precision, dtype)
        sources = build_sources(frozen, transcoders, active, tokens.zero_positions, dtype, stored)
        outputs = [layer.feature_output for layer in frozen.layers]
        silent = {0, *tokens.zero_positions} if transcoders.of_model else tokens.zero_positions
        self.plausibility = judge(transcoders, active, sources.errors, outputs, silent)
        other = self.other_reading(frozen, tokens)
        if other is not None:
            warnings = (*self.plausibility.warnings, other)
            self.plausibility = replace(self.plausibility, warnings=warnings)
        if transcoders.of_model:
            self.progress.note(coverage_of_neurons(transcoders, self.plausibility))
        for warning in self.plausibility.warnings:
            self.progress.note(f"warning: {warning}")
        skips = [transcoders.skip_matrix(layer) for layer in range(transcoders.n_layers)]
        weights = self.linear_weights or backend.weights
        if self.engine_name == VjpEngine.name or weights is None:
            if self.precision == "bf16":
                raise InvalidValue(
                    f"precision bf16 takes the engine {LinearEngine.name}",
                    hint="use --precision float32",
                )
            if self.engine_name == LinearEngine.name:
                raise InvalidValue(
                    f"{self.model.cfg.original_architecture} has no closed form", hint="use engine='auto'"
                )
            hooks = transcoders.feature_input_hook, transcoders.feature_output_hook
            return VjpEngine(backend.frozen_graph(frozen.tokens, *hooks, skips), sources)
        return LinearEngine(weights, frozen, self.model.points, sources, skips)

    def other_reading(self, frozen: FrozenPass, tokens: Tokens) -> str | None:
        """Record how `ln2.hook_normalized` is read in a model with LayerNorm; return a warning if the other way fits better.

        TransformerLens up to 2.16 hands out `(x - mean) / scale * gain + bias` at that hook, later versions `(x - mean) / scale`.
        """
        transcoders, weights = self.model.transcoders, self.linear_weights or self.model.model.weights
        affine = transcoders.normalized == "affine"
        if weights is None or not (affine or transcoders.feature_input_hook == "ln2.hook_normalized"):
            return None
        norms = [layer.ln2 for layer in weights.layers]
        if norms[0].kind != "layer" or self.plausibility is None:
            return None
        self.normalized = "affine" if affine else "scaled"
        if transcoders.normalized is None:
            self.progress.note(
                "ln2.hook_normalized is read as (x - mean) / scale, without gain and bias; "
                "to change this, set ln2_hook_normalized in config.yaml"
            )
        inputs = []
        for norm, layer in zip(norms, frozen.layers, strict=True):
            x = layer.feature_input
            gain, bias = norm.gain.to(x), 0 if norm.bias is None else norm.bias.to(x)
            inputs.append((x - bias) / gain if affine else x * gain + bias)
        return other_reading(
            transcoders, inputs, self.plausibility.active_per_position, tokens.zero_positions
        )

    def graph(
        self,
        tokens: Tokens,
        frozen: FrozenPass,
        active: ActiveFeatures,
        targets: AttributionTargets,
        engine: Engine,
        selected: Tensor,
        edges: Edges,
    ) -> Graph:
        """Return the Graph with all metadata filled in."""
        return Graph(
            input_string=tokens.text,
            input_tokens=frozen.tokens.cpu(),
            active_features=active.indices.cpu(),
            adjacency_matrix=edges,
            cfg=self.model.cfg,
            selected_features=selected,
            activation_values=active.values.cpu(),
            logit_targets=targets.logit_targets,
            logit_probabilities=targets.logit_probabilities.cpu(),
            scan=self.model.scan,
            vocab_size=targets.vocab_size,
            metadata=self.metadata(tokens, frozen, engine, targets),
            target_places=targets.stored_places,
        )

    def metadata(
        self, tokens: Tokens, frozen: FrozenPass, engine: Engine, targets: AttributionTargets
    ) -> dict[str, Any]:
        """Return the metadata on how the graph was made."""
        made = origin(self.model)
        if self.normalized is not None:
            made["transcoders"]["ln2_hook_normalized"] = self.normalized
        return {
            **made,
            "engine": engine.name,
            "precision": self.precision,
            "targets": targets.kind,
            "settings": asdict(self.settings),
            "prompt_tokens": list(tokens.strings),
            TOP_PREDICTIONS: top_predictions(frozen.logits, targets.reader.decode),
            "zero_positions": list(tokens.zero_positions),
            "timings": self.watch.seconds,
            "compute_block": self.size.work,
            "offload": self.offload.place,
            **({"plausibility": self.plausibility.record()} if self.plausibility else {}),
        }


def engine_targets(targets: AttributionTargets) -> Targets:
    """A graph's targets, as the engine takes them."""
    _, layers, positions = zip(*targets.places, strict=True)
    return Targets(torch.tensor(layers), torch.tensor(positions), targets.logit_vectors)


def behind(places: Sequence[TargetPlace], active: ActiveFeatures) -> Tensor:
    """Indices of the active features that can have an effect on a target, ascending."""
    layer, position, _ = active.indices.cpu().unbind(1)
    found = torch.zeros(len(active), dtype=torch.bool)
    for place in {(one.layer, one.position) for one in places}:
        found |= (layer < place[0]) & (position <= place[1])
    return found.nonzero().squeeze(1)


@dataclass(frozen=True, slots=True)
class AttributionSettings:
    """The settings that decide what a graph contains.

    Args:
        max_n_logits: Largest number of logits to explain when targets are chosen by probability.
        desired_logit_prob: Stop choosing logits when their probabilities sum to this.
        batch_size: Number of features to select per batch. Not the compute block.
        max_feature_nodes: Largest number of feature nodes; None or 0 for all.
        update_interval: Number of batches between two rankings of features.
    """

    max_n_logits: int = 10
    desired_logit_prob: float = 0.95
    batch_size: int = 512
    max_feature_nodes: int | None = None
    update_interval: int = 4

    def __post_init__(self) -> None:
        for name in ("max_n_logits", "batch_size", "update_interval"):
            if getattr(self, name) < 1:
                raise InvalidValue(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.max_feature_nodes is not None and self.max_feature_nodes < 0:
            raise InvalidValue(f"max_feature_nodes must be 0 or more, not {self.max_feature_nodes}")
        if not 0 < self.desired_logit_prob <= 1:
            raise InvalidValue(
                f"desired_logit_prob must be greater than 0 and at most 1, not {self.desired_logit_prob}"
            )


class Stopwatch:
    """Measures seconds per phase, and announces each phase to a progress display."""

    clock: Callable[[], float] = staticmethod(time.perf_counter)

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str, total: int | None = None) -> Iterator[None]:
        """Measure one phase."""
        self.progress.phase(name, total)
        start = self.clock()
        yield
        self.seconds[name] = round(self.clock() - start, 6)


def coverage_of_neurons(transcoders: Transcoders, found: Plausibility) -> str:
    """How much of the MLPs' outputs the neurons write that can be nodes, in words."""
    missed = sum(found.reconstruction_error) / len(found.reconstruction_error)
    count, of = int(transcoders.expected_l0 or 0), transcoders.d_transcoder
    return (
        f"neurons: the {count} of {of:,} per layer and token that write most can be nodes; error nodes hold the others "
        f"({missed:.0%} of the MLPs' squared output) and all at position 0"
    )


LIBRARIES = ("torch", "transformers", "transformer_lens")
OF_BACKEND = {"nnsight": ("nnsight",)}
"""Libraries that only one backend uses."""


def origin(model: ReplacementModel) -> dict[str, Any]:
    """Return what a graph was made with, for its metadata."""
    transcoders = model.transcoders
    return {
        "generator": {"name": "circuit-tracer-cli", "version": __version__},
        "model": model.cfg.model_name,
        **({} if model.revision is None else {"model_revision": model.revision}),
        **({} if model.commit is None else {"model_commit": model.commit}),
        "transcoders": {
            "scan": model.scan,
            **({} if transcoders.commit is None else {"commit": transcoders.commit}),
            "kind": transcoders.kind,
            "feature_input_hook": transcoders.feature_input_hook,
            "feature_output_hook": transcoders.feature_output_hook,
            **({"layers_without": list(transcoders.missing_layers)} if transcoders.missing_layers else {}),
            **({"neurons": transcoders.conventions()} if isinstance(transcoders, NeuronSet) else {}),
        },
        "backend": model.backend,
        "dtype": model.cfg.dtype,
        "device": in_words(model.model.layer_devices),
        "versions": {
            "python": platform.python_version(),
            **versions(*LIBRARIES, *OF_BACKEND.get(model.backend, ())),
        },
        "create_time_ms": int(time.time() * 1000),
    }


def versions(*names: str) -> dict[str, str]:
    """Return the installed versions."""
    return {name: _version(name) for name in names}


@functools.cache
def _version(name: str) -> str:
    """Return the version of an installed package. Cached, since it reads the package's metadata."""
    return packages.version(name)


class LogProgress:
    """Writes phases to the logger `attribution`."""

    def __init__(self) -> None:
        self.logger = logging.getLogger("attribution")
        self.logger.setLevel(logging.INFO)
        if not self.logger.handlers and not logging.getLogger().handlers:
            self.logger.addHandler(logging.StreamHandler())
        self.total: int | None = None
        self.done = 0
        self.logged = 0

    def phase(self, name: str, total: int | None = None) -> None:
        """Log the beginning of a phase."""
        self.total, self.done, self.logged = total, 0, 0
        self.logger.info("%s%s", name, f" ({total})" if total is not None else "")

    def advance(self, steps: int = 1) -> None:
        """Log every tenth of a phase."""
        self.done += steps
        if self.total and (tenth := 10 * self.done // self.total) > self.logged:
            self.logged = tenth
            self.logger.info("%d of %d", self.done, self.total)

    def note(self, message: str) -> None:
        """Log a note."""
        self.logger.info("%s", message)
