"""A model with its MLPs replaced by transcoders: the object that attribution and interventions work on."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from circuit_tracer_cli.backends import backend_class
from circuit_tracer_cli.backends.base import Backend, Edit, FrozenPass
from circuit_tracer_cli.backends.devices import DeviceMap, Placement, default_device, place_layers
from circuit_tracer_cli.backends.families import architecture_of
from circuit_tracer_cli.backends.mlps import no_neurons
from circuit_tracer_cli.backends.model_config import check_agreement, fact
from circuit_tracer_cli.backends.model_source import find_model, pinned
from circuit_tracer_cli.backends.points import FeaturePoints
from circuit_tracer_cli.errors import UnsuitableValue
from circuit_tracer_cli.interventions.context import AttributionContext, attribution_context, freezing
from circuit_tracer_cli.interventions.generate import generate_call
from circuit_tracer_cli.interventions.passes import Recording
from circuit_tracer_cli.interventions.run import Constraints, Interventions
from circuit_tracer_cli.tokens import Tokens, ensure_tokenized
from circuit_tracer_cli.transcoders.base import Transcoders
from circuit_tracer_cli.transcoders.neurons import NeuronSet
from circuit_tracer_cli.transcoders.references import NeuronReference, neuron_reference
from circuit_tracer_cli.types import UnifiedConfig

_OWN_PLACE = {"token", "cache_dir", "local_files_only", "subfolder"}
"""Arguments that tell Hugging Face's loader that a model isn't in the hub's cache."""


