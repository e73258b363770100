"""One pass over a job: check everything, run it, write results and a summary, mind interrupts.

Order matters: whatever can be wrong with what the user gave is found before the first call.
"""

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, closing, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import msgspec
from openai import AsyncOpenAI
from structlog.typing import FilteringBoundLogger

from orchestrator.adapters.clock import LoopClock
from orchestrator.adapters.log import execution_log
from orchestrator.adapters.prices import has_price, price_of
from orchestrator.adapters.progress import Progress
from orchestrator.adapters.request_file import RequestFile
from orchestrator.adapters.result_file import (
    FOLDER_MODE,
    SUMMARY_NAME,
    ResultFiles,
    prepare_folder,
)
from orchestrator.adapters.tools import Tool, Toolbox, load_tools
from orchestrator.apis.client import make_client, make_local_client
from orchestrator.apis.transport import CallRecord
from orchestrator.core.failures import Cause
from orchestrator.core.model import Outcome, Result, RunError
from orchestrator.core.states import State
from orchestrator.core.tally import Pace, Standing, Tally
from orchestrator.emulator.emulator import Emulator
from orchestrator.emulator.server import serve, unix_now
from orchestrator.errors import (
    ExecutionStopped,
    InputChanged,
    ModelUnpriced,
    OrchestratorError,
    OutputFailed,
    OutputFolderUnusable,
)
from orchestrator.jobfile import Job, emulator_settings
from orchestrator.ports import CallKind
from orchestrator.service import Orchestrator
from orchestrator.version import __version__

LOG_NAME = "log.jsonl"
EXECUTIONS = Path("executions")  # where output folders are made when none was given
SHOW_SECONDS = 0.25
INTERRUPTED = "interrupted"

# A file name has at most 255 bytes, a letter up to 4, and the date has to follow.
NAME_CHARACTERS_MAX = 48

# A server that is being started refuses a call or two; at the usual backoff this is after a few
# seconds, when a person begins to wonder.
CALLS_UNANSWERED_MAX = 4

# Ends the execution in good order; takes the name of what interrupted it. A signal handler may
# call it.
Stop = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Report:
    """How an execution ended."""

    folder: Path
    summary: dict[str, Any]
    interrupted: bool
    stopped: OrchestratorError | None  # why it ended early; its message is for people

    @property
    def all_completed(self) -> bool:
        completed: int = self.summary["outcomes"][Outcome.COMPLETED.value]
        requests: int = self.summary["requests"]
        return completed == requests


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """Where the calls go: to a server by its base url, or to an emulator of our own."""

    base_url: str | None = None
    emulator: bool = False


async def execute(
    job: Job,
    folder: Path | None,
    progress: Progress,
    *,
    way: Way,
    log_level: str = "info",
    warn: Callable[[str], None] = lambda _: None,
    on_ready: Callable[[Stop], None] = lambda _: None,
) -> Report:
    """Run a job from beginning to end, once.

    Args:
        job: What to run and how.
        folder: For the output; made if it is missing. None: a new one under `executions/`.
        progress: Where the standing is shown.
        way: Where the calls go.
        log_level: "debug" has a line in log.jsonl for every call.
        warn: Told in a sentence what a person should know while it runs.
        on_ready: Given the way to end the execution, just before the first call can go out.

    Raises:
        UserMistake: Something given can't be used; nothing was sent.
        InputChanged: The request file was written to while it was checked; nothing was sent.
    """
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(_client(job, way))
        tools = _tools(job)
        requests = stack.enter_context(RequestFile(job.requests, job.defaults))
        found = requests.check()
        _refuse_unpriced(job, found.by_model)
        total = found.requests
        if folder is None:
            folder = _new_folder(job)
        prepare_folder(folder)
        results = stack.enter_context(ResultFiles(folder))
        secrets = [client.api_key]
        log = stack.enter_context(
            execution_log(folder / LOG_NAME, level=log_level, secrets=secrets)
        )
        calls = CallWatch(log, warn, client.base_url.netloc.decode())
        options = asdict(job.settings)
        orchestrator = Orchestrator(client, tools=tools, log=log, on_call=calls.ended, **options)
        stack.enter_context(closing(progress))
        execution = Execution(job, orchestrator, results, progress, log, total)
        summary = await execution.run(requests, on_ready)
        try:
            _write_summary(folder, summary)
        except OutputFailed as error:
            execution.stopped = execution.stopped or error
        return Report(folder, summary, execution.interrupted, execution.stopped)


