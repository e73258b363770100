"""`orchestrator compare-policies`: what polling would have cost on recorded durations."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from orchestrator.cli.telling import tell
from orchestrator.core.polling import Polling
from orchestrator.errors import SettingUnusable
from orchestrator.traces import (
    Assumptions,
    Comparison,
    Costs,
    Trace,
    check_plot,
    compare,
    costs_of,
    costs_of_webhooks,
    plot,
    read_trace,
)

WEBHOOKS = "webhooks"

UNSAID, UNSAID_POLLING = Assumptions(), Polling()

TraceFile = Annotated[
    Path, typer.Argument(metavar="TRACE", help="A CSV file, or the folder of an execution.")
]
Column = Annotated[
    str | None, typer.Option(metavar="NAME", help="The column with the seconds (_ms: with ms).")
]
Key = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="Learn apart what differs here, as models do.")
]
LeaveOut = Annotated[
    str | None, typer.Option(metavar="COLUMN=VALUE", help="Leave out the rows that have this.")
]
SkipFirst = Annotated[
    int, typer.Option(metavar="RUNS", min=0, help="Of each key: learn from them, don't count them.")
]
BackoffCap = Annotated[
    float, typer.Option(metavar="SECONDS", help="The longest gap of the backoff.")
]
RunsPerMinute = Annotated[float, typer.Option(help="The load, for calls, machines and money.")]
CpuMs = Annotated[float, typer.Option(help="CPU time of a call, in milliseconds.")]
CpuHour = Annotated[float, typer.Option(metavar="USD", help="The price of a CPU for an hour.")]
Endpoint = Annotated[
    float, typer.Option(metavar="USD", help="The price of an address for webhooks, for a month.")
]
PlotFile = Annotated[
    Path | None,
    typer.Option("--plot", metavar="FILE", help="Draw a plot too, a .png or .svg."),
]
AsJson = Annotated[bool, typer.Option("--json", help="As one JSON object, for programs.")]


def compare_policies(
    trace: TraceFile,
    column: Column = None,
    key: Key = None,
    leave_out: LeaveOut = None,
    skip_first: SkipFirst = 0,
    backoff_cap: BackoffCap = UNSAID_POLLING.gap_seconds_max,
    runs_per_minute: RunsPerMinute = UNSAID.runs_per_minute,
    cpu_ms_per_call: CpuMs = UNSAID.cpu_ms_per_call,
    usd_per_cpu_hour: CpuHour = UNSAID.usd_per_cpu_hour,
    endpoint_usd_per_month: Endpoint = UNSAID.endpoint_usd_per_month,
    plot_file: PlotFile = None,
    as_json: AsJson = False,
) -> None:
    """Compare ways of polling on durations that were recorded.

    The runs are replayed one after the other. The learned policy begins with nothing, and sees only
    whether a run has ended at each check; its dial, the price of a check, and that of the offline
    optimum are set by search so that their mean delay is at most that of the backoff. The optimum
    knows the distribution of each key beforehand, so nothing that stays the same does better.

    Exit codes: 0 told, 2 your mistake.
    """
    assumed = Assumptions(
        runs_per_minute=_positive("runs_per_minute", runs_per_minute),
        cpu_ms_per_call=_positive("cpu_ms_per_call", cpu_ms_per_call),
        usd_per_cpu_hour=_positive("usd_per_cpu_hour", usd_per_cpu_hour),
        endpoint_usd_per_month=_positive("endpoint_usd_per_month", endpoint_usd_per_month),
    )
    polling = Polling(gap_seconds_max=_positive("backoff_cap", backoff_cap, least=0.1))
    if plot_file is not None:
        check_plot(plot_file)
    read = read_trace(trace, column=column, key=key, leave_out=leave_out)
    comparison = compare(read, polling, skip=skip_first, curves=plot_file is not None)
    if not comparison.runs:
        problem, cure = "no run is left to be counted", "Give a smaller number."
        raise SettingUnusable(name="skip_first", value=skip_first, problem=problem, cure=cure)
    costs = {each.policy: costs_of(each.checks_per_run, assumed) for each in comparison.figures}
    costs[WEBHOOKS] = costs_of_webhooks(assumed)
    if plot_file is not None:
        plot(comparison, f"{trace.name}: {comparison.runs:,} runs", plot_file)
    if as_json:
        tell(_as_json(trace, read, comparison, costs, assumed))
        return
    for line in _lines(trace, read, comparison, costs, assumed):
        tell(line)
    if plot_file is not None:
        tell(f"plot: {plot_file}")


def _positive(name: str, value: float, least: float = 1e-6) -> float:
    if not least <= value < float("inf"):
        problem = f"it must be a number from {least:g} on"
        raise SettingUnusable(name=name, value=value, problem=problem, cure="")
    return value


def _as_json(
    path: Path,
    trace: Trace,
    comparison: Comparison,
    costs: dict[str, Costs],
    assumed: Assumptions,
) -> str:
    told = {
        "trace": str(path),
        "column": trace.column,
        "runs": comparison.runs,
        "keys": comparison.keys,
        "left_out": trace.left_out,
        "policies": [asdict(each) | asdict(costs[each.policy]) for each in comparison.figures],
        WEBHOOKS: asdict(costs[WEBHOOKS]),
        "assumptions": asdict(assumed),
    }
    return msgspec.json.encode(told).decode()


def _lines(
    path: Path,
    trace: Trace,
    comparison: Comparison,
    costs: dict[str, Costs],
    assumed: Assumptions,
) -> Iterator[str]:
    left_out = f", {trace.left_out:,} left out" if trace.left_out else ""
    keys = f", {comparison.keys:,} keys" if comparison.keys > 1 else ""
    yield f"{path}: {comparison.runs:,} runs by {trace.column}{keys}{left_out}"
    yield ""
    yield (
        f"{'policy':<16} {'checks':>8} {'delay':>8} {'p50':>8} {'p95':>8} {'price':>8} "
        f"{'calls':>9} {'CPUs':>8} {'USD':>9} {'webhooks pay':>13}"
    )
    yield (
        f"{'':<16} {'per run':>8} {'mean s':>8} {'s':>8} {'s':>8} {'s':>8} "
        f"{'/ min':>9} {'busy':>8} {'/ month':>9} {'runs/month':>13}"
    )
    for each in comparison.figures:
        price = each.check_price_seconds
        yield (
            f"{each.policy:<16} {each.checks_per_run:>8.2f} {each.delay_mean_seconds:>8.3f} "
            f"{each.delay_p50_seconds:>8.3f} {each.delay_p95_seconds:>8.3f} "
            f"{'' if price is None else format(price, '.3g'):>8} {_costs(costs[each.policy])}"
        )
    yield f"{WEBHOOKS:<16} {1:>8.2f} {'':>35} {_costs(costs[WEBHOOKS], is_polling=False)}"
    yield ""
    yield (
        f"assumed: {assumed.runs_per_minute:g} runs a minute, {assumed.cpu_ms_per_call:g} ms of "
        f"CPU a call, {assumed.usd_per_cpu_hour:g} USD a CPU hour, "
        f"{assumed.endpoint_usd_per_month:g} USD a month for an address; an event takes as much "
        "work as a call, and one call fetches its run"
    )
    yield (
        "price: the dial, a check's worth in seconds of delay, as found for a mean delay of the "
        "backoff's; `orchestrator run --check-price` sets it"
    )


def _costs(costs: Costs, *, is_polling: bool = True) -> str:
    runs = costs.break_even_runs_per_month
    even = "" if not is_polling else "never" if runs is None else f"{runs:,.0f}"
    return (
        f"{costs.calls_per_minute:>9,.0f} {costs.machines:>8.4f} {costs.usd_per_month:>9,.2f} "
        f"{even:>13}"
    )
