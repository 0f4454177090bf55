"""Checks that every weight of a model came from its checkpoint: nothing missing, left over or of another shape.

Hugging Face's loader fills missing weights with random numbers and drops unexpected ones.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from circuit_tracer_cli.backends.families.base import Architecture
from circuit_tracer_cli.errors import BadModel

ALLOW_VARIABLE = "CIRCUIT_TRACER_ALLOW_WEIGHTS"
_WRAPPERS = {
    "_orig_mod.": "torch.compile wrote them: save model._orig_mod instead",
    "module.": "a DataParallel wrapper wrote them: save model.module instead",
    "base_model.model.": "PEFT wrote them: call merge_and_unload() and save its result",
    "_fsdp_wrapped_module.": "an FSDP wrapper wrote them: save the full state dict of the model inside",
}
_EXPERT = re.compile(r"(.*\bexperts\.)(\d+)(\..+)")
_ADAPTER = "adapter_config.json"
_MERGE = (
    "merge it: PeftModel.from_pretrained(base, adapter).merge_and_unload().save_pretrained(FOLDER), with the "
    "tokenizer in the same folder, then pass --model FOLDER"
)


def refuse_adapter(model_name: str, **where: Any) -> None:
    """Raise BadModel for a model with a PEFT adapter, and for a folder with only an adapter.

    Args:
        model_name: Local folder or model on the hub.
        where: `revision`, `token` and so on, as for Hugging Face's loader.
    """
    folder = Path(model_name)
    if folder.is_dir():
        path = folder / _ADAPTER if (folder / _ADAPTER).exists() else None
        alone = not (folder / "config.json").exists()
    else:
        from transformers.utils.hub import cached_file

        quiet = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_gated_repo": False}
        quiet["_raise_exceptions_for_connection_errors"] = False
        found = cached_file(model_name, _ADAPTER, **quiet, **where)
        path = None if found is None else Path(found)
        alone = path is not None and cached_file(model_name, "config.json", **quiet, **where) is None
    if path is None:
        return
    if alone:
        raise BadModel(
            f"{model_name} is a PEFT adapter for {_base_of(path)}, not a model",
            hint=_MERGE,
        )
    raise BadModel(
        f"{model_name} has a PEFT adapter ({_ADAPTER}), which a trace would ignore",
        hint=f"{_MERGE}; or remove {_ADAPTER} to trace the base model",
    )


def _base_of(path: Path) -> str:
    """The base model that an adapter names."""
    try:
        named = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "another model"
    return str((named.get("base_model_name_or_path") if isinstance(named, dict) else None) or "another model")


def check_weights(model_name: str, model: Any, report: Mapping[str, Any], architecture: Architecture) -> None:
    """Raise BadModel naming the first weight of the checkpoint that is missing, unexpected, or of another shape.

    Args:
        model_name: Where the model came from.
        model: The model as loaded, before parts of it are dropped.
        report: The loader's own report (`output_loading_info`).
        architecture: What the family lists as harmless.
    """
    order = {name: number for number, name in enumerate(model.state_dict())}
    missing = sorted(
        (name for name in report["missing_keys"] if not _matches(name, architecture.not_needed)),
        key=lambda name: order.get(name, -1),
    )
    harmless = (*architecture.leftovers, *architecture.not_needed)
    allowed = tuple(filter(None, os.environ.get(ALLOW_VARIABLE, "").split(",")))
    unexpected = sorted(
        (
            name
            for name in report["unexpected_keys"]
            if not _matches(name, harmless) and not name.startswith(allowed or ("\0",))
        ),
        key=_natural,
    )
    mismatched = sorted(report["mismatched_keys"], key=lambda item: order.get(item[0], -1))
    if missing and unexpected:
        _refuse_prefix(model_name, missing, unexpected)
    if missing or unexpected:
        _refuse_depth(model_name, missing, unexpected, model, architecture)
    if mismatched:
        refuse_missing_expert(model_name, [name for name, *_ in mismatched])
        name, found, wanted = mismatched[0]
        raise BadModel(
            f"{name} is {tuple(found)} in the weights of {model_name}, but {tuple(wanted)} according to its config.json",
            hint="config.json belongs to another model, or the weights are damaged; download both again",
        )
    if missing:
        raise BadModel(
            f"the weights of {model_name} lack {_as_stored(model, missing[0])}{_others(missing)}",
            hint="the checkpoint is incomplete: download or save it again",
        )
    if unexpected:
        raise BadModel(
            f"the weights of {model_name} contain {unexpected[0]}{_others(unexpected)}, which the model doesn't have",
            hint="config.json may belong to another model; if the forward pass doesn't need "
            f"{'it' if len(unexpected) == 1 else 'them'}, set {ALLOW_VARIABLE} to the beginning of the name",
        )
    if report.get("error_msgs"):
        raise BadModel(f"the weights of {model_name} can't be used: {report['error_msgs'][0]}")


def _as_stored(model: Any, name: str) -> str:
    """A weight's name in the model, with its name in the family's files if that differs."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming, apply_renamings

    conversions = get_model_conversion_mapping(model, add_legacy=False)
    reverse: list[Any] = [conversion.reverse_transform() for conversion in reversed(conversions)]
    stored = apply_renamings(name, [one for one in reverse if type(one) is WeightRenaming])
    return name if stored == name else f"{name} (in files {stored})"


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(re.search(pattern, name) for pattern in patterns)


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts layer 2 before layer 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _others(names: Collection[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def _refuse_prefix(model_name: str, missing: list[str], unexpected: list[str]) -> None:
    """Raise BadModel if the checkpoint's names differ from the model's by a prefix."""
    for name in missing[:3]:
        for found in unexpected:
            if found.endswith(f".{name}"):
                prefix = found.removesuffix(name)
                told = next((text for mark, text in _WRAPPERS.items() if prefix.startswith(mark)), "")
                raise BadModel(
                    f"the weights of {model_name} have an extra prefix {prefix!r}: {found} instead of {name}",
                    hint=told or f"save the weights again without {prefix!r} in their names",
                )


def _refuse_depth(
    model_name: str, missing: list[str], unexpected: list[str], model: Any, architecture: Architecture
) -> None:
    """Raise BadModel if the checkpoint has more or fewer layers than the configuration."""
    layers = re.compile(rf"(?:^|\.){re.escape(architecture.layout.layers.split('.')[-1])}\.(\d+)\.")

    def by_layer(names: Iterable[str]) -> dict[int, set[str]]:
        found: dict[int, set[str]] = {}
        for name in names:
            if match := layers.search(name):
                found.setdefault(int(match[1]), set()).add(name)
        return found

    whole, gone, extra = by_layer(model.state_dict()), by_layer(missing), by_layer(unexpected)
    n_layers = len(whole)
    empty = [layer for layer, names in gone.items() if names == whole.get(layer)]
    has = n_layers - len(empty)
    if empty and sorted(empty) == list(range(has, n_layers)):
        first = next(name for name in missing if name in gone[has])
    elif extra and (beyond := [layer for layer in extra if layer >= n_layers]):
        has, first = max(beyond) + 1, min(extra[min(beyond)], key=_natural)
    else:
        return
    raise BadModel(
        f"the weights of {model_name} have {has} layers, but its config.json says {n_layers}: "
        f"{first} is {'missing' if empty else 'left over'}",
        hint="correct num_hidden_layers in config.json, or download the weights again",
    )


def refuse_missing_expert(model_name: str, names: Iterable[str] = ()) -> None:
    """Raise BadModel naming the first expert's weight that the checkpoint lacks, if there is a gap.

    Hugging Face's loader stacks experts, so a missing one shows up as a stack of another shape or an error.

    Args:
        model_name: Where the model came from.
        names: The model's stacked weights that don't fit; may be empty.
    """
    stacks: dict[str, dict[int, set[str]]] = {}
    for name in checkpoint_names(model_name):
        if match := _EXPERT.fullmatch(name):
            stacks.setdefault(match[1], {}).setdefault(int(match[2]), set()).add(match[3])
    if not stacks:
        return
    count = max(max(experts) for experts in stacks.values()) + 1
    kinds = set().union(*(kind for experts in stacks.values() for kind in experts.values()))
    for stack in sorted(stacks, key=_natural):
        for expert in range(count):
            for kind in sorted(kinds - stacks[stack].get(expert, set())):
                raise BadModel(
                    f"the weights of {model_name} lack {stack}{expert}{kind}",
                    hint="the checkpoint is incomplete: download or save it again",
                )


def checkpoint_names(model_name: str) -> list[str]:
    """The names of a local checkpoint's tensors; empty if they can't be found without reading weights."""
    from safetensors import SafetensorError, safe_open
    from transformers.utils.hub import cached_file

    quiet = {"_raise_exceptions_for_missing_entries": False, "local_files_only": True}
    for index in ("model.safetensors.index.json", "pytorch_model.bin.index.json"):
        path = cached_file(model_name, index, **quiet)
        if path is not None:
            try:
                return list(json.loads(Path(path).read_text(encoding="utf-8"))["weight_map"])
            except (OSError, ValueError, KeyError, TypeError):
                return []
    path = cached_file(model_name, "model.safetensors", **quiet)
    if path is None:
        return []
    try:
        with safe_open(path, framework="pt") as file:
            return list(file.keys())
    except (OSError, SafetensorError):
        return []


def in_one_line(error: Exception) -> str:
    """Return a library's error message in one line, with the cause if the first line lacks it."""
    if isinstance(error, RecursionError):
        return "a file is nested too deeply"
    if isinstance(error, KeyError):
        return f"its files lack the entry {error}"
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return (" ".join(lines[:2]) if lines[0].endswith(":") else lines[0]).removesuffix(".")


def refuse_loading(model_name: str, error: Exception) -> NoReturn:
    """Raise BadModel for what Hugging Face's loader raised, in one line."""
    refuse_missing_expert(model_name)
    first = in_one_line(error)
    local = Path(model_name).is_dir()
    raise BadModel(
        f"the model {model_name!r} can't be loaded: {first}",
        hint="check the folder's files, or download the model again"
        if local
        else "use a local Hugging Face model folder, or log in with `hf auth login` for a gated model",
    ) from error
