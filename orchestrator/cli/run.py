"""`orchestrator run`: run a job or a file of requests."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any

import anyio
import typer

from orchestrator.adapters.progress import Progress, progress_for
from orchestrator.apis.client import required_key, required_webhook_secrets
from orchestrator.apis.webhook_signature import verifier
from orchestrator.cli import exit_codes
from orchestrator.cli.interrupts import Interrupts
from orchestrator.cli.telling import tell, tell_error
from orchestrator.errors import SettingUnusable
from orchestrator.execution import Beginning, Manner, Report, Way, execute
from orchestrator.jobfile import Job, Overrides, read_job

LEAVE, CANCEL = "leave", "cancel"
LOG_LEVELS = ("debug", "info", "warning", "error")
FAILURES_TOLD = 5
CHANGES_TOLD = 3
NO_WEBHOOKS: dict[str, Any] = {"changes": [], "received": {}}
REFUSED = {
    "forged": "not signed with your secret; is OPENAI_WEBHOOK_SECRET that of this endpoint?",
    "stale": "sent more than 5 minutes ago or ahead; is the clock of this machine right?",
}

# What ends an execution again, unless it is told otherwise.
LIMITS = frozenset({"budget_spent", "execution_deadline"})

Source = Annotated[
    Path,
    typer.Argument(
        metavar="SOURCE", help="A job folder (job.toml and its files) or a .jsonl file."
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder for the output; a new one under executions/."),
]
Url = Annotated[
    str | None, typer.Option(help="Endpoint for lines that name none, e.g. /v1/embeddings.")
]
Model = Annotated[str | None, typer.Option(help="Model for lines that name none.")]
BaseUrl = Annotated[str | None, typer.Option(help="Server to use instead of OPENAI_BASE_URL.")]
OnEmulator = Annotated[
    bool, typer.Option("--emulator", help="Use a pretend OpenAI: no key, no cost, no network.")
]
Rpm = Annotated[float | None, typer.Option(help="Requests per minute of each model.")]
Tpm = Annotated[float | None, typer.Option(help="Tokens per minute of each model.")]
ChecksRpm = Annotated[
    float | None, typer.Option(help="Status checks per minute, if they have a limit of their own.")
]
CheckPrice = Annotated[
    float | None,
    typer.Option(
        "--check-price",
        metavar="SECONDS",
        help="Delay that a status check is worth; more makes checks rarer.",
    ),
]
MaxInFlight = Annotated[int | None, typer.Option(help="Runs at the same time.")]
Connections = Annotated[int | None, typer.Option(help="Calls at the same time.")]
Tools = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Python file with the tool handlers.")
]
Deadline = Annotated[
    float | None,
    typer.Option(
        "--deadline", metavar="SECONDS", help="For one request, from its first call to its end."
    ),
]
RunDeadline = Annotated[
    float | None,
    typer.Option(
        "--run-deadline",
        metavar="SECONDS",
        help="For one run, or a turn of it; then it is replaced.",
    ),
]
ExecutionDeadline = Annotated[
    float | None,
    typer.Option("--execution-deadline", metavar="SECONDS", help="For the whole execution."),
]
MaxCost = Annotated[
    float | None,
    typer.Option("--max-cost", metavar="USD", help="Nothing is created that might cost more."),
]
MaxTokens = Annotated[int | None, typer.Option(help="The same, in tokens of all models together.")]
SameFailures = Annotated[
    int | None,
    typer.Option("--same-failures", help="Stop after so many refusals alike in a row; 0: never."),
]
LostCreates = Annotated[
    str | None,
    typer.Option(metavar="RULE", help="retry or give-up: a create whose answer was lost."),
]
Via = Annotated[
    str | None,
    typer.Option(metavar="batch", help="batch: by the Batch API, at half price, within a day."),
]
EnqueuedTokens = Annotated[
    int | None, typer.Option(help="By batch: prompt tokens of a model that may wait.")
]
DirectBelow = Annotated[
    int | None, typer.Option(metavar="LINES", help="By batch: fewer than this go without one.")
]
DeleteFiles = Annotated[
    bool | None,
    typer.Option("--delete-files", help="By batch: remove uploaded files of those that are over."),
]
Webhooks = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="Take webhooks here; OPENAI_WEBHOOK_SECRET is needed."),
]
Fresh = Annotated[
    bool, typer.Option("--fresh", help="Start anew, even if an execution could be gone on with.")
]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Send again what did not complete before.")
]
AcceptChanges = Annotated[
    bool, typer.Option("--accept-changes", help="Go on although lines of the input were changed.")
]
OnInterrupt = Annotated[
    str,
    typer.Option(
        metavar="leave|cancel", help="What becomes of runs on the server when you interrupt."
    ),
]
LogLevel = Annotated[
    str, typer.Option(help="Least to be written to log.jsonl; debug has every call.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no closing lines.")]


def run(
    source: Source,
    out: Out = None,
    url: Url = None,
    model: Model = None,
    base_url: BaseUrl = None,
    emulator: OnEmulator = False,
    rpm: Rpm = None,
    tpm: Tpm = None,
    checks_rpm: ChecksRpm = None,
    check_price_seconds: CheckPrice = None,
    max_in_flight: MaxInFlight = None,
    connections: Connections = None,
    tools: Tools = None,
    deadline_seconds: Deadline = None,
    run_deadline_seconds: RunDeadline = None,
    execution_deadline_seconds: ExecutionDeadline = None,
    max_cost_usd: MaxCost = None,
    max_tokens: MaxTokens = None,
    same_failures_max: SameFailures = None,
    lost_creates: LostCreates = None,
    via: Via = None,
    enqueued_tokens: EnqueuedTokens = None,
    direct_below: DirectBelow = None,
    delete_files: DeleteFiles = None,
    webhooks: Webhooks = None,
    fresh: Fresh = False,
    retry_failed: RetryFailed = False,
    accept_changes: AcceptChanges = False,
    on_interrupt: OnInterrupt = LEAVE,
    log_level: LogLevel = "info",
    quiet: Quiet = False,
) -> None:
    """Run a job or a file of requests, and write a result for every one of them.

    An execution that did not end, whatever ended the process, is gone on with by the same command.

    OPENAI_API_KEY, OPENAI_BASE_URL and OPENAI_ORG_ID are read from the environment, and with
    --webhooks OPENAI_WEBHOOK_SECRET.

    Exit codes: 0 all completed, 1 some did not, 2 your mistake (nothing was sent), 3 stopped early,
    130 interrupted.
    """
    said = locals()  # what overrides a setting is a parameter of the same name
    way = _way(base_url, emulator=emulator)
    _check_one_of("log_level", log_level, LOG_LEVELS)
    _check_one_of("on_interrupt", on_interrupt, (LEAVE, CANCEL))
    if fresh and (retry_failed or accept_changes):
        problem = "it starts anew, and --retry-failed and --accept-changes go on"
        raise SettingUnusable(name="fresh", value=fresh, problem=problem, cure="Leave one out.")
    overrides = Overrides(**{field.name: said[field.name] for field in fields(Overrides)})
    job = read_job(source, overrides)
    if job.listen is not None and not emulator:
        way = replace(way, webhook_secrets=required_webhook_secrets())
        verifier(way.webhook_secrets)  # what can't be one is told before anything is made
    beginning = Beginning(
        out=out, fresh=fresh, retry_failed=retry_failed, accept_changes=accept_changes
    )
    cancels = on_interrupt == CANCEL
    report = _run(job, beginning, way, log_level, quiet=quiet, cancel_on_interrupt=cancels)
    if not quiet:
        _tell_end(report)
    if report.stopped is not None:
        tell_error(str(report.stopped))
    raise typer.Exit(_exit_code(report))


def _check_one_of(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        cure = f"Use one of: {', '.join(known)}."
        raise SettingUnusable(name=name, value=value, problem="there is no such choice", cure=cure)


def _way(base_url: str | None, *, emulator: bool) -> Way:
    """Where the calls go; the first thing to be known, because a key may be missing."""
    if not emulator:
        required_key()
    problem = cure = ""
    if emulator and base_url is not None:
        problem = "--emulator brings its own server"
        cure = "Leave out --base-url or --emulator."
    elif base_url is not None and not base_url.strip():
        # Not taken for left out: whoever wrote it did not mean the default server.
        problem, cure = "it is blank", "Give the server's address, or leave out --base-url."
    if problem:
        raise SettingUnusable(name="base_url", value=base_url, problem=problem, cure=cure)
    return Way(base_url=base_url, emulator=emulator)


def _run(
    job: Job,
    beginning: Beginning,
    way: Way,
    log_level: str,
    *,
    quiet: bool,
    cancel_on_interrupt: bool,
) -> Report:
    # Without a standard error there is nobody to show anything to.
    progress = progress_for(sys.stderr, name=job.name, quiet=quiet or sys.stderr is None)

    async def whole_execution() -> Report:
        return await execute(
            job,
            beginning,
            progress,
            Manner(
                cancel_on_interrupt=cancel_on_interrupt,
                log_level=log_level,
                tell=_unheard if quiet else tell,
                warn=_unheard if quiet else tell_error,
                on_ready=interrupts.ready,
            ),
            way=way,
        )

    with Interrupts(lambda: _give_up(progress)) as interrupts:
        try:
            return anyio.run(whole_execution)
        except KeyboardInterrupt:
            tell_error("interrupted. Nothing was sent.")
            raise typer.Exit(exit_codes.INTERRUPTED) from None


def _unheard(text: str) -> None:
    pass


def _give_up(progress: Progress) -> None:
    """The last words after a second Ctrl-C; a terminal is left as it was."""
    progress.close()
    tell_error(
        "interrupted again, ended at once. The same command goes on; "
        "calls that were out may be paid without a result."
    )


def _tell_end(report: Report) -> None:
    summary = report.summary
    outcomes = {name: count for name, count in summary["outcomes"].items() if count}
    if summary["not_started"]:
        outcomes["not started"] = summary["not_started"]
    counted = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in outcomes.items())
    tell(f"{summary['requests']:,} requests: {counted} ({summary['wall_seconds']:.1f} s)")
    failures = [group for group in summary["failures"] if group["outcome"] != "stopped"]
    for group in failures[:FAILURES_TOLD]:
        example = f"{group['example_custom_id']}: {group['example_message']}"
        tell(f"  {group['count']:,} {group['outcome']}, {group['code']}; e.g. {example}")
    for said in _worth_knowing(summary):
        tell(f"  {said}")
    tell(f"output: {report.folder}")


def _worth_knowing(summary: dict[str, Any]) -> Iterator[str]:
    """What a person must not overlook, also when all completed."""
    batches = summary["batches"]
    if batches["created"]:
        undone = f", {n:,} left undone" if (n := batches["lines_undone"]) else ""
        number = "1 batch" if batches["created"] == 1 else f"{batches['created']:,} batches"
        yield (
            f"{number}: {batches['lines_sent']:,} lines sent, "
            f"{batches['lines_answered']:,} answered{undone}"
        )
    webhooks = summary["webhooks"] or NO_WEBHOOKS
    for verdict, problem in REFUSED.items():
        if count := webhooks["received"].get(verdict, 0):
            yield f"webhooks: {count:,} were refused, {problem}"
    for change in webhooks["changes"][:CHANGES_TOLD]:
        heard = "arrive again" if change["are_heard"] else "do not arrive, so its runs were polled"
        family = change["family"].replace("_", " ")
        yield f"webhooks ({family}): after {change['seconds']:.0f} s they {heard}: {change['why']}"
    if failures := summary["tool_failures"]:
        yield f"{failures:,} tool calls failed; the model was told, log.jsonl has the reasons"
    if (budget := summary["budget"]) is not None:
        yield f"budget: {_spent(budget)}"
    if lost := summary["creates_lost"]:
        yield (
            f"{lost:,} answers were lost on the way: that work may be paid for without a result; "
            "tokens and cost are the least it was (answers_lost in the result lines)"
        )
    if left := batches["left"]:
        goes, more = ("batch goes", "") if len(left) == 1 else ("batches go", ", ...")
        yield f"{len(left):,} {goes} on on the server: {left[0]}{more}; summary.json has all ids"
    if left := summary["outcomes"]["stopped"] + summary["not_started"]:
        stopped = (summary["stopped"] or {}).get("code")
        limit = ", once its limit is higher" if stopped in LIMITS else ""
        yield f"{left:,} requests are left; the same command, without --fresh, goes on{limit}"


def _spent(budget: dict[str, Any]) -> str:
    usd, tokens = budget["max_cost_usd"], budget["max_tokens"]
    parts = [] if usd is None else [f"{budget['spent_usd']:,.4g} of {usd:,g} USD"]
    parts += [] if tokens is None else [f"{budget['spent_tokens']:,} of {tokens:,} tokens"]
    assumed = budget["assumed_tokens"]
    lost = f" ({assumed:,} tokens assumed for lost answers)" if assumed else ""
    return f"{' and '.join(parts)} spent{lost}"


def _exit_code(report: Report) -> int:
    if report.interrupted:
        return exit_codes.INTERRUPTED
    if report.stopped is not None:
        return exit_codes.STOPPED_EARLY
    return exit_codes.ALL_COMPLETED if report.all_completed else exit_codes.SOME_DID_NOT
