"""One pass over a job: check everything, run it, write results and a summary, mind interrupts.

Order matters: whatever can be wrong with what the user gave is found before the first call.
"""

import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import msgspec
from openai import AsyncOpenAI
from structlog.typing import FilteringBoundLogger

from orchestrator.adapters.clock import LoopClock
from orchestrator.adapters.log import execution_log
from orchestrator.adapters.prices import price_of
from orchestrator.adapters.progress import Progress
from orchestrator.adapters.request_file import RequestFile
from orchestrator.adapters.result_file import SUMMARY_NAME, ResultFiles, prepare_folder
from orchestrator.adapters.tools import load_tools
from orchestrator.apis.client import make_client, make_local_client
from orchestrator.apis.transport import CallRecord
from orchestrator.core.model import Outcome, RunError
from orchestrator.core.states import State
from orchestrator.core.tally import Pace, Standing, Tally
from orchestrator.emulator.emulator import Emulator
from orchestrator.emulator.server import serve, unix_now
from orchestrator.errors import ExecutionStopped, OutputFailed
from orchestrator.jobfile import Job, emulator_settings
from orchestrator.ports import CallKind
from orchestrator.service import Orchestrator
from orchestrator.version import __version__

LOG_NAME = "log.jsonl"
SHOW_SECONDS = 0.25
INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class Report:
    """How an execution ended."""

    folder: Path
    summary: dict[str, Any]
    interrupted: bool
    stopped: ExecutionStopped | None

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
    job: Job, folder: Path, progress: Progress, *, way: Way, log_level: str = "info"
) -> Report:
    """Run a job from beginning to end, once.

    Args:
        job: What to run and how.
        folder: For the output; made if it is missing.
        progress: Where the standing is shown.
        way: Where the calls go.
        log_level: "debug" has a line in log.jsonl for every call.

    Raises:
        UserMistake: Something given can't be used; nothing was sent.
        OutputFailed: The results can't be written any more.
    """
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(_client(job, way))
        tools = load_tools(job.tools) if job.tools is not None else []
        requests = stack.enter_context(RequestFile(job.requests, job.defaults))
        total = requests.check().requests
        files = ExitStack()
        prepare_folder(folder)
        results = files.enter_context(ResultFiles(folder))
        secrets = [client.api_key]
        log = files.enter_context(
            execution_log(folder / LOG_NAME, level=log_level, secrets=secrets)
        )
        with files:
            orchestrator = Orchestrator(
                client,
                tools=tools,
                log=log,
                on_call=_call_logger(log),
                **asdict(job.settings),
            )
            execution = Execution(job, orchestrator, results, progress, log, total)
            report = await execution.run(requests)
            _write_summary(folder, report)
            return Report(folder, report, execution.interrupted, execution.stopped)


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
        self.stopped: ExecutionStopped | None = None
        self._job = job
        self._orchestrator = orchestrator
        self._results = results
        self._progress = progress
        self._log = log
        self._total = total
        self._tally = Tally(price_of)
        self._pace = Pace()
        self._clock = LoopClock()
        self._began_at = self._clock.now()
        self._started_at = datetime.fromtimestamp(self._clock.unix(), UTC)

    async def run(self, requests: RequestFile) -> dict[str, Any]:
        """Run every request; the summary."""
        self._log.info("execution.started", source=str(self._job.source), requests=self._total)
        async with self._orchestrator, anyio.create_task_group() as tasks:
            tasks.start_soon(self._show_standing)
            tasks.start_soon(self._mind_signals, tasks.cancel_scope)
            await self._take_results(requests)
            tasks.cancel_scope.cancel()
        self._progress.show(self._standing())
        self._progress.close()
        summary = self._summary()
        self._log.info("execution.ended", outcomes=summary["outcomes"])
        return summary

    async def _take_results(self, requests: RequestFile) -> None:
        try:
            async for result in self._orchestrator.run_many(requests):
                self._results.record(result)
                self._tally.count(result)
        except ExecutionStopped as stopped:
            self.stopped = stopped

    async def _mind_signals(self, scope: anyio.CancelScope) -> None:
        """The first signal ends the execution in good order, the second at once."""
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for number in signals:
                if self.interrupted:
                    scope.cancel()
                    return
                self.interrupted = True
                self._log.warning("execution.interrupted", signal=number.name)
                self._orchestrator.stop(f"the execution was interrupted ({number.name})")

    async def _show_standing(self) -> None:
        while True:
            self._progress.show(self._standing())
            await anyio.sleep(SHOW_SECONDS)

    def _standing(self) -> Standing:
        now = self._clock.now()
        tally, totals = self._tally, self._orchestrator.totals
        calls = self._orchestrator.calls.total()
        self._pace.note(now, tally.ended)
        in_state = totals.in_state
        at_work = in_state[State.RUNNING] + in_state[State.CHECKING]
        at_tools = in_state[State.TOOLS] + in_state[State.ANSWERED] + in_state[State.SUBMITTING]
        passed = now - self._began_at
        return Standing(
            total=self._total,
            waiting=max(self._total - tally.ended - at_work - at_tools, 0),
            running=at_work,
            tools=at_tools,
            done=tally.done,
            failed=tally.failed,
            calls_per_minute=calls / passed * 60 if passed > 0 else 0.0,
            rpm=self._job.settings.rpm,
            tokens_in=tally.tokens.input_tokens,
            tokens_out=tally.tokens.output_tokens,
            cost_usd=tally.cost_usd,
            seconds_left=self._pace.seconds_left(self._total - tally.ended),
            seconds_passed=passed,
        )

    def _summary(self) -> dict[str, Any]:
        stopped = self._orchestrator.stopped
        if self.interrupted:
            stopped = RunError(INTERRUPTED, "the execution was interrupted")
        elif self.stopped is None:
            stopped = None
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
            stopped=stopped,
        )


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


def _call_logger(log: FilteringBoundLogger) -> Any:
    def told(record: CallRecord) -> None:
        log.debug(
            "call.ended",
            call_id=record.call_id,
            kind=record.kind.value,
            status=record.status,
            seconds=round(record.seconds, 4),
        )

    return told


def _write_summary(folder: Path, summary: dict[str, Any]) -> None:
    path = folder / SUMMARY_NAME
    try:
        path.touch(mode=0o600)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(summary), indent=2) + b"\n")
    except OSError as error:
        raise OutputFailed(path=path, problem=error.strerror or str(error)) from None
