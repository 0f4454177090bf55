"""Loads a Hugging Face model and its tokenizer for any backend."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from circuit_tracer_cli.backends.checkpoint import check_weights, refuse_adapter, refuse_loading
from circuit_tracer_cli.backends.devices import Placement
from circuit_tracer_cli.backends.families import architecture_of, family_for
from circuit_tracer_cli.backends.model_config import model_shape, read_config
from circuit_tracer_cli.backends.placing import module_map, place
from circuit_tracer_cli.backends.tokenizers import load_tokenizer
from circuit_tracer_cli.errors import CircuitTracerError

_WHERE = ("revision", "token", "cache_dir", "local_files_only", "subfolder")
"""Arguments that tell Hugging Face's loader where a model on the hub is."""
_FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_IN_HOST_MEMORY = ("cpu", "meta")


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Keep the libraries' progress bars and advice off the terminal while a model is loaded."""
    from transformers.utils import logging as hf_logging

    level = hf_logging.get_verbosity()
    tl_logger = logging.getLogger("transformer_lens")
    tl_level = tl_logger.level
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    tl_logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        hf_logging.set_verbosity(level)
        hf_logging.enable_progress_bar()
        tl_logger.setLevel(tl_level)


def load_model(
    model_name: str,
    device: torch.device,
    dtype: torch.dtype,
    placement: Placement | None = None,
    mapped: bool = True,
    **kwargs: Any,
) -> tuple[Any, Any, str]:
    """Return a model in evaluation mode, its tokenizer, and the name to store in graphs.

    Args:
        model_name: Local folder or model on the hub.
        device: Device of the model.
        dtype: Dtype of its weights.
        placement: The device of each layer, if there are several; overrides `device`.
        mapped: Map weights that are stored in `dtype` from their file, as pages that processes share and the system can
            reclaim. False gives each tensor its own memory, which is freed when that tensor is offloaded.
        kwargs: Passed on to Hugging Face's loader, such as `quantization_config`, or the `revision` of a model of the hub.

    Raises:
        BadModel: The folder is missing, or files are missing or damaged.
        UnsupportedArchitecture: Unknown class or setting; checked before weights are read.
    """
    folder = Path(model_name).expanduser()
    config: dict[str, Any] = {}
    model_name = str(folder) if folder.is_dir() else model_name
    refuse_adapter(model_name, **{key: kwargs[key] for key in _WHERE if key in kwargs})
    if folder.is_dir():
        config = read_config(folder)
        family_for(config)
        model_shape(config)
    revision = kwargs.get("revision")
    tokenizer = load_tokenizer(model_name, revision)
    from transformers import AutoConfig

    try:
        with quiet_loading():
            if not config:
                config = AutoConfig.from_pretrained(model_name, revision=revision).to_dict()
                family_for(config)
            with tensor_by_tensor(dtype, mapped=mapped):
                model = _loaded(model_name, config, device, dtype, placement, kwargs)
    except CircuitTracerError:
        raise
    except MemoryError:
        raise
    except Exception as error:  # the libraries raise anything for invalid files
        refuse_loading(model_name, error)
    return model, tokenizer, model_name


def _loaded(
    model_name: str,
    config: dict[str, Any],
    device: torch.device,
    dtype: torch.dtype,
    placement: Placement | None,
    kwargs: dict[str, Any],
) -> Any:
    """The language model with every weight from its checkpoint, on its device. Raises what the loader raises, and BadModel."""
    from transformers import AutoModelForCausalLM

    architecture = architecture_of(config)
    quantised = "quantization_config" in kwargs or bool(config.get("quantization_config"))
    where = None if placement is None else direct_map(model_name, config, placement, kwargs.get("revision"))
    if where is None and placement is None and (quantised or device.type not in _IN_HOST_MEMORY):
        # Straight to the device: the host never has the full model, and quantized weights can't be moved afterwards.
        where = {"": device}
    # Weights of another shape are reported with the others, by name.
    reporting = {"output_loading_info": True, "ignore_mismatched_sizes": True}
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        model_name,
        **{"attn_implementation": "eager", "dtype": dtype, "device_map": where, **kwargs, **reporting},
    )
    whole, report = loaded
    check_weights(model_name, whole, report, architecture)
    model = text_part(whole if where or placement else whole.to(device))
    if placement is not None:
        place(model, architecture.layout, placement)
    return model


@contextmanager
def tensor_by_tensor(dtype: torch.dtype, *, mapped: bool) -> Iterator[None]:
    """Make Hugging Face's loader read tensors of a safetensors file one by one, if mapping the file would cost more.

    A mapped file stays resident until its last tensor is read, so a model cast to 16 bits would also need the memory of its
    float32 file. The loader reads by tensor on some platforms but has no setting for it.

    Args:
        dtype: Dtype to cast weights to.
        mapped: True to map files with this dtype anyway.
    """
    modeling_utils: Any = import_module("transformers.modeling_utils")
    original = modeling_utils.safe_open

    def opened(file: Any, framework: str, device: Any = "cpu", backend: str = "mmap", **kwargs: Any) -> Any:
        found = original(file, framework=framework, device=device, backend=backend, **kwargs)
        if backend != "mmap" or device != "cpu" or (mapped and _holds(found, dtype)):
            return found
        return original(file, framework=framework, device=device, backend="pread", **kwargs)

    modeling_utils.safe_open = opened
    try:
        yield
    finally:
        modeling_utils.safe_open = original


def _holds(file: Any, dtype: torch.dtype) -> bool:
    """True if the floating-point tensors of an open safetensors file already have `dtype`."""
    stored = {_FLOATS.get(file.get_slice(name).get_dtype()) for name in file.keys()}  # noqa: SIM118
    return stored <= {dtype, None}


def direct_map(
    model_name: str, config: dict[str, Any], placement: Placement, revision: str | None = None
) -> dict[str, torch.device] | None:
    """The device of each module for Hugging Face's loader; None if the CPU is among the devices.

    The loader would copy weights on the CPU to a GPU whenever they are needed; here, layers on the CPU are computed there.
    """
    if any(device.type == "cpu" for device in placement.devices):
        return None
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        whole: Any = AutoModelForCausalLM.from_config(
            AutoConfig.from_pretrained(model_name, revision=revision)
        )
    return module_map(whole, text_part(whole), architecture_of(config).layout, placement)


def random_model(config: Any, **kwargs: Any) -> Any:
    """Return a randomly initialized model of a Hugging Face configuration."""
    from transformers import AutoModelForCausalLM

    return text_part(AutoModelForCausalLM.from_config(config, attn_implementation="eager", **kwargs))


def text_part(model: Any) -> Any:
    """Return the language model inside a multimodal one, without image towers; any other model unchanged."""
    if type(model).__name__ != "Gemma3ForConditionalGeneration":
        return model
    from transformers import Gemma3ForCausalLM

    config = model.config.text_config
    config._attn_implementation, config.architectures = "eager", [Gemma3ForCausalLM.__name__]
    with torch.device("meta"):
        text: Any = Gemma3ForCausalLM(config)
    text.model, text.lm_head = model.model.language_model, model.lm_head
    text.circuit_tracer_architecture = type(model).__name__
    return text.eval()
