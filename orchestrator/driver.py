"""The only loop: takes a permit, asks the core what to do, has it done, and reports back.

Rules: the loop decides, the connections call, and nobody else does either. There is a fixed number
of connections, each a task that performs one call at a time; tool handlers are the only other tasks
that come and go, and they are bounded too. A run costs no task: it waits in the core.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import assert_never

import anyio
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from structlog.typing import FilteringBoundLogger

from orchestrator.core import events
from orchestrator.core.actions import (
    Call,
    CallTool,
    CancelRun,
    CheckRuns,
    CreateRun,
    Deed,
    RecordOutcome,
    StopTools,
    SubmitToolOutputs,
)
from orchestrator.core.failures import Cause, Failure
from orchestrator.core.model import Family, Outcome, Request, Seen
from orchestrator.core.scheduler import Scheduler
from orchestrator.errors import OrchestratorError
from orchestrator.ports import Api, CallFailed, Clock, Limiter, Results, Tools

# How often the number of living tasks is looked at, for the summary.
TASKS_LOOK_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Sent:
    """A call on its way through a connection, with what it took from the limiter."""

    call: Call
    lane: str
    tokens: int
    at: float


@dataclass(slots=True)
class RunningTools:
    """The tool handlers of one run that are at work, so that they can be stopped."""

    scopes: set[anyio.CancelScope] = field(default_factory=set)


class Driver:
    """Drives the scheduler. Use `run()` in a task of its own, and `admit()` to give it work.

    Args:
        scheduler: Decides.
        apis: One for each family.
        limiter: The permits.
        tools: The tool handlers.
        results: Where results go.
        clock: The time.
        log: Gets events with dotted names; never a prompt or a key.
        connections: Calls that may be out at the same time.
        max_in_flight: Runs that may be in flight at the same time.
        tools_at_once: Tool handlers that may be at work at the same time.
    """

    def __init__(
        self,
        *,
        scheduler: Scheduler,
        apis: Mapping[Family, Api],
        limiter: Limiter,
        tools: Tools,
        results: Results,
        clock: Clock,
        log: FilteringBoundLogger,
        connections: int,
        max_in_flight: int,
        tools_at_once: int,
    ) -> None:
        self.scheduler = scheduler
        self.tasks_max = 0
        self._apis = apis
        self._limiter = limiter
        self._tools = tools
        self._results = results
        self._clock = clock
        self._log = log
        self._connections = connections
        self._max_in_flight = max_in_flight
        self._tools_at_once = tools_at_once

        self._admitted = 0
        self._calls_out = 0
        self._wake = anyio.Event()
        self._changed = anyio.Event()  # a run ended: there may be room, or nothing left to do
        self._tools_waiting: deque[CallTool] = deque()
        self._tools_running: dict[int, RunningTools] = {}
        self._tool_tasks = 0
        self._tasks: TaskGroup | None = None
        self._tasks_looked_at = float("-inf")

    # What the service asks.

    async def run(self) -> None:
        """Work until cancelled."""
        # As many places as connections: handing a call to a free connection never waits.
        calls_in, calls_out = anyio.create_memory_object_stream[Sent](self._connections)
        with calls_in, calls_out:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                for _ in range(self._connections):
                    tasks.start_soon(self._connection, calls_out)
                while True:
                    self._wake = anyio.Event()
                    self._pass_time()
                    wait = self._send_calls(calls_in)
                    self._count_tasks()
                    with anyio.move_on_after(wait):
                        await self._wake.wait()

    @property
    def has_room(self) -> bool:
        return self.scheduler.in_flight < self._max_in_flight

    async def wait_for_room(self) -> None:
        """Wait until one more run may be in flight."""
        while not self.has_room:
            await self._changed.wait()

    async def wait_until_empty(self) -> None:
        """Wait until nothing is in flight."""
        while self.scheduler.in_flight:
            await self._changed.wait()

    def next_number(self) -> int:
        """A new number for a request, to be known before its result can come."""
        self._admitted += 1
        return self._admitted

    def admit(self, number: int, request: Request) -> None:
        """Take a request. Its result goes to `results` under this number, perhaps at once."""
        self.tell(events.RequestAdmitted(number, request))

    def stop(self, number: int, reason: str, *, outcome: Outcome, cancel_remote: bool) -> None:
        """This request is not wanted any more."""
        self.tell(events.StopRequested(number, outcome, reason, cancel_remote))

    def stop_all(self, reason: str, *, cancel_remote: bool) -> None:
        """Nothing is wanted any more, and nothing new is created."""
        self.tell(events.CreatesStopped("stopped", reason))
        unstopped = [run for run in self.scheduler.roster.runs.values() if run.stop is None]
        for number in [run.number for run in unstopped]:
            self.stop(number, reason, outcome=Outcome.STOPPED, cancel_remote=cancel_remote)

    def tell(self, event: events.Event) -> None:
        """Let the core take in what happened, and do what it says."""
        for deed in self.scheduler.handle(event, self._clock.now()):
            self._do(deed)
        self._wake.set()

    # The loop.

    def _pass_time(self) -> None:
        now = self._clock.now()
        due_at = self.scheduler.next_due()
        if due_at is not None and due_at <= now:
            for deed in self.scheduler.handle(events.TimePassed(), now):
                self._do(deed)

    def _send_calls(self, calls: MemoryObjectSendStream[Sent]) -> float | None:
        """Hand out calls while there are permits and free connections.

        Returns:
            How many seconds until time alone changes something; None when only an event does.
        """
        now = self._clock.now()
        waits = [] if (due_at := self.scheduler.next_due()) is None else [due_at - now]
        for lane in self.scheduler.busy_lanes():
            while self._calls_out < self._connections and (sent := self._take_call(lane, now)):
                calls.send_nowait(sent)
            if self._calls_out < self._connections:
                tokens = self.scheduler.tokens_wanted(lane, now)
                # No wait: what is held back now waits for an event, or for next_due.
                if (wait := self._limiter.seconds_until(lane, tokens)) > 0:
                    waits.append(wait)
        return max(min(waits), 0.0) if waits else None

    def _take_call(self, lane: str, now: float) -> Sent | None:
        """A permit first, then the most urgent call: so no permit goes to stale work."""
        tokens_free = self._limiter.tokens_free(lane)
        if tokens_free is None:
            return None
        call = self.scheduler.next_call(lane, now, tokens_free)
        if call is None:
            return None
        tokens = call.request.tokens if isinstance(call, CreateRun | SubmitToolOutputs) else 0
        self._limiter.take(lane, tokens)
        self._calls_out += 1
        return Sent(call, lane, tokens, now)

    def _count_tasks(self) -> None:
        now = self._clock.now()
        if now - self._tasks_looked_at >= TASKS_LOOK_SECONDS:
            self._tasks_looked_at = now
            self.tasks_max = max(self.tasks_max, len(anyio.get_running_tasks()))

    # The connections.

    async def _connection(self, calls: MemoryObjectReceiveStream[Sent]) -> None:
        while True:
            sent = await calls.receive()
            happened = await self._perform(sent)
            self._calls_out -= 1
            for event in happened:
                self.tell(event)

    async def _perform(self, sent: Sent) -> list[events.RunEvent]:
        """Send one call; what comes of it, good or bad, is an event for each of its runs."""
        call = sent.call
        try:
            match call:
                case CreateRun():
                    seen = await self._apis[call.request.family].create(call)
                    self._correct(sent, seen)
                    return [events.RunCreated(call.number, seen)]
                case SubmitToolOutputs():
                    seen = await self._apis[call.request.family].submit(call)
                    self._correct(sent, seen)
                    return [events.OutputsAccepted(call.number, seen)]
                case CancelRun():
                    seen = await self._apis[call.request.family].cancel(call)
                    return [events.CancelAccepted(call.number, seen)]
                case CheckRuns():
                    answers = await self._apis[call.runs[0].request.family].check(call)
                    return self._checked(sent, call, answers)
                case _:
                    assert_never(call)
        except CallFailed as failed:
            failure = failed.failure
        except OrchestratorError:
            raise
        except Exception as error:  # noqa: BLE001 - a bug with one answer must not end the night
            self._log.exception("call.broken", kind=type(call).__name__)
            failure = Failure(Cause.INTERNAL, f"{type(error).__name__}: {error}")
        self._note_failure(sent, failure)
        return [self._failed(call, number, failure) for number in _numbers(call)]

    def _checked(
        self, sent: Sent, call: CheckRuns, answers: Mapping[int, Seen | Failure]
    ) -> list[events.RunEvent]:
        missing = Failure(Cause.NOT_FOUND, "the server's list does not show this run")
        happened: list[events.RunEvent] = []
        for run in call.runs:
            answer = answers.get(run.number, missing)
            if isinstance(answer, Failure):
                self._note_failure(sent, answer)
                happened.append(events.CheckFailed(run.number, answer))
            else:
                happened.append(events.RunSeen(run.number, answer))
        return happened

    def _failed(self, call: Call, number: int, failure: Failure) -> events.RunEvent:
        match call:
            case CreateRun():
                return events.CreateFailed(number, failure)
            case SubmitToolOutputs():
                return events.OutputsFailed(number, failure)
            case CancelRun():
                return events.CancelFailed(number, failure)
            case CheckRuns():
                return events.CheckFailed(number, failure)
            case _:
                assert_never(call)

    def _correct(self, sent: Sent, seen: Seen) -> None:
        if seen.usage.total_tokens:
            self._limiter.spent(sent.lane, sent.tokens, seen.usage.total_tokens, sent.at)

    def _note_failure(self, sent: Sent, failure: Failure) -> None:
        if failure.cause is Cause.RATE_LIMITED:
            self._limiter.refused(sent.lane, failure.retry_after_seconds)
        self._log.warning(
            "call.failed",
            kind=type(sent.call).__name__,
            custom_id=_custom_ids(sent.call),
            cause=failure.cause.value,
            status_code=failure.status_code,
            code=failure.code,
            request_id=failure.request_id,
        )

    # The deeds.

    def _do(self, deed: Deed) -> None:
        match deed:
            case CallTool():
                self._tools_waiting.append(deed)
                self._start_tools()
            case StopTools(number=number):
                for scope in self._tools_running.pop(number, RunningTools()).scopes:
                    scope.cancel()
            case RecordOutcome(number=number, result=result):
                if result.outcome is not Outcome.COMPLETED:
                    self._log.warning(
                        "request.ended",
                        custom_id=result.custom_id,
                        outcome=result.outcome.value,
                        run_id=result.run_id,
                        code=result.error.code if result.error else "",
                    )
                self._results.record(number, result)
                self._changed.set()
                self._changed = anyio.Event()
            case _:
                assert_never(deed)

    def _start_tools(self) -> None:
        while self._tools_waiting and self._tool_tasks < self._tools_at_once:
            deed = self._tools_waiting.popleft()
            run = self.scheduler.roster.runs.get(deed.number)
            if run is None or run.answering is None or self._tasks is None:
                continue  # the run was stopped while its tools waited for a place
            self._tool_tasks += 1
            self._tasks.start_soon(self._call_tool, deed)

    async def _call_tool(self, deed: CallTool) -> None:
        running = self._tools_running.setdefault(deed.number, RunningTools())
        try:
            with anyio.CancelScope() as scope:
                running.scopes.add(scope)
                output = await self._tools.call(deed.call, deed.request)
                if output.failed:
                    custom_id, tool = deed.request.custom_id, deed.call.name
                    self._log.warning("tool.failed", custom_id=custom_id, tool=tool)
                running.scopes.discard(scope)
                self.tell(events.ToolFinished(deed.number, output))
        finally:
            running.scopes.discard(scope)
            if not running.scopes:
                self._tools_running.pop(deed.number, None)
            self._tool_tasks -= 1
            self._start_tools()


def _numbers(call: Call) -> Iterable[int]:
    return [run.number for run in call.runs] if isinstance(call, CheckRuns) else [call.number]


def _custom_ids(call: Call) -> str:
    if isinstance(call, CheckRuns):
        return ", ".join(run.request.custom_id for run in call.runs)
    return call.request.custom_id
