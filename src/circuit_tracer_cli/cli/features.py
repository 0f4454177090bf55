"""`features build`, `import` and `info`: examples of text where features are active, for the viewer."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from circuit_tracer_cli.cli import options as opt
from circuit_tracer_cli.cli import request_options as ask
from circuit_tracer_cli.cli.destinations import STREAM
from circuit_tracer_cli.cli.libraries import silence_libraries
from circuit_tracer_cli.cli.output import Output, visible
from circuit_tracer_cli.cli.progress import progress_on
from circuit_tracer_cli.cli.request_options import request_from
from circuit_tracer_cli.errors import OutOfMemory, OutputError, UnsuitableValue, UsageError
from circuit_tracer_cli.files.capacity import free_memory, size_in_words

if TYPE_CHECKING:
    from circuit_tracer_cli.features.build import BuildSummary
    from circuit_tracer_cli.features.settings import BuildSettings
    from circuit_tracer_cli.prepare import Prepared
    from circuit_tracer_cli.replacement import ReplacementModel
    from circuit_tracer_cli.request import TraceRequest
    from circuit_tracer_cli.types import Progress

group = typer.Typer(rich_markup_mode=None, help="Feature examples for the viewer.")

TEXT, EXAMPLES = "Model and text", "What to collect"


def _layer_range(value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"\d{1,6}:\d{1,6}", value):
        raise typer.BadParameter(f"{value!r} isn't of the form 0:8 (the last one not included)")
    return value


TextOpt = Annotated[
    str,
    typer.Option("--text", metavar="PATH", help="A file, a folder, or - for stdin.", rich_help_panel=TEXT),
]
SplitOpt = Annotated[
    Literal["auto", "lines", "paragraphs", "files", "jsonl"],
    typer.Option(help="How text is split into documents.", rich_help_panel=TEXT),
]
TextFieldOpt = Annotated[
    str, typer.Option(metavar="KEY", help="Key of the text in JSON lines.", rich_help_panel=TEXT)
]
MaxDocumentsOpt = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="N", show_default="all", help="Read at most this many.", rich_help_panel=TEXT
    ),
]
OutputDirOpt = Annotated[
    str,
    typer.Option("--output-dir", "-o", metavar="DIR", help="Folder for the examples.", rich_help_panel=TEXT),
]
ContextOpt = Annotated[
    int, typer.Option(min=2, metavar="N", help="Tokens per example.", rich_help_panel=EXAMPLES)
]
ExamplesOpt = Annotated[
    int, typer.Option(min=1, metavar="N", help="Top examples per feature.", rich_help_panel=EXAMPLES)
]
QuantilesOpt = Annotated[
    int,
    typer.Option(
        min=0,
        metavar="N",
        help="Groups of examples that cover the range of activations.",
        rich_help_panel=EXAMPLES,
    ),
]
LogitsOpt = Annotated[
    int,
    typer.Option(
        min=0, metavar="N", help="Number of promoted and of suppressed tokens.", rich_help_panel=EXAMPLES
    ),
]
LayersOpt = Annotated[
    str | None,
    typer.Option(
        callback=_layer_range,
        metavar="A:B",
        show_default="all",
        help="Only layers A to B-1; others in the folder stay.",
        rich_help_panel=EXAMPLES,
    ),
]
SequenceLengthOpt = Annotated[
    int,
    typer.Option(
        min=2, metavar="N", help="Cut longer documents into pieces of N tokens.", rich_help_panel=EXAMPLES
    ),
]
SeedOpt = Annotated[
    int, typer.Option(min=0, metavar="N", help="Seed of the samples.", rich_help_panel=EXAMPLES)
]
ResumeOpt = Annotated[
    bool, typer.Option("--resume/--no-resume", help="Continue an interrupted build of the folder.")
]
SourcesArg = Annotated[
    list[str], typer.Argument(metavar="PATH…", help="Files and folders to read.", show_default=False)
]
GraphOpt = Annotated[
    str | None,
    typer.Option(
        metavar="GRAPH",
        show_default="all",
        help="Import only the features of this graph (raw, pruned or .json).",
    ),
]
SourceOpt = Annotated[
    str | None,
    typer.Option(metavar="ID", help="Import only this source or set, such as 20-gemmascope-transcoder-16k."),
]
DriversOfOpt = Annotated[
    str | None,
    typer.Option(
        metavar="GRAPH",
        help="Also gather what usually drives the features of this graph (raw, pruned or .json).",
        rich_help_panel=EXAMPLES,
    ),
]
DirectoryArg = Annotated[str, typer.Argument(metavar="DIR", help="Folder of feature examples.")]


def build(
    ctx: typer.Context,
    text: TextOpt,
    output_dir: OutputDirOpt,
    transcoder_set: ask.TranscoderSetOpt = "demo",
    model: ask.ModelOpt = None,
    split: SplitOpt = "auto",
    text_field: TextFieldOpt = "text",
    max_documents: MaxDocumentsOpt = None,
    context: ContextOpt = 32,
    examples: ExamplesOpt = 12,
    quantiles: QuantilesOpt = 5,
    logits: LogitsOpt = 10,
    layers: LayersOpt = None,
    sequence_length: SequenceLengthOpt = 512,
    seed: SeedOpt = 0,
    drivers_of: DriversOfOpt = None,
    dtype: ask.DTypeOpt = "float32",
    device: ask.DeviceOpt = "auto",
    device_map: ask.DeviceMapOpt = None,
    lazy_encoder: ask.LazyEncoderOpt = None,
    lazy_decoder: ask.LazyDecoderOpt = None,
    backend: ask.BackendOpt = "auto",
    offline: ask.OfflineOpt = False,
    resume: ResumeOpt = True,
    verbose: opt.VerboseOpt = False,
    no_progress: opt.NoProgressOpt = False,
    json_: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
) -> None:
    """Make feature examples from text: where each feature is active, what it promotes, and a short label.

    A document is a line of a text file or of stdin, a file of a folder, or a line of a .jsonl file (--split
    says otherwise). Run the same command again to continue an interrupted build.
    """
    output = Output(quiet=quiet)
    silence_libraries(output, verbose=verbose, offline=offline)
    request = request_from(ctx.params, max_n_logits=1)
    from circuit_tracer_cli.features.documents import TextSource
    from circuit_tracer_cli.features.settings import BuildSettings
    from circuit_tracer_cli.pipeline import load_model

    settings = BuildSettings(
        context=context, examples=examples, quantiles=quantiles, logits=logits, layers=_bounds(layers),
        sequence_length=sequence_length, seed=seed,
    )  # fmt: skip
    if drivers_of is not None and text == STREAM:
        raise UsageError("--drivers-of reads the text twice, which stdin can't", "name a file with --text")
    driven = None if drivers_of is None else _features_of(drivers_of)
    with progress_on(output, bars=not no_progress) as progress:
        prepared = _prepared(request, settings, Path(output_dir), output, progress)
        documents = _first_read(TextSource(text, split, text_field).documents())
        loaded = load_model(prepared, progress)
        if driven is not None:
            from circuit_tracer_cli.features.drivers import check_drivable

            check_drivable(loaded)
        summary = _build(
            loaded, documents, output_dir, settings, transcoder_set, max_documents, resume, progress
        )
        if driven is not None:
            again = TextSource(text, split, text_field).documents()
            found = _drivers(
                loaded, again, driven, output_dir, settings, transcoder_set, max_documents, progress
            )
            output.note(f"what usually drives {found:,} of {len(driven):,} features is beside the examples")
    _report(summary, output, as_json=json_)


def _bounds(layers: str | None) -> tuple[int, int] | None:
    if layers is None:
        return None
    first, _, end = layers.partition(":")
    return int(first), int(end)


def _prepared(
    request: TraceRequest, settings: BuildSettings, folder: Path, output: Output, progress: Progress
) -> Prepared:
    """Check the request before weights are read: the set, the model's configuration, the layers, and memory."""
    from circuit_tracer_cli.features.build import memory_needed
    from circuit_tracer_cli.prepare import prepare
    from circuit_tracer_cli.transcoders.references import neuron_reference

    if neuron_reference(request.transcoder_set) is not None:
        raise UnsuitableValue(
            "feature examples of neurons can't be built: nearly every neuron is active at every token, with both signs",
            "name a transcoder set with --transcoder-set; graphs of neurons carry labels from their weights",
        )
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file", "name a folder with --output-dir")
    prepared = prepare(request, progress=progress, n_tokens=2)
    n_layers, d_transcoder = prepared.setup.shape.n_layers, prepared.setup.sizes.d_transcoder
    needed, free = memory_needed(settings, n_layers, d_transcoder), free_memory()
    if needed > free:
        fewer = max(1, len(settings.layer_range(n_layers)) * free // (2 * needed))
        raise OutOfMemory(
            f"collecting examples of these layers takes {size_in_words(needed)} of memory, and {size_in_words(free)} is free",
            f"build a few layers at a time, such as --layers 0:{fewer}, or lower --examples, --quantiles or --context",
        )
    output.note(f"collecting takes {size_in_words(needed)} of memory in addition to model and transcoders")
    return prepared


def _first_read(documents: Iterable[str]) -> Iterable[str]:
    """Return the same documents with the first one read now, so that a wrong path is reported before a model is loaded."""
    rest = iter(documents)
    return chain([next(rest)], rest)


def _build(
    model: ReplacementModel,
    documents: Iterable[str],
    output_dir: str,
    settings: BuildSettings,
    transcoder_set: str,
    max_documents: int | None,
    resume: bool,
    progress: Progress,
) -> BuildSummary:
    from circuit_tracer_cli.features.build import build_features, scan_name

    name = scan_name(model) if model.scan else Path(transcoder_set).name
    return build_features(
        model,
        documents,
        output_dir,
        settings,
        name=name,
        max_documents=max_documents,
        resume=resume,
        progress=progress,
    )


def _drivers(
    model: ReplacementModel,
    documents: Iterable[str],
    wanted: set[tuple[int, int]],
    output_dir: str,
    settings: BuildSettings,
    transcoder_set: str,
    max_documents: int | None,
    progress: Progress,
) -> int:
    from circuit_tracer_cli.features.build import scan_name
    from circuit_tracer_cli.features.drivers import write_drivers

    return write_drivers(
        model,
        documents,
        wanted,
        Path(output_dir),
        name=scan_name(model) if model.scan else Path(transcoder_set).name,
        sequence_length=settings.sequence_length,
        max_documents=max_documents,
        progress=progress,
    )


def _report(summary: BuildSummary, output: Output, *, as_json: bool) -> None:
    if as_json:
        output.data(
            {
                "directory": str(summary.directory),
                "documents": summary.documents,
                "skipped": summary.skipped,
                "tokens": summary.tokens,
                "layers": list(summary.layers),
                "features": summary.features,
                "dead": summary.dead,
                "labelled": summary.labelled,
                "bytes": summary.n_bytes,
            }
        )
        return
    if summary.skipped:
        output.warn(f"{summary.skipped} documents couldn't be tokenized and were skipped")
    output.result(f"text       {summary.documents:,} documents, {summary.tokens:,} tokens")
    output.result(
        f"features   {summary.features:,} in {len(summary.layers)} layers, {summary.dead:,} never active"
    )
    output.result(f"labels     {summary.labelled:,}")
    output.result(f"written    {summary.directory} ({size_in_words(summary.n_bytes)})")
    output.note(f"next: circuit-tracer serve --features-dir {shlex.quote(str(summary.directory))}")


def import_(
    sources: SourcesArg,
    output_dir: OutputDirOpt,
    graph: GraphOpt = None,
    source: SourceOpt = None,
    json_: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
) -> None:
    """Import labels, examples, densities and promoted tokens from other tools, for the viewer to show offline.

    Reads Neuronpedia exports (.jsonl, .jsonl.gz, in any folders) and features from its API (.json), batches of SAE
    dashboards (.json), delphi explanations (layers.12.mlp_latent345.txt), and .csv files with the columns layer,
    feature and label. Other features already in DIR are kept.
    """
    from circuit_tracer_cli.features.imported import FeatureImport

    output = Output(quiet=quiet)
    collected = FeatureImport(None if graph is None else _features_of(graph), source)
    for path in sources:
        collected.read(Path(path))
    summary = collected.write(Path(output_dir))
    if json_:
        output.data(
            {
                "directory": str(summary.directory),
                "layers": list(summary.layers),
                "features": summary.features,
                "labels": summary.labels,
                "examples": summary.examples,
                "statistics": summary.statistics,
                "skipped": summary.skipped,
            }
        )
        return
    output.result(f"features   {summary.features:,} in {len(summary.layers)} layers")
    output.result(f"labels     {summary.labels:,}")
    output.result(f"examples   {summary.examples:,}, statistics of {summary.statistics:,} features")
    output.result(f"written    {summary.directory}")
    if summary.skipped:
        output.note(f"{summary.skipped:,} rows of other features or sources were skipped")
    output.note(f"next: circuit-tracer serve --features-dir {shlex.quote(str(summary.directory))}")


def _features_of(graph: str) -> set[tuple[int, int]]:
    """Layer and number of every feature in a graph. Raises MissingFile, BadGraphFile."""
    if not graph.endswith(".json"):
        from circuit_tracer_cli.cli.destinations import read_graph

        loaded = read_graph(graph)
        chosen = loaded.active_features[loaded.selected_features][:, [0, 2]]
        return {(int(layer), int(feature)) for layer, feature in chosen.tolist()}
    from circuit_tracer_cli.export.graph_json import read_graph_json
    from circuit_tracer_cli.files.inputs import open_regular

    with open_regular(graph) as stream:
        file = read_graph_json(stream.read(), graph)
    names = [node.node_id.split("_") for node in file.nodes]
    return {
        (int(name[0]), int(name[1]))
        for name in names
        if len(name) == 3 and name[0].isdecimal() and name[1].isdecimal()
    }


def info(directory: DirectoryArg, json_: opt.JsonOpt = False) -> None:
    """Summarize a folder of feature examples and show a few of its labels."""
    from circuit_tracer_cli.features.packed import FeatureFiles

    files, output = FeatureFiles(directory), Output()
    about, labels = files.about(), files.labels()
    counts = {layer: files.n_features(layer) for layer in sorted(files.layers)}
    if json_:
        output.data({"directory": directory, "features": counts, "labels": len(labels), "about": about})
        return
    made_from = {
        key: str(about[key]) for key in ("transcoders", "model", "documents", "tokens") if key in about
    }
    for key, value in made_from.items():
        output.result(f"{key:<12} {visible(value)}")
    surest = sorted(labels.items(), key=lambda item: -float(item[1].get("confidence", 0)))
    rows = []
    for layer, count in counts.items():
        mine = [visible(str(label["text"])) for key, label in surest if key.startswith(f"{layer}/")]
        rows.append((str(layer), f"{count:,}", f"{len(mine):,}", ";  ".join(mine[:3])))
    output.table("", ("layer#", "features#", "labels#", "most certain labels"), rows)
