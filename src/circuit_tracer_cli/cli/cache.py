"""`cache`: transcoder sets that were converted to the standard layout and kept on this computer."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuit_tracer_cli.cli import options as opt
from circuit_tracer_cli.cli.libraries import silence_libraries
from circuit_tracer_cli.cli.output import Output
from circuit_tracer_cli.cli.progress import progress_on
from circuit_tracer_cli.errors import BadTranscoders, UsageError
from circuit_tracer_cli.files.capacity import size_in_words
from circuit_tracer_cli.request import DTYPES

if TYPE_CHECKING:
    from circuit_tracer_cli.transcoders.converted import ConvertedSet
    from circuit_tracer_cli.transcoders.known import KnownSet

group = typer.Typer(rich_markup_mode=None, help="Converted transcoder sets on this computer.")

ReferenceArg = Annotated[
    str,
    typer.Argument(metavar="SET", help="gemma, llama, USER/REPO[/FOLDER][@REVISION], hf://… or a folder."),
]
CacheDirOpt = Annotated[
    str | None,
    typer.Option(
        metavar="DIR",
        show_default="CIRCUIT_TRACER_CACHE_DIR, or the system's cache folder",
        help="Cache folder; `circuit-tracer cache dir` prints it.",
    ),
]


def add(
    reference: ReferenceArg,
    cache_dir: CacheDirOpt = None,
    dtype: Annotated[
        str | None,
        typer.Option(metavar="TYPE", show_default="as stored", help="float32, bfloat16 or float16."),
    ] = None,
    keep_downloads: Annotated[
        bool, typer.Option("--keep-downloads", help="Keep the downloaded files in the hub's cache.")
    ] = False,
    parallel: Annotated[
        bool, typer.Option("--parallel", help="Download all files at once; needs more disk space.")
    ] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Use only local files.")] = False,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="Hide progress bars.")] = False,
    quiet: opt.QuietOpt = False,
) -> None:
    """Download a transcoder set and convert it to the layout that loads fastest, layer by layer.

    Run it again after an interruption, and it continues where it stopped. Prints the set's folder.
    """
    output = Output(quiet=quiet)
    if dtype is not None and dtype not in DTYPES:
        raise UsageError(f"unknown dtype {dtype!r}", hint=f"choose one of {', '.join(DTYPES)}")
    silence_libraries(output, offline=offline)
    import torch

    from circuit_tracer_cli.cache import save_transcoders_to_cache

    with progress_on(output, bars=not no_progress) as progress:
        folder = save_transcoders_to_cache(
            reference,
            cache_dir,
            sequential=not parallel,
            dtype=None if dtype is None else getattr(torch, DTYPES[dtype]),
            delete_hf_cache=not keep_downloads,
            progress=progress,
        )
    output.result(str(folder))


def list_sets(
    known: Annotated[bool, typer.Option("--known", help="List published sets instead.")] = False,
    cache_dir: CacheDirOpt = None,
    json_: opt.JsonOpt = False,
) -> None:
    """List the sets in the cache, or with --known the sets published on the hub."""
    output = Output()
    if known:
        _list_known(output, as_json=json_)
        return
    from circuit_tracer_cli.cache import cached_sets, get_cache_dir

    found = cached_sets(cache_dir)
    if json_:
        output.data([_facts(one) for one in found])
    elif not found:
        output.note(f"{get_cache_dir(cache_dir)} contains no sets; circuit-tracer cache add SET adds one")
    else:
        rows = [(one.reference, _state(one), _made_as(one), size_in_words(one.size)) for one in found]
        output.table("Converted sets", ("set", "state", "layers, dtype", "size#"), rows)


def info(
    reference: ReferenceArg,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read all files and check their checksums.")
    ] = False,
    cache_dir: CacheDirOpt = None,
    json_: opt.JsonOpt = False,
) -> None:
    """Show what a converted set was made from; with --verify, check that its files are unchanged."""
    from circuit_tracer_cli.cache import find_cached
    from circuit_tracer_cli.transcoders.converted import damaged_files

    output = Output()
    facts = _facts(find_cached(reference, cache_dir))
    damaged = damaged_files(Path(facts["folder"])) if verify else []
    if verify:
        facts["damaged"] = damaged
    if json_:
        output.data(facts)
    else:
        shown = {**facts, "bytes": size_in_words(facts["bytes"])}
        rows = [(name, _shown(value)) for name, value in shown.items()]
        output.table(facts["reference"], ("", ""), rows)
    if damaged:
        raise BadTranscoders(
            f"{facts['reference']}: {', '.join(damaged)} changed since the set was written",
            hint=f"circuit-tracer cache remove {reference}, then circuit-tracer cache add {reference}",
        )


def remove(
    references: Annotated[
        list[str], typer.Argument(metavar="SET...", help="The sets, named as they were added.")
    ],
    cache_dir: CacheDirOpt = None,
    quiet: opt.QuietOpt = False,
) -> None:
    """Remove converted sets from the cache. Files that the conversion didn't write stay."""
    from circuit_tracer_cli.cache import empty_cache, find_cached

    output = Output(quiet=quiet)
    for reference in references:
        find_cached(reference, cache_dir)
    for reference in references:
        output.note(f"removed {reference}, {size_in_words(empty_cache(reference, cache_dir))}")


