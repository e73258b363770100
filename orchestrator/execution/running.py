"""The pass itself, once everything is checked and open."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from types import MappingProxyType
from typing import Any

import anyio
from structlog.typing import FilteringBoundLogger

from orchestrator.adapters.clock import LoopClock
from orchestrator.adapters.journal import InThread, Journal
from orchestrator.adapters.prices import price_of
from orchestrator.adapters.progress import Progress
from orchestrator.adapters.result_file import result_line
from orchestrator.adapters.webhook import Verdict, serve_webhooks
from orchestrator.core.budget import costs_of
from orchestrator.core.model import Outcome, Request, Result, RunError
from orchestrator.core.pace import Pace, Standing
from orchestrator.core.states import State
from orchestrator.core.tally import Tally
from orchestrator.core.totals import webhooks_as_dict
from orchestrator.errors import (
    ExecutionStopped,
    InputChanged,
    JournalFailed,
    OrchestratorError,
    OutputFailed,
)
from orchestrator.execution.counts import Counts
from orchestrator.execution.opening import Opened
from orchestrator.jobfile import Job
from orchestrator.ports import CallKind
from orchestrator.service import Orchestrator
from orchestrator.version import __version__

SHOW_SECONDS = 0.25
INTERRUPTED = "interrupted"

# What stopped an execution, for programs that read its summary.
CODES: Mapping[type[OrchestratorError], str] = MappingProxyType(
    {
        OutputFailed: "output_failed",
        JournalFailed: "journal_failed",
        InputChanged: "input_changed",
    }
)
BROKEN = "engine_broken"

# Ends the execution in good order; takes the name of what interrupted it. A signal handler may
# call it.
Stop = Callable[[str], None]

# Calls that are out when an execution is interrupted may take so long to be answered. Docker gives
# a container ten seconds between SIGTERM and SIGKILL.
PATIENCE_SECONDS = 8.0


class Execution:
    """The pass itself, once everything is checked and open.

    Args:
        job: What is run.
        opened: What was found out about it, and is open.
        orchestrator_with: Makes what runs the requests, and keeps a journal meanwhile.
        progress: Where the standing is shown.
        log: Gets the beginning and the end, and what stops it.
        in_thread: Where the journal is written; in a thread unless given.
    """

    def __init__(
        self,
        job: Job,
        opened: Opened,
        orchestrator_with: Callable[[Journal], Orchestrator],
        progress: Progress,
        log: FilteringBoundLogger,
        in_thread: InThread | None = None,
    ) -> None:
        self.interrupted = False
        self.stopped: OrchestratorError | None = None
        self._job = job
        self._opened = opened
        self._progress = progress
        self._log = log
        self._cancel_on_interrupt = False
        self._warn: Callable[[str], None] = self._log.warning
        self._total = opened.facts.requests
        self._before = opened.counts
        self._calls_before = self._before.counted_calls()
        self._tally = Tally(price_of)
        for group in opened.ended:
            self._tally.count_before(group)
        self._pace = Pace()
        self._looks: deque[tuple[float, int]] = deque()  # when, and how many calls until then
        self._lines: dict[int, bytes] = {}  # of results that the journal is being told of
        self._warned_of_forged = False
        self._clock = LoopClock()
        self._began_at = self._clock.now()
        self._journal = Journal(
            opened.journal,
            self._clock,
            line_of=self._line_of,
            costs_of=partial(costs_of, price_of),
            sync=opened.results.sync,
            counts=self.counts,
            on_full=self.disk_full,
            in_thread=in_thread,
        )
        self._orchestrator = orchestrator_with(self._journal)

    async def run(
        self,
        on_ready: Callable[[Stop], None],
        warn: Callable[[str], None],
        tell: Callable[[str], None],
        *,
        cancel_on_interrupt: bool,
    ) -> dict[str, Any]:
        """Run every request that is left; the summary.

        Args:
            on_ready: Given the way to end it, just before the first call can go out.
            warn: Told in a sentence what a person should know meanwhile.
            tell: Told in a sentence where webhooks are taken.
            cancel_on_interrupt: Whether what is in flight is cancelled on the server then.
        """
        self._cancel_on_interrupt, self._warn = cancel_on_interrupt, warn
        self._log.info(
            "execution.started",
            source=str(self._job.source),
            requests=self._total,
            ended_before=self._tally.ended,
            in_flight_before=len(self._opened.past.in_flight) if self._opened.past else 0,
        )
        loop = asyncio.get_running_loop()

        def stop(by: str) -> None:
            with suppress(RuntimeError):  # the loop has ended: there is nothing to stop
                loop.call_soon_threadsafe(self._interrupt, by)

        async with (
            self._takes_webhooks(tell),
            self._orchestrator,
            anyio.create_task_group() as tasks,
        ):
            on_ready(stop)
            tasks.start_soon(self._show_standing)
            await self._take_results(self._opened.left)
            tasks.cancel_scope.cancel()
        try:
            self._journal.close()
        except JournalFailed as error:
            self.stopped = self.stopped or error
        # While what is out is waited for, nobody else hears of it.
        self.stopped = self.stopped or self._journal.failed
        self._progress.show(self._standing())
        self._progress.close()
        summary = self._summary()
        self._log.info("execution.ended", outcomes=summary["outcomes"])
        return summary

    @asynccontextmanager
    async def _takes_webhooks(self, tell: Callable[[str], None]) -> AsyncIterator[None]:
        """Take them where the job says, if it does."""
        listen = self._job.listen
        if listen is None:
            yield
            return
        app = self._orchestrator.webhook_app
        async with serve_webhooks(app, listen.host, listen.port) as url:
            self._log.info("webhooks.served", url=url)
            tell(f"webhooks are taken at {url}")
            yield

    def _interrupt(self, by: str) -> None:
        self.interrupted = True
        self._log.warning("execution.interrupted", signal=by)
        self._warn(
            f"interrupted by {by}; calls that are out may take {PATIENCE_SECONDS:g} s to be "
            "answered. A second one ends it at once."
        )
        self._orchestrator.stop(
            f"the execution was interrupted ({by})",
            cancel_remote=self._cancel_on_interrupt,
            patience_seconds=PATIENCE_SECONDS,
        )

    def disk_full(self, problem: str) -> None:
        """Create nothing more; what is out may still be answered, and kept."""
        path = self._opened.folder
        self.stopped = self.stopped or JournalFailed(path=path, problem=problem)
        self._log.error("journal.full", path=str(path), problem=problem)
        self._orchestrator.stop("the disk is full", patience_seconds=PATIENCE_SECONDS)

    def counts(self) -> bytes:
        """What another process would count on from."""
        totals = self._orchestrator.totals
        return Counts(
            totals=totals.kept(),
            batches_by_end=dict(totals.batches_by_end),
            webhooks=dict(self._webhooks_received()),
            calls=[(kind.value, status, n) for (kind, status), n in self._calls().items()],
            seconds=self._seconds(),
            tasks_max=max(self._orchestrator.tasks_max, self._before.tasks_max),
        ).stored()

    def _calls(self) -> Counter[tuple[CallKind, str]]:
        return self._calls_before + self._orchestrator.calls

    def _webhooks_received(self) -> Counter[str]:
        received = Counter(self._before.webhooks)
        if self._job.listen is not None:
            received.update(
                {str(verdict): n for verdict, n in self._orchestrator.webhooks.counts.items()}
            )
        return received

    def _seconds(self) -> float:
        return self._before.seconds + self._clock.now() - self._began_at

    async def _take_results(self, requests: Iterable[Request]) -> None:
        try:
            async with aclosing(self._orchestrator.run_many(requests)) as results:
                async for result in results:
                    self._take(result)
        except OrchestratorError as error:
            self.stopped = self.stopped or error

    def _line_of(self, result: Result) -> bytes:
        """For the journal first; when it has it, the same line goes to its file."""
        line = self._lines[result.number] = result_line(result)
        return line

    def _take(self, result: Result) -> None:
        # Counted first: it cost what it cost, whether or not it can be written.
        self._tally.count(result)
        if result.outcome is Outcome.STOPPED:
            return  # it has not ended: the next process goes on with it
        line = self._lines.pop(result.number)
        try:
            is_completed = result.outcome is Outcome.COMPLETED
            self._opened.results.append(line, is_completed=is_completed)
        except OutputFailed as error:
            # Its line is in the journal, for the next process to write.
            if self.stopped is None:
                self.stopped = error
                self._log.error("output.failed", path=str(error.path), problem=error.problem)
                self._orchestrator.stop(
                    "the results can't be written any more", patience_seconds=PATIENCE_SECONDS
                )
        else:
            self._journal.written(result.number, *self._opened.results.sizes)

    async def _show_standing(self) -> None:
        while True:
            self._progress.show(self._standing())
            self._warn_of_forged()
            await anyio.sleep(SHOW_SECONDS)

    def _warn_of_forged(self) -> None:
        """Once: with a wrong secret every event is refused, and nothing else would say so yet."""
        if self._job.listen is None or self._warned_of_forged:
            return
        counts = self._orchestrator.webhooks.counts
        if counts[Verdict.FORGED] and not counts[Verdict.ACCEPTED]:
            self._warned_of_forged = True
            self._warn(
                "webhooks arrive that are not signed with your secret; "
                "is OPENAI_WEBHOOK_SECRET that of this endpoint?"
            )

    def _calls_in_the_last_minute(self, now: float, calls: int) -> int:
        looks = self._looks
        looks.append((now, calls))
        while looks[0][0] < now - 60:
            looks.popleft()
        return calls - (looks[0][1] if now - self._began_at > 60 else 0)  # noqa: PLR2004 - a minute

    def _standing(self) -> Standing:
        now = self._clock.now()
        tally, totals = self._tally, self._orchestrator.totals
        calls = self._orchestrator.calls.total()  # of this process
        self._pace.note(now, tally.ended)
        in_state = totals.in_state
        at_work = in_state[State.RUNNING] + in_state[State.CHECKING] + totals.lines_out
        submitting = max(in_state[State.SUBMITTING] - totals.lines_out, 0)  # not by batch
        at_tools = in_state[State.TOOLS] + in_state[State.ANSWERED] + submitting
        passed = now - self._began_at
        left = tally.outcomes[Outcome.STOPPED]  # it is no end: the next process goes on with them
        ended = tally.ended - left
        return Standing(
            total=self._total,
            waiting=max(self._total - ended - at_work - at_tools, 0),
            running=at_work,
            tools=at_tools,
            done=tally.done,
            failed=tally.failed - left,
            calls_per_minute=self._calls_in_the_last_minute(now, calls),
            rpm=self._job.settings.rpm,
            tokens_in=tally.tokens.input_tokens,
            tokens_out=tally.tokens.output_tokens,
            cost_usd=tally.cost_usd,
            seconds_left=self._pace.seconds_left(self._total - ended),
            seconds_passed=passed,
            batches=totals.batches_there,
            answered_in_batches=totals.lines_answered_there,
        )

    def _summary(self) -> dict[str, Any]:
        return self._tally.summary(
            source=str(self._job.source),
            started_at=datetime.fromtimestamp(self._opened.facts.started_at_unix, UTC).isoformat(
                timespec="seconds"
            ),
            version=__version__,
            requests=self._total,
            totals=self._orchestrator.totals,
            calls=self._calls(),
            kinds=[kind.value for kind in CallKind],
            tasks_max=max(self._orchestrator.tasks_max, self._before.tasks_max),
            wall_seconds=self._seconds(),
            stopped=self._why_stopped(),
            budget=self._orchestrator.budget.as_dict(),
            webhooks=self._webhooks_summary(),
        )

    def _webhooks_summary(self) -> dict[str, Any] | None:
        if self._job.listen is None:
            return None
        began_at = self._began_at - self._before.seconds
        summary = webhooks_as_dict(self._orchestrator.totals, began_at)
        return summary | {"received": dict(sorted(self._webhooks_received().items()))}

    def _why_stopped(self) -> RunError | None:
        match self.stopped:
            case _ if self.interrupted:
                return RunError(INTERRUPTED, "the execution was interrupted")
            case None:
                return None
            case ExecutionStopped():
                return self._orchestrator.stopped
            case _:
                return RunError(CODES.get(type(self.stopped), BROKEN), str(self.stopped))