class ReplacementModel:
    """A backend and its transcoders.

    Attributes:
        model, underlying_model: The unmodified model, behind its backend.
        backend, backend_name: Name of the backend.
        revision: The requested branch, tag or commit of a model from the hub, or None.
        commit: The commit that all files of a model from the hub came from; None for a folder.
        transcoders: The transcoder set, in the model's dtype, each layer on the device of the model's layer.
        cfg: Sizes and names of the model.
        tokenizer: The model's tokenizer, or None.
        scan: Identifier of the transcoder set.
    """

    def __init__(
        self,
        backend: Backend,
        transcoders: Transcoders,
        revision: str | None = None,
        commit: str | None = None,
    ) -> None:
        self.model = backend
        self.revision, self.commit = revision, commit
        self.backend = backend.name
        self.transcoders = transcoders
        check_match(backend, transcoders)

    @classmethod
    def from_pretrained(
        cls,
        model_name: str,
        transcoder_set: str,
        backend: str = "transformerlens",
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
        lazy_encoder: bool = False,
        lazy_decoder: bool = True,
        device_map: DeviceMap | Placement | None = None,
        **kwargs: Any,
    ) -> ReplacementModel:
        """Load transcoders, then the model.

        Args:
            model_name: A folder, a model on the hub as `user/name` or `user/name@revision`, or `demo` for the embedded one.
            transcoder_set: Reference of the set: `demo`, `demo-plt`, a folder, a place on the hub, or `neurons`.
            backend: Name of the backend.
            device: By default CUDA, else Apple's GPU, else the CPU.
            dtype: Number type of model and transcoders.
            lazy_encoder: Read encoders from their files as needed.
            lazy_decoder: Read decoder rows from their files as needed.
            device_map: Devices of the layers, instead of `device`: `balanced`, `"0-11:cuda:0,12-25:cuda:1"`, a mapping of such
                ranges, or one device per layer. A layer's transcoder is where the layer is.
            kwargs: Passed on to the model's loader.

        Raises:
            CircuitTracerError: Something is missing or malformed, or model and set don't match.
        """
        from circuit_tracer_cli.transcoders.loading import inspect_transcoders, load_transcoders

        where: torch.device | Sequence[torch.device] = torch.device(device or default_device())
        placement = device_map if isinstance(device_map, Placement) else None
        if device_map is not None:
            if placement is None:
                neurons = neuron_reference(transcoder_set)
                placement = place_layers(
                    device_map,
                    fact(find_model(model_name).config(), "n_layers")
                    if neurons is not None
                    else inspect_transcoders(transcoder_set).shape.n_layers,
                )
            where = placement.layers
        neurons = neuron_reference(transcoder_set)
        if neurons is not None:
            return cls.from_pretrained_and_transcoders(
                model_name, neurons, backend, device, dtype, placement, **kwargs
            )
        loaded = load_transcoders(
            transcoder_set, device=where, dtype=dtype, lazy_encoder=lazy_encoder, lazy_decoder=lazy_decoder
        )
        return cls.from_pretrained_and_transcoders(
            model_name, loaded.transcoders, backend, device, dtype, placement, **kwargs
        )

    @classmethod
    def from_pretrained_and_transcoders(
        cls,
        model_name: str,
        transcoders: Transcoders | NeuronReference,
        backend: str = "transformerlens",
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
        device_map: DeviceMap | Placement | None = None,
        **kwargs: Any,
    ) -> ReplacementModel:
        """Load the model for transcoders that are there already, which move where it is; or for its own neurons."""
        if device_map is not None:
            if isinstance(transcoders, NeuronReference):
                n_layers = fact(find_model(model_name).config(), "n_layers")
            else:
                n_layers = transcoders.n_layers
            kwargs["placement"] = place_layers(device_map, n_layers)
        start = torch.device(device or default_device())
        source = find_model(model_name)
        asked = kwargs.get("revision") or source.revision
        commit = None if _OWN_PLACE & kwargs.keys() else pinned(replace(source, revision=asked))
        if asked or commit:
            kwargs["revision"] = commit or asked
        model = backend_class(backend).from_pretrained(source.name, start, dtype, **kwargs)
        if isinstance(transcoders, NeuronReference):
            return cls(model, neurons_of(model, transcoders), asked, commit)
        check_match(model, transcoders)
        transcoders.place(model.layer_devices, dtype)
        return cls(model, transcoders, asked, commit)

    @classmethod
    def from_config(
        cls, config: Any, transcoders: Transcoders, backend: str = "transformerlens", **kwargs: Any
    ) -> ReplacementModel:
        """Return a randomly initialized model of a Hugging Face configuration."""
        return cls(backend_class(backend).from_config(config, **kwargs), transcoders)

    @property
    def underlying_model(self) -> Backend:
        """Return the unmodified model, behind its backend; the reference calls it `model`."""
        return self.model

    @property
    def backend_name(self) -> str:
        """Return the name of the backend; the reference calls it `backend`."""
        return self.backend

    @property
    def points(self) -> FeaturePoints:
        """Return where the transcoders' hooks are in this model."""
        return self.model.feature_points(
            self.transcoders.feature_input_hook, self.transcoders.feature_output_hook
        )

    @property
    def cfg(self) -> UnifiedConfig:
        """Return sizes and names of the model."""
        return self.model.config

    @property
    def tokenizer(self) -> Any:
        """Return the model's tokenizer, or None."""
        return self.model.tokenizer

    @property
    def scan(self) -> str | list[str] | None:
        """Return the identifier of the transcoder set."""
        return self.transcoders.scan

    @property
    def feature_input_hook(self) -> str:
        """Return the hook that the set's features read from, relative to a block."""
        return self.transcoders.feature_input_hook

    @property
    def feature_output_hook(self) -> str:
        """Return the hook that the set's features write to, relative to a block."""
        return self.transcoders.feature_output_hook

    @property
    def skip_transcoder(self) -> bool:
        """True if any transcoder of the set has a skip connection."""
        return self.transcoders.has_skip

    @property
    def device(self) -> torch.device:
        """Return the model's device; with several devices, the one where prompts enter."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """Return the model's dtype."""
        return self.model.dtype

    @property
    def W_E(self) -> Tensor:
        """Return the raw token embeddings `(d_vocab, d_model)`, without the scaling that some models apply afterwards."""
        return self.model.W_E

    @property
    def W_U(self) -> Tensor:
        """Return the unembedding `(d_model, d_vocab)`, as in TransformerLens; the backend's own is as in Hugging Face's files."""
        return self.model.W_U.T

    def zero_softcap(self) -> AbstractContextManager[None]:
        """Switch the final logit softcap off within a `with` block."""
        return self.model.zero_softcap()

    def ensure_tokenized(self, prompt: str | Tensor | Sequence[int]) -> Tensor:
        """Return the prompt's ids `(pos)` with the special first token that the model expects (spec 1.7)."""
        return self.tokenize(prompt).ids

    def tokenize(self, prompt: str | Tensor | Sequence[int] | Tokens) -> Tokens:
        """Return the prompt's ids, texts and the positions at which nothing is traced; tokens are returned unchanged."""
        if isinstance(prompt, Tokens):
            return replace(prompt, ids=prompt.ids.to(self.device))
        return ensure_tokenized(
            prompt,
            self.tokenizer,
            model_name=self.cfg.model_name,
            d_vocab=self.model.shape.d_vocab,
            n_ctx=self.model.shape.n_ctx,
            device=self.device,
        )

    def frozen_pass(self, tokens: Tensor) -> FrozenPass:
        """Run the unmodified model on `tokens (pos)` once, keeping what the engine needs."""
        return self.model.frozen_pass(
            tokens, self.transcoders.feature_input_hook, self.transcoders.feature_output_hook
        )

    @functools.cached_property
    def interventions(self) -> Interventions:
        """Return the interventions on this model; they keep the unmodified runs of the last prompts."""
        return Interventions(self.model, self.transcoders)

    def setup_attribution(self, inputs: str | Tensor | Sequence[int]) -> AttributionContext:
        """Return a prompt's local replacement model as plain tensors: activations, errors, token, encoder and decoder vectors."""
        return attribution_context(self.interventions, self.tokenize(inputs))

    def setup_intervention_with_freeze(
        self, inputs: str | Tensor | Sequence[int], constrained_layers: Iterable[int] | None = None
    ) -> tuple[Tensor, list[tuple[str, Edit]]]:
        """Return the activations `(layer, pos, feature)` of a prompt, and named hooks that pin another run to it."""
        return freezing(self.interventions, self.tokenize(inputs), constrained_layers)

    def get_activations(
        self,
        inputs: str | Tensor | Sequence[int],
        sparse: bool = False,
        apply_activation_function: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """Return the features' activations on a prompt.

        Args:
            inputs: Text or ids, tokenized as for attribution.
            sparse: Return a coalesced sparse tensor.
            apply_activation_function: True for activations, False for pre-activations.

        Returns:
            Logits `(1, pos, vocab)` and activations `(layer, pos, feature)`, zero at the prompt's zeroed positions.
        """
        return self.interventions.activations(
            self.tokenize(inputs), sparse=sparse, apply_activation_function=apply_activation_function
        )

    def feature_intervention(
        self,
        inputs: str | Tensor | Sequence[int],
        interventions: Iterable[Any],
        constrained_layers: Iterable[int] | None = None,
        freeze_attention: bool = True,
        apply_activation_function: bool = True,
        sparse: bool = False,
        return_activations: bool = True,
    ) -> tuple[Tensor, Tensor | None]:
        """Run the model with features changed, or heads turned off.

        Args:
            inputs: Text or ids, tokenized as for attribution.
            interventions: Tuples `(layer, position, feature, value)`, records, or texts `LAYER/FEATURE@POS=VALUE`; for heads
                `HeadEdit` records or texts `L14H3@POS=off`. If two edit the same cell, the later one counts.
            constrained_layers: Layers whose outputs are pinned, the only ones that edits write to; None lets edits propagate.
                With all layers, norm scales are pinned too, so that only direct effects remain.
            freeze_attention: Pin the attention patterns; always so with `constrained_layers`.
            apply_activation_function: True to record activations, False for pre-activations.
            sparse: Record a sparse tensor.
            return_activations: False to record nothing.

        Returns:
            Logits `(1, pos, vocab)` and activations `(layer, pos, feature)` during the pass, or None.

        Raises:
            BadIntervention: An edit names a layer, position, feature or value that can't be used.
        """
        recording = Recording(apply_activation_function, sparse) if return_activations else None
        constraints = Constraints(constrained_layers=constrained_layers, freeze_attention=freeze_attention)
        return self.interventions.intervene(self.tokenize(inputs), interventions, constraints, recording)

    def feature_intervention_generate(
        self,
        inputs: str | Tensor | Sequence[int],
        interventions: Iterable[Any],
        constrained_layers: Iterable[int] | None = None,
        freeze_attention: bool = True,
        apply_activation_function: bool = True,
        sparse: bool = False,
        return_activations: bool = True,
        **kwargs: Any,
    ) -> tuple[Any, Tensor, Tensor | None]:
        """Continue a prompt with features changed.

        The prompt's pass is that of `feature_intervention`; later tokens have only the open-ended edits and nothing pinned.

        Args:
            inputs: Text or ids.
            kwargs: `max_new_tokens`, `do_sample`, `temperature`, `top_k`, `top_p`, `freq_penalty`, `stop_at_eos`, `eos_token_id`,
                `seed`, `return_type`.

        Returns:
            The text (ids if ids came in), logits `(step, vocab)`, activations `(layer, pos + step - 1, feature)` or None.
        """
        recording = Recording(apply_activation_function, sparse) if return_activations else None
        constraints = Constraints(constrained_layers=constrained_layers, freeze_attention=freeze_attention)
        tokens = self.tokenize(inputs)
        return generate_call(
            self.interventions, inputs, tokens, interventions, constraints, recording, kwargs
        )


def neurons_of(model: Backend, reference: NeuronReference) -> NeuronSet:
    """The neurons of a loaded model as a transcoder set.

    Raises:
        UnsupportedArchitecture: Its MLPs can't be put into that form.
        UnsuitableValue: The reference means another model, or a gate that this one hasn't.
    """
    check_neurons(reference, model.config.original_architecture, model.config.model_name)
    layers = [model.mlp_weights(layer) for layer in range(model.shape.n_layers)]
    return NeuronSet(layers, reference, reference.scan(model.config.model_name))


def check_neurons(reference: NeuronReference, architecture: str, model: str) -> None:
    """Raise as `neurons_of` for what the class and the name of a model tell."""
    layout = architecture_of({"architectures": [architecture]}).mlp
    if layout is None:
        raise no_neurons(architecture)
    if reference.gate == "frozen" and not layout.gated:
        raise UnsuitableValue(
            f"{architecture} has no gate that could be frozen: its MLP is act(W x)", "use neurons"
        )
    if reference.model not in (None, model):
        raise UnsuitableValue(
            f"these are the neurons of {reference.model}, and the model is {model}",
            f"--transcoder-set {reference.text}",
        )


def check_match(model: Backend, transcoders: Transcoders) -> None:
    """Raise ModelMismatch if model and transcoders don't match; a set for fewer layers is extended to cover all."""
    check_agreement(model.shape, transcoders, str(model.config.model_name))
    transcoders.cover(model.shape.n_layers)
    model.feature_points(transcoders.feature_input_hook, transcoders.feature_output_hook)