def clear(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    cache_dir: CacheDirOpt = None,
    quiet: opt.QuietOpt = False,
) -> None:
    """Remove every converted set. Other files in the cache folder stay."""
    from circuit_tracer_cli.cache import cached_sets, empty_cache, get_cache_dir

    output = Output(quiet=quiet)
    found = [one for one in cached_sets(cache_dir) if one.manifest is not None]
    if not found:
        output.note(f"{get_cache_dir(cache_dir)} contains nothing to remove")
        return
    if not yes:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise UsageError(f"this would remove {len(found)} converted sets", hint="add --yes")
        size = size_in_words(sum(one.size for one in found))
        typer.confirm(f"Remove {len(found)} converted sets, {size}?", abort=True, err=True)
    output.note(f"removed {len(found)} converted sets, {size_in_words(empty_cache(None, cache_dir))}")


def show_dir(cache_dir: CacheDirOpt = None) -> None:
    """Print the cache folder."""
    from circuit_tracer_cli.cache import get_cache_dir

    Output().result(str(get_cache_dir(cache_dir)))


def _list_known(output: Output, *, as_json: bool) -> None:
    from circuit_tracer_cli.transcoders.known import KNOWN_SETS

    if as_json:
        output.data([_known_facts(one) for one in KNOWN_SETS])
        return
    output.result("By model: reference, kind, features per layer, size in bfloat16\n")
    for model in dict.fromkeys(one.model for one in KNOWN_SETS):
        output.result(model)
        for one in KNOWN_SETS:
            if one.model == model:
                output.result(_known_line(one))


_KNOWN_WIDTH = 46  # leaves room for details on an 80-column line


def _known_line(one: KnownSet) -> str:
    """Print the set's full name, ready to copy, with its details on the same or the next line."""
    name = f"  {one.reference}" + (f" ({one.alias})" if one.alias else "")
    features = "" if one.d_transcoder is None else f"{one.d_transcoder:,}"
    size = "" if one.parameters is None else f"~{size_in_words(2 * one.parameters)}"
    details = f"{one.kind}, {one.activation:<9} {features:>8} {size:>8}".rstrip()
    if len(name) > _KNOWN_WIDTH:
        return f"{name}\n{'':<{_KNOWN_WIDTH}} {details}"
    return f"{name:<{_KNOWN_WIDTH}} {details}"


def _known_facts(one: KnownSet) -> dict[str, Any]:
    return {
        "reference": one.reference,
        "alias": one.alias,
        "model": one.model,
        "kind": one.kind,
        "activation": one.activation,
        "n_layers": one.n_layers,
        "d_model": one.d_model,
        "d_transcoder": one.d_transcoder,
        "parameters": one.parameters,
    }


def _facts(one: ConvertedSet) -> dict[str, Any]:
    made = one.manifest
    return {
        "reference": one.reference,
        "folder": str(one.folder),
        "complete": one.complete,
        "bytes": one.size,
        "commit": made.commit if made else None,
        "made from": made.format if made else None,
        "dtype": made.dtype if made else None,
        "n_layers": made.n_layers if made else None,
    }


def _state(one: ConvertedSet) -> str:
    if one.manifest is None:
        return "by another program"
    return "whole" if one.complete else "interrupted"


def _made_as(one: ConvertedSet) -> str:
    return "" if one.manifest is None else f"{one.manifest.n_layers}, {one.manifest.dtype}"


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "unknown" if value is None else str(value)
