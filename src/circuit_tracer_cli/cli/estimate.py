"""`estimate`: the memory and time that a trace would need, without loading anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuit_tracer_cli.cli import options as opt
from circuit_tracer_cli.cli import request_options as ask
from circuit_tracer_cli.cli.libraries import silence_libraries
from circuit_tracer_cli.cli.output import Output
from circuit_tracer_cli.cli.request_options import request_from
from circuit_tracer_cli.errors import UsageError
from circuit_tracer_cli.files.capacity import size_in_words
from circuit_tracer_cli.planning.sizes import DEFAULT_L0, DEFAULT_TOKENS, USUAL_RANGE, USUAL_SHARE

if TYPE_CHECKING:
    from circuit_tracer_cli.planning import Budget, MemoryPlan, TraceSizes
    from circuit_tracer_cli.request import TraceRequest


PromptOpt = Annotated[
    str | None,
    typer.Option(
        "--prompt",
        "-p",
        metavar="TEXT",
        help="The prompt; only its number of tokens matters.",
        rich_help_panel=ask.PROMPT,
    ),
]
TokensOpt = Annotated[
    int | None,
    typer.Option(
        min=2,
        metavar="N",
        show_default=str(DEFAULT_TOKENS),
        help="Length of the prompt in tokens, instead of --prompt.",
        rich_help_panel=ask.PROMPT,
    ),
]
ActiveOpt = Annotated[
    float | None,
    typer.Option(
        "--active",
        min=0.001,
        metavar="N",
        show_default="as the set says, else 50 or 1 % of its features",
        help="Active features per token and layer.",
        rich_help_panel=ask.PROMPT,
    ),
]


def estimate(
    ctx: typer.Context,
    prompt: PromptOpt = None,
    tokens: TokensOpt = None,
    transcoder_set: ask.TranscoderSetOpt = "demo",
    model: ask.ModelOpt = None,
    active: ActiveOpt = None,
    max_n_logits: ask.MaxNLogitsOpt = 10,
    max_feature_nodes: ask.MaxFeatureNodesOpt = 7500,
    dtype: ask.DTypeOpt = "float32",
    precision: ask.PrecisionOpt = "float32",
    device: ask.DeviceOpt = "auto",
    device_map: ask.DeviceMapOpt = None,
    lazy_encoder: ask.LazyEncoderOpt = None,
    lazy_decoder: ask.LazyDecoderOpt = None,
    offload: ask.OffloadOpt = "auto",
    offline: ask.OfflineOpt = False,
    quiet: opt.QuietOpt = False,
    json_: opt.JsonOpt = False,
) -> None:
    """Estimate how much memory and time a trace takes, from configurations and file headers alone.

    `attribute` uses the same plan to decide which weights stay on disk and how large its blocks are.
    """
    if prompt is not None and tokens is not None:
        raise UsageError("--prompt and --tokens both set the prompt's length", "use one of them")
    output = Output(quiet=quiet)
    silence_libraries(output, offline=offline)
    request = request_from(ctx.params)
    found = _estimated(request, tokens, active)
    if json_:
        output.data(_record(found))
        return
    _print(found, output)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a trace would need, and what is available."""

    sizes: TraceSizes
    plan: MemoryPlan
    budget: Budget
    seconds: dict[str, float]  # by phase
    device: str
    active_said_by: str | None  # `--active`, or the part of the set that reports it


def _estimated(request: TraceRequest, n_tokens: int | None, active: float | None) -> Estimate:
    """Return memory and time of a request, from configurations and headers. Raises CircuitTracerError, as `prepare` does."""
    from circuit_tracer_cli.planning import plan_time
    from circuit_tracer_cli.planning.rates import measure_rates
    from circuit_tracer_cli.prepare import prepare

    prepared = prepare(request, n_tokens=n_tokens, active=active)
    placement, sizes, plan = prepared.setup.placement, prepared.sizes, prepared.plan
    seconds = plan_time(sizes, plan.choices, measure_rates(str(placement.first)))
    said_by = "--active" if active is not None else prepared.setup.sizes.active_said_by
    return Estimate(sizes, plan, prepared.budget, seconds, str(placement), said_by)


def _record(found: Estimate) -> dict[str, Any]:
    """Return the estimate for JSON, in bytes and seconds."""
    plan = found.plan
    return {
        "tokens": found.sizes.n_pos,
        "active_features": found.sizes.active,
        "active_per_position": found.sizes.active_per_position,
        "active_per_position_known": found.active_said_by is not None,
        "active_per_position_from": found.active_said_by or "a guess",
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
    if found.active_said_by is not None:
        output.result(f"according to {_whose(found.active_said_by)}")
    else:
        least, most = (round(count * sizes.n_layers * max(0, sizes.n_pos - 1)) for count in USUAL_RANGE)
        output.result(
            f"             a guess, since the set doesn't say: {USUAL_SHARE:.0%} of its features, at most {DEFAULT_L0:g}"
        )
        output.result(
            f"             most sets: {USUAL_RANGE[0]:g} to {USUAL_RANGE[1]:g}, here {least:,} to {most:,}; see --active"
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
        output.result(
            f"files        {size_in_words(plan.scratch)} in temporary files during the trace ($TMPDIR)"
        )
    output.result(
        f"time         about {_time(sum(found.seconds.values()))}, plus a few seconds to start the program"
    )
    lazy = [
        name
        for name, chosen in (("encoders", plan.choices.lazy_encoder), ("decoders", plan.choices.lazy_decoder))
        if chosen
    ]
    output.result(f"from disk    {' and '.join(lazy) if lazy else 'nothing'}, as needed")
    if plan.choices.offload != "none":
        where = "host memory" if plan.choices.offload == "cpu" else "a temporary file"
        output.result(f"offload      weights move to {where} once they are no longer needed")
    output.result()
    rows = [
        (name, size_in_words(plan.phases[name]), _time(found.seconds[name]) if name in found.seconds else "")
        for name in plan.phases
    ]
    output.table("Phases", ("phase", "peak memory", "time"), rows)
    if not plan.fits:
        output.warn("it doesn't fit; use a smaller --max-feature-nodes, a 16-bit --dtype or a shorter prompt")


def _whose(said_by: str) -> str:
    return said_by if said_by.startswith("-") else f"the set: {said_by}"


def _time(seconds: float) -> str:
    if seconds < 0.095:
        return f"{max(1, round(seconds * 1000))} ms"
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
