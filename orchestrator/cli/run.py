"""`orchestrator run`: run a job or a file of requests."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import anyio
import typer

from orchestrator.adapters.clock import unix_now
from orchestrator.adapters.progress import progress_for
from orchestrator.apis.client import required_key
from orchestrator.cli import exit_codes
from orchestrator.errors import SettingUnusable
from orchestrator.execution import Report, Way, execute
from orchestrator.jobfile import Job, Overrides, read_job

EXECUTIONS = Path("executions")
LOG_LEVELS = ("debug", "info", "warning", "error")
FAILURES_TOLD = 5


def run(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE", help="A job folder (job.toml and its files) or a .jsonl file."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for the output; a new one under executions/."),
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="Endpoint for lines that name none, e.g. /v1/embeddings.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model for lines that name none.")] = None,
    base_url: Annotated[
        str | None, typer.Option(help="Server to use instead of OPENAI_BASE_URL.")
    ] = None,
    emulator: Annotated[
        bool, typer.Option("--emulator", help="Use a pretend OpenAI: no key, no cost, no network.")
    ] = False,
    rpm: Annotated[float | None, typer.Option(help="Requests per minute of each model.")] = None,
    tpm: Annotated[float | None, typer.Option(help="Tokens per minute of each model.")] = None,
    checks_rpm: Annotated[
        float | None,
        typer.Option(help="Status checks per minute, if they have a limit of their own."),
    ] = None,
    max_in_flight: Annotated[int | None, typer.Option(help="Runs at the same time.")] = None,
    connections: Annotated[int | None, typer.Option(help="Calls at the same time.")] = None,
    tools: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Python file with the tool handlers.")
    ] = None,
    deadline: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="For one request, from its first call to its end."),
    ] = None,
    log_level: Annotated[
        str, typer.Option(help="Least to be written to log.jsonl; debug has every call.")
    ] = "info",
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress and no closing lines.")
    ] = False,
) -> None:
    """Run a job or a file of requests, and write a result for every one of them.

    OPENAI_API_KEY, OPENAI_BASE_URL and OPENAI_ORG_ID are read from the environment.

    Exit codes: 0 all completed, 1 some did not, 2 your mistake (nothing was sent), 3 stopped early,
    130 interrupted.
    """
    if emulator and base_url is not None:
        cure = "Leave out --base-url or --emulator."
        problem = "--emulator brings its own server"
        raise SettingUnusable(name="base_url", value=base_url, problem=problem, cure=cure)
    if log_level not in LOG_LEVELS:
        cure = f"Use one of: {', '.join(LOG_LEVELS)}."
        problem = "there is no such level"
        raise SettingUnusable(name="log_level", value=log_level, problem=problem, cure=cure)
    if not emulator:
        required_key()
    overrides = Overrides(
        url=url,
        model=model,
        rpm=rpm,
        tpm=tpm,
        checks_rpm=checks_rpm,
        max_in_flight=max_in_flight,
        connections=connections,
        tools=tools,
        deadline_seconds=deadline,
    )
    job = read_job(source, overrides)
    progress = progress_for(sys.stderr, name=job.name, quiet=quiet)
    folder = out or _new_folder(job)

    async def all_of_it() -> Report:
        return await execute(
            job,
            folder,
            progress,
            way=Way(base_url=base_url, emulator=emulator),
            log_level=log_level,
        )

    report = anyio.run(all_of_it)
    if not quiet:
        _tell(report)
    raise typer.Exit(_exit_code(report))


def _new_folder(job: Job) -> Path:
    """A folder that does not exist yet; its name says what and when."""
    now = datetime.fromtimestamp(unix_now(), UTC).astimezone()
    name = f"{job.requests.resolve().parent.name if job.source.name == 'job.toml' else job.name}"
    wanted = EXECUTIONS / f"{name}-{now:%Y%m%d-%H%M%S}"
    folder, number = wanted, 2
    while folder.exists():
        folder, number = wanted.with_name(f"{wanted.name}-{number}"), number + 1
    return folder


def _tell(report: Report) -> None:
    summary = report.summary
    outcomes = {name: count for name, count in summary["outcomes"].items() if count}
    if summary["not_started"]:
        outcomes["not started"] = summary["not_started"]
    counted = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in outcomes.items())
    typer.echo(f"{summary['requests']:,} requests: {counted} ({summary['wall_seconds']:.1f} s)")
    for group in summary["failures"][:FAILURES_TOLD]:
        example = f"{group['example_custom_id']}: {group['example_message']}"
        typer.echo(f"  {group['count']:,} {group['outcome']}, {group['code']}; e.g. {example}")
    typer.echo(f"output: {report.folder}")
    if report.stopped is not None:
        typer.echo(f"orchestrator: {report.stopped}", err=True)


def _exit_code(report: Report) -> int:
    if report.interrupted:
        return exit_codes.INTERRUPTED
    if report.stopped is not None:
        return exit_codes.STOPPED_EARLY
    return exit_codes.ALL_COMPLETED if report.all_completed else exit_codes.SOME_DID_NOT
