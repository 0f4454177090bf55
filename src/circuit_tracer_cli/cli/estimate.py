"""`estimate`: what a trace would need, before anything is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuit_tracer_cli.cli import attribute_options as own
from circuit_tracer_cli.cli import options as opt
from circuit_tracer_cli.cli.errors import judged_by_files
from circuit_tracer_cli.cli.libraries import set_manners
from circuit_tracer_cli.cli.output import Output
from circuit_tracer_cli.errors import UsageError
from circuit_tracer_cli.files.capacity import size_in_words
from circuit_tracer_cli.planning.sizes import DEFAULT_TOKENS

if TYPE_CHECKING:
    from circuit_tracer_cli.pipeline import Estimate


PromptOpt = Annotated[
    str | None,
    typer.Option(
        "--prompt",
        "-p",
        metavar="TEXT",
        help="The prompt, whose tokens are counted.",
        rich_help_panel=own.PROMPT,
    ),
]
TokensOpt = Annotated[
    int | None,
    typer.Option(
        min=2,
        metavar="N",
        show_default=str(DEFAULT_TOKENS),
        help="Length of the prompt, instead of one.",
        rich_help_panel=own.PROMPT,
    ),
]
ActiveOpt = Annotated[
    float | None,
    typer.Option(
        "--active",
        min=0.001,
        metavar="N",
        show_default="as the set's name says, else 50",
        help="Active features per token and layer.",
        rich_help_panel=own.PROMPT,
    ),
]


def estimate(
    prompt: PromptOpt = None,
    tokens: TokensOpt = None,
    transcoder_set: own.TranscoderSetOpt = "demo",
    model: own.ModelOpt = None,
    active: ActiveOpt = None,
    max_n_logits: own.MaxNLogitsOpt = 10,
    max_feature_nodes: own.MaxFeatureNodesOpt = 7500,
    dtype: own.DTypeOpt = "float32",
    device: own.DeviceOpt = "auto",
    device_map: own.DeviceMapOpt = None,
    lazy_encoder: own.LazyEncoderOpt = None,
    lazy_decoder: own.LazyDecoderOpt = None,
    offload: own.OffloadOpt = "auto",
    offline: own.OfflineOpt = False,
    quiet: opt.QuietOpt = False,
    json_: opt.JsonOpt = False,
) -> None:
    """Say how much memory and time a trace would take, from configurations and file headers alone.

    `attribute` decides by the same plan which weights stay in their files and how large its blocks are.
    """
    if prompt is not None and tokens is not None:
        raise UsageError("--prompt and --tokens both say how long the prompt is", "name one of them")
    output = Output(quiet=quiet)
    own.check_places(device, device_map)
    set_manners(output, offline=offline)
    from circuit_tracer_cli.pipeline import TraceRequest, estimate_trace

    request = TraceRequest(
        prompt=prompt or "", transcoder_set=transcoder_set, model=model, max_n_logits=max_n_logits,
        max_feature_nodes=max_feature_nodes, dtype=own.long_dtype(dtype), device=device,
        device_map=device_map, lazy_encoder=lazy_encoder, lazy_decoder=lazy_decoder, offload=offload, offline=offline,
    )  # fmt: skip
    with judged_by_files():
        found = estimate_trace(request, n_tokens=tokens, active=active)
    if json_:
        output.data(_record(found))
        return
    _print(found, output)


def _record(found: Estimate) -> dict[str, Any]:
    """The estimate as JSON: bytes and seconds."""
    plan = found.plan
    return {
        "tokens": found.sizes.n_pos,
        "active_features": found.sizes.active,
        "feature_nodes": found.sizes.features,
        "nodes": found.sizes.nodes,
        "device": found.device,
        "host_peak_bytes": plan.host_peak,
        "device_peak_bytes": plan.device_peak,
        "host_free_bytes": found.budget.host,
        "device_free_bytes": found.budget.device,
        "scratch_bytes": plan.scratch,
        "devices": [
            {
                "name": device.name,
                "layers": len(device.layers),
                "peak_bytes": plan.device_peaks[device.name],
                "free_bytes": device.free,
            }
            for device in found.budget.devices
        ],
        "fits": plan.fits,
        "held_bytes": plan.held,
        "phase_peak_bytes": plan.phases,
        "seconds": {name: round(value, 4) for name, value in found.seconds.items()},
        "total_seconds": round(sum(found.seconds.values()), 4),
        "lazy_encoder": plan.choices.lazy_encoder,
        "lazy_decoder": plan.choices.lazy_decoder,
        "offload": plan.choices.offload,
        "compute_block": plan.choices.work,
    }


def _print(found: Estimate, output: Output) -> None:
    sizes, plan = found.sizes, found.plan
    output.result(
        f"prompt       {sizes.n_pos:,} {'token' if sizes.n_pos == 1 else 'tokens'}, about {sizes.active:,} active features "
        f"({sizes.active_per_position:g} per token and layer)"
    )
    output.result(f"graph        {sizes.features:,} features, {sizes.nodes:,} nodes")
    where = "memory" if plan.device_peak is None else "host memory"
    output.result(f"{where:<12} {size_in_words(plan.host_peak)} of {size_in_words(found.budget.host)} free")
    for device in found.budget.devices:
        peak = plan.device_peaks[device.name]
        short = "" if peak <= device.free else ", too little"
        output.result(
            f"{device.name:<12} {size_in_words(peak)} of {size_in_words(device.free)} free for {len(device.layers)} layers{short}"
        )
    if plan.device_peak is not None and found.budget.device is not None and not found.budget.devices:
        output.result(
            f"{found.device:<12} {size_in_words(plan.device_peak)} of {size_in_words(found.budget.device)} free"
        )
    if plan.scratch:
        output.result(f"files        {size_in_words(plan.scratch)} in temporary files meanwhile ($TMPDIR)")
    output.result(
        f"time         about {_time(sum(found.seconds.values()))}, and some seconds for the program to start"
    )
    lazy = [
        name
        for name, chosen in (("encoders", plan.choices.lazy_encoder), ("decoders", plan.choices.lazy_decoder))
        if chosen
    ]
    output.result(f"from disk    {' and '.join(lazy) if lazy else 'nothing'}, as needed")
    if plan.choices.offload != "none":
        where = "host memory" if plan.choices.offload == "cpu" else "a temporary file"
        output.result(f"offload      what has done its work waits in {where}")
    output.result()
    rows = [
        (name, size_in_words(plan.phases[name]), _time(found.seconds[name]) if name in found.seconds else "")
        for name in plan.phases
    ]
    output.table("Phases", ("phase", "peak memory", "time"), rows)
    if not plan.fits:
        output.warn(
            "it doesn't fit; a smaller --max-feature-nodes, a 16-bit --dtype or a shorter prompt needs less"
        )


def _time(seconds: float) -> str:
    if seconds < 0.095:
        return f"{max(1, round(seconds * 1000))} ms"
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