class Execution:
    """The pass itself, once everything is checked and open."""

    def __init__(
        self,
        job: Job,
        orchestrator: Orchestrator,
        results: ResultFiles,
        progress: Progress,
        log: FilteringBoundLogger,
        total: int,
    ) -> None:
        self.interrupted = False
        self.stopped: OrchestratorError | None = None
        self._job = job
        self._orchestrator = orchestrator
        self._results = results
        self._progress = progress
        self._log = log
        self._total = total
        self._tally = Tally(price_of)
        self._pace = Pace()
        self._looks: deque[tuple[float, int]] = deque()  # when, and how many calls until then
        self._clock = LoopClock()
        self._began_at = self._clock.now()
        self._started_at = datetime.fromtimestamp(self._clock.unix(), UTC)

    async def run(self, requests: RequestFile, on_ready: Callable[[Stop], None]) -> dict[str, Any]:
        """Run every request; the summary."""
        self._log.info("execution.started", source=str(self._job.source), requests=self._total)
        loop = asyncio.get_running_loop()

        def stop(by: str) -> None:
            with suppress(RuntimeError):  # the loop has ended: there is nothing to stop
                loop.call_soon_threadsafe(self._interrupt, by)

        async with self._orchestrator, anyio.create_task_group() as tasks:
            on_ready(stop)
            tasks.start_soon(self._show_standing)
            await self._take_results(requests)
            tasks.cancel_scope.cancel()
        self._progress.show(self._standing())
        self._progress.close()
        summary = self._summary()
        self._log.info("execution.ended", outcomes=summary["outcomes"])
        return summary

    def _interrupt(self, by: str) -> None:
        self.interrupted = True
        self._log.warning("execution.interrupted", signal=by)
        self._orchestrator.stop(f"the execution was interrupted ({by})")

    async def _take_results(self, requests: RequestFile) -> None:
        try:
            async with aclosing(self._orchestrator.run_many(requests)) as results:
                async for result in results:
                    self._take(result)
        except OrchestratorError as error:
            self.stopped = self.stopped or error

    def _take(self, result: Result) -> None:
        # Counted first: it cost what it cost, whether or not it can be written.
        self._tally.count(result)
        try:
            self._results.record(result)
        except OutputFailed as error:
            if self.stopped is None:
                self.stopped = error
                self._log.error("output.failed", path=str(error.path), problem=error.problem)
                # What is in flight comes back as stopped; perhaps its short lines still fit.
                self._orchestrator.stop("the results can't be written any more")

    async def _show_standing(self) -> None:
        while True:
            self._progress.show(self._standing())
            await anyio.sleep(SHOW_SECONDS)

    def _calls_in_the_last_minute(self, now: float, calls: int) -> int:
        looks = self._looks
        looks.append((now, calls))
        while looks[0][0] < now - 60:
            looks.popleft()
        return calls - (looks[0][1] if now - self._began_at > 60 else 0)  # noqa: PLR2004 - a minute

    def _standing(self) -> Standing:
        now = self._clock.now()
        tally, totals = self._tally, self._orchestrator.totals
        calls = self._orchestrator.calls.total()
        self._pace.note(now, tally.ended)
        in_state = totals.in_state
        at_work = in_state[State.RUNNING] + in_state[State.CHECKING] + totals.lines_out
        submitting = max(in_state[State.SUBMITTING] - totals.lines_out, 0)  # not by batch
        at_tools = in_state[State.TOOLS] + in_state[State.ANSWERED] + submitting
        passed = now - self._began_at
        return Standing(
            total=self._total,
            waiting=max(self._total - tally.ended - at_work - at_tools, 0),
            running=at_work,
            tools=at_tools,
            done=tally.done,
            failed=tally.failed,
            calls_per_minute=self._calls_in_the_last_minute(now, calls),
            rpm=self._job.settings.rpm,
            tokens_in=tally.tokens.input_tokens,
            tokens_out=tally.tokens.output_tokens,
            cost_usd=tally.cost_usd,
            seconds_left=self._pace.seconds_left(self._total - tally.ended),
            seconds_passed=passed,
            batches=totals.batches_there,
            answered_in_batches=totals.lines_answered_there,
        )

    def _summary(self) -> dict[str, Any]:
        return self._tally.summary(
            source=str(self._job.source),
            started_at=self._started_at.isoformat(timespec="seconds"),
            version=__version__,
            requests=self._total,
            totals=self._orchestrator.totals,
            calls=self._orchestrator.calls,
            kinds=[kind.value for kind in CallKind],
            tasks_max=self._orchestrator.tasks_max,
            wall_seconds=self._clock.now() - self._began_at,
            stopped=self._why_stopped(),
            budget=self._orchestrator.budget.as_dict(),
        )

    def _why_stopped(self) -> RunError | None:
        match self.stopped:
            case _ if self.interrupted:
                return RunError(INTERRUPTED, "the execution was interrupted")
            case None:
                return None
            case ExecutionStopped():
                return self._orchestrator.stopped
            case OutputFailed():
                return RunError("output_failed", str(self.stopped))
            case InputChanged():
                return RunError("input_changed", str(self.stopped))
            case _:
                return RunError("engine_broken", str(self.stopped))


class CallWatch:
    """Logs every call, and says so once when no call finds a server.

    Args:
        log: Gets a line for each call at level debug.
        warn: Told in a sentence for people.
        server: Host and port, for that sentence.
    """

    def __init__(self, log: FilteringBoundLogger, warn: Callable[[str], None], server: str) -> None:
        self._log = log
        self._warn = warn
        self._server = server
        self._unanswered: int | None = 0  # None: the server was there, or it was said

    def ended(self, record: CallRecord) -> None:
        """A call ended, with or without an answer."""
        self._log.debug(
            "call.ended",
            call_id=record.call_id,
            kind=record.kind.value,
            status=record.status,
            seconds=round(record.seconds, 4),
        )
        if self._unanswered is None:
            return
        if record.status != Cause.NOT_SENT.value:
            self._unanswered = None
            return
        self._unanswered += 1
        if self._unanswered >= CALLS_UNANSWERED_MAX:
            self._log.warning("server.unreachable", server=self._server)
            self._warn(
                f"no connection to {self._server} in {self._unanswered} calls; it goes on trying. "
                "Is the base url right, the server up, the network there? Ctrl-C ends it."
            )
            self._unanswered = None


@asynccontextmanager
async def _client(job: Job, way: Way) -> AsyncIterator[AsyncOpenAI]:
    """The client, closed in the end; with an emulator behind it where that is wanted."""
    async with AsyncExitStack() as stack:
        if way.emulator:
            settings = replace(emulator_settings(job), epoch=unix_now())
            base_url = await stack.enter_async_context(serve(Emulator(settings)))
            client = make_local_client(base_url)
        else:
            client = make_client(way.base_url)
        yield await stack.enter_async_context(client)


def _tools(job: Job) -> Sequence[Tool]:
    """The job's tools, each looked at: what can't be one is found before anything is made."""
    if job.tools is None:
        return ()
    tools = [Tool.of(handler) for handler in load_tools(job.tools)]
    Toolbox(tools)  # refuses two of one name
    return tools


def _refuse_unpriced(job: Job, models: Iterable[str]) -> None:
    """Under a limit of the cost every model has to have a price."""
    unpriced = [model for model in models if not has_price(model)]
    if job.settings.max_cost_usd is not None and unpriced:
        raise ModelUnpriced(models=", ".join(sorted(unpriced)))


def _new_folder(job: Job) -> Path:
    """A folder whose name says what and when; it is made here, so nobody else gets the same."""
    is_bare_file = job.source == job.requests
    what = job.source.stem if is_bare_file else job.source.resolve().parent.name
    what = re.sub(r"[^\w.-]+", "_", what)[:NAME_CHARACTERS_MAX].lstrip(".-") or "job"
    when = datetime.fromtimestamp(unix_now(), UTC).astimezone()
    name = f"{what}-{when:%Y%m%d-%H%M%S}"
    try:
        EXECUTIONS.mkdir(FOLDER_MODE, exist_ok=True)
        for number in count(2):
            folder = EXECUTIONS / name
            with suppress(FileExistsError):
                folder.mkdir(FOLDER_MODE)
                break
            name = f"{what}-{when:%Y%m%d-%H%M%S}-{number}"
    except OSError as error:
        problem = error.strerror or str(error)
        raise OutputFolderUnusable(path=EXECUTIONS, problem=problem) from None
    return folder


def _write_summary(folder: Path, summary: dict[str, Any]) -> None:
    path = folder / SUMMARY_NAME
    try:
        path.touch(mode=0o600)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(summary), indent=2) + b"\n")
    except OSError as error:
        with suppress(OSError):  # half a summary would be taken for one
            path.unlink()
        raise OutputFailed(path=path, problem=error.strerror or str(error)) from None
