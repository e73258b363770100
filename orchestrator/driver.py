"""The only loop: takes a permit, asks the core what to do, has it done, and reports back.

Rules: the loop decides, the connections call, and nobody else does either. There is a fixed number
of connections, each a task that performs one call at a time; tool handlers are the only other tasks
that come and go, and they are bounded too. A run costs no task: it waits in the core.

A tool handler may run requests itself. Those are one level deeper, and each level has places of its
own, here for handlers and in feed.py for runs: else they would wait for places that the handlers
above them hold.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Generator, Iterable, Mapping
from contextvars import ContextVar
from functools import partial
from typing import assert_never

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from structlog.typing import FilteringBoundLogger

from orchestrator.caller import Caller, Sent, never_sent, numbers_of
from orchestrator.core import events
from orchestrator.core.actions import (
    CallTool,
    CreateRun,
    Deed,
    DropBatch,
    RecordOutcome,
    StopTools,
    SubmitToolOutputs,
    TellOfWebhooks,
)
from orchestrator.core.entries import BatchOver, Past, intent_of, is_kept
from orchestrator.core.model import Family, Outcome, Request, Result
from orchestrator.core.scheduler import Scheduler
from orchestrator.core.states import State
from orchestrator.ports import Api, Clock, Journal, Limiter, Results, Tools

TASKS_LOOK_SECONDS = 0.25  # how often the living tasks are counted, for the summary
ERROR_SHOWN = 300  # characters of what a tool says of its failure, in the log

# How many tool handlers the code that asks is inside of.
level: ContextVar[int] = ContextVar("orchestrator_level", default=0)


class Driver:
    """Drives the scheduler. Use `run()` in a task of its own, and `admit()` to give it work.

    Args:
        scheduler: Decides.
        apis: One for each family.
        limiter: The permits.
        tools: The tool handlers.
        results: Where results go, once the journal has them.
        journal: Keeps what would be lost with the process.
        clock: The time.
        log: Gets events with dotted names; never a prompt or a key.
        connections: Calls that may be out at the same time.
        tools_at_once: Tool handlers that may be at work at the same time.
        on_stopped: Called once, when it is settled that nothing new will be created.
    """

    def __init__(
        self,
        *,
        scheduler: Scheduler,
        apis: Mapping[Family, Api],
        limiter: Limiter,
        tools: Tools,
        results: Results,
        journal: Journal,
        clock: Clock,
        log: FilteringBoundLogger,
        connections: int,
        tools_at_once: int,
        on_stopped: Callable[[], None] = lambda: None,
    ) -> None:
        self.scheduler = scheduler
        self.tasks_max = 0
        self._limiter = limiter
        self._tools = tools
        self._results = results
        self._journal = journal
        self._clock = clock
        self._log = log
        self._caller = Caller(apis, limiter, log)
        self._connections = connections
        self._tools_at_once = tools_at_once
        self._on_stopped = on_stopped

        self._closed = False
        self._stopped = False
        self._wake = anyio.Event()
        self._emptied = anyio.Event()
        self._tasks_looked_at = float("-inf")

        self._numbers_given = 0
        self._unreported = 0  # results that the journal has yet to take
        self._deeper: dict[int, int] = {}  # level by run, of runs that a tool handler asked for
        self._tools_waiting: defaultdict[int, deque[CallTool]] = defaultdict(deque)  # by level
        self._tools_at_work: Counter[int] = Counter()
        self._tool_scopes: defaultdict[int, set[anyio.CancelScope]] = defaultdict(set)  # by run

        self._calls_out = 0
        self._call_scopes: dict[int, anyio.CancelScope] = {}  # by run
        self._calls_handed = 0
        self._handed_to: dict[str, int] = {}  # by lane, the last of its calls

    # What the service asks.

    async def run(self) -> None:
        """Work until cancelled."""
        # As many places as connections: handing a call to a free connection never waits.
        calls_in, calls_out = anyio.create_memory_object_stream[Sent](self._connections)
        with calls_in, calls_out:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._journal.run)
                for _ in range(self._connections):
                    tasks.start_soon(self._connection, calls_out)
                while True:
                    self._wake = anyio.Event()
                    self._pass_time()
                    self._start_tools(tasks)
                    wait = self._send_calls(calls_in)
                    self._count_tasks()
                    with anyio.move_on_after(wait):
                        await self._wake.wait()

    def close(self) -> None:
        """Nothing will be done any more."""
        self._closed = True
        self._emptied.set()

    async def wait_until_empty(self) -> None:
        """Wait until nothing is in flight, and all results are handed over."""
        while (self.scheduler.in_flight or self._unreported) and not self._closed:
            await self._emptied.wait()

    def next_number(self) -> int:
        """A new number for a request, to be known before its result can come."""
        self._numbers_given += 1
        return self._numbers_given

    def admit(self, number: int, request: Request) -> None:
        """Take a request. Its result goes to `results` under this number, perhaps at once."""
        if level.get():
            self._deeper[number] = level.get()
        self._journal.admitted(number, request, self._clock.now())
        self.tell(events.RequestAdmitted(number, request))

    def resume(self, past: Past) -> None:
        """Go on with what earlier processes left in flight; before anything is admitted."""
        now = self._clock.now()
        self._numbers_given = past.numbers_issued
        replay = self.scheduler.replay()
        replay.issued(batches=past.batches_issued, groups=past.groups_issued)
        for number, request in past.in_flight:
            replay.admit(number, request, now)
        deeds = [deed for at, entry in past.entries(now) for deed in replay.take(entry, at)]
        for spent in past.spent:
            self.scheduler.budget.count_before(spent)
        self.scheduler.totals.count_on(past.counts)
        self.scheduler.totals.batches_by_end.update(past.batches_by_end)
        deeds += replay.settle(now)
        for event in replay.presumed:
            self._journal.keep(event, now)
        for deed in deeds:
            self._do(deed)
        self.tell(events.TimePassed())  # what is left of a budget may be too little

    def stop(self, number: int, reason: str, *, outcome: Outcome, cancel_remote: bool) -> None:
        """This request is not wanted any more."""
        run = self.scheduler.roster.runs.get(number)
        if run is None or self._closed:
            return
        self.tell(events.StopRequested(number, outcome, reason, cancel_remote))

    def stop_all(self, reason: str, *, cancel_remote: bool, patience_seconds: float) -> None:
        """Nothing is wanted any more, and nothing new is created."""
        if self._closed:
            return
        self.tell(events.CreatesStopped("stopped", reason))
        unstopped = [run for run in self.scheduler.roster.runs.values() if run.stop is None]
        # A batch is stopped when it has lost the last run that it carries.
        for number in [run.number for run in unstopped if run.shard is None]:
            self.tell(
                events.StopRequested(
                    number, Outcome.STOPPED, reason, cancel_remote, patience_seconds
                )
            )

    def tell(self, event: events.Event) -> None:
        """Let the core take in what happened, and do what it says."""
        now = self._clock.now()
        number = getattr(event, "number", 0)
        before = self.scheduler.state_of(number)
        deeds = self.scheduler.handle(event, now)
        if is_kept(event, before, self.scheduler.state_of(number)):
            self._journal.keep(event, now)
        for deed in deeds:
            self._do(deed)
        self._notice_stop()
        self._wake.set()

    def _notice_stop(self) -> None:
        if not self._stopped and self.scheduler.creates_stopped is not None:
            self._stopped = True
            self._on_stopped()

    # The loop.

    def _pass_time(self) -> None:
        now = self._clock.now()
        due_at = self.scheduler.next_due()
        if due_at is not None and due_at <= now:
            for deed in self.scheduler.handle(events.TimePassed(), now):
                self._do(deed)
            self._notice_stop()

    def _send_calls(self, calls: MemoryObjectSendStream[Sent]) -> float | None:
        """Hand out calls while there are permits and free connections.

        Returns:
            How many seconds until time alone changes something; None when only an event does.
        """
        now = self._clock.now()
        waits = [] if (due_at := self.scheduler.next_due()) is None else [due_at - now]
        # One call a lane in turn, and first the lane that has waited longest: a crowd of runs of
        # one model must not keep the connections from the others.
        lanes = deque(sorted(self.scheduler.busy_lanes(), key=self._last_handed_to))
        while lanes and self._calls_out < self._connections:
            lane = lanes.popleft()
            if (sent := self._take_call(lane, now)) is not None:
                self._calls_handed += 1
                self._handed_to[lane] = self._calls_handed
                calls.send_nowait(sent)
                lanes.append(lane)
                continue
            tokens = self.scheduler.tokens_wanted(lane, now)
            # No wait: what is held back now waits for an event, or for next_due.
            if (wait := self._limiter.seconds_until(lane, tokens)) > 0:
                waits.append(wait)
        return max(min(waits), 0.0) if waits else None

    def _last_handed_to(self, lane: str) -> int:
        return self._handed_to.get(lane, 0)

    def _take_call(self, lane: str, now: float) -> Sent | None:
        """A permit first, then the most urgent call: so no permit goes to stale work."""
        tokens_free = self._limiter.tokens_free(lane)
        if tokens_free is None:
            return None
        call = self.scheduler.next_call(lane, now, tokens_free)
        if call is None:
            return None
        if (intent := intent_of(call)) is not None:
            self._journal.keep(intent, now)
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
            happened = never_sent(sent.call)
            numbers = numbers_of(sent.call)
            with anyio.CancelScope() as scope:
                if len(numbers) == 1:
                    self._call_scopes[numbers[0]] = scope
                if intent_of(sent.call) is not None:
                    await self._until_on_disk()
                happened = ()
                happened = await self._caller.perform(sent)
            if len(numbers) == 1:
                self._call_scopes.pop(numbers[0], None)
            self._calls_out -= 1
            await self._tell_all(happened)
            self._wake.set()

    async def _until_on_disk(self) -> None:
        """Wait until the journal has all that was told so far, this call's intent too."""
        on_disk = anyio.Event()
        self._journal.after(on_disk.set)
        if not on_disk.is_set():
            await on_disk.wait()

    async def _tell_all(self, happened: Iterable[events.Event]) -> None:
        try:
            for event in happened:
                self.tell(event)
                if isinstance(event, events.LineAnswered):
                    await anyio.lowlevel.checkpoint()  # there may be 50,000
        finally:
            if isinstance(happened, Generator):
                happened.close()  # with the file that it reads

    # The deeds.

    def _do(self, deed: Deed) -> None:
        match deed:
            case CallTool(number=number):
                self._tools_waiting[self._deeper.get(number, 0)].append(deed)
            case StopTools(number=number):
                for scope in self._tool_scopes.pop(number, ()):
                    scope.cancel()
            case RecordOutcome():
                self._record(deed)
            case DropBatch(number=number, run_id=run_id, said=said):
                self._log.info("batch.ended", batch_id=run_id, said=said)
                if deed.is_over:
                    self._journal.keep(BatchOver(number, deed.lost), self._clock.now())
                self._forget(number)
            case TellOfWebhooks(family=family, are_heard=heard, why=why):
                tell = self._log.info if heard else self._log.warning
                tell(f"webhooks.{'back' if heard else 'silent'}", family=family.value, why=why)
            case _:
                assert_never(deed)

    def _record(self, deed: RecordOutcome) -> None:
        number, result = deed.number, deed.result
        if result.outcome is not Outcome.COMPLETED:
            self._log.info(
                "request.ended",
                custom_id=result.custom_id,
                outcome=result.outcome.value,
                run_id=result.run_id,
                code=result.error.code if result.error else "",
            )
        self._deeper.pop(number, None)
        self._unreported += 1
        self._journal.ended(number, result, self._clock.now())
        self._journal.after(partial(self._report, number, result))
        self._forget(number)

    def _report(self, number: int, result: Result) -> None:
        self._unreported -= 1
        self._results.record(number, result)
        self._tell_if_empty()

    def _forget(self, number: int) -> None:
        if (scope := self._call_scopes.pop(number, None)) is not None:
            scope.cancel()  # its answer is of no use any more, and its connection is
        self._tell_if_empty()

    def _tell_if_empty(self) -> None:
        if not self.scheduler.in_flight and not self._unreported:
            self._emptied.set()
            self._emptied = anyio.Event()

    def _start_tools(self, tasks: TaskGroup) -> None:
        # Only the loop starts handlers, so that none inherits the context of another one.
        for at, waiting in self._tools_waiting.items():
            while waiting and self._tools_at_work[at] < self._tools_at_once:
                deed = waiting.popleft()
                run = self.scheduler.roster.runs.get(deed.number)
                if run is None or run.state is not State.TOOLS or run.answering is None:
                    continue  # the run was stopped while its tools waited for a place
                if not run.answering.asks(deed.call):
                    continue  # it asks for other ones by now
                self._tools_at_work[at] += 1
                tasks.start_soon(self._call_tool, deed, at)

    async def _call_tool(self, deed: CallTool, at: int) -> None:
        level.set(at + 1)
        with anyio.CancelScope() as scope:
            self._tool_scopes[deed.number].add(scope)
            output = await self._tools.call(deed.call, deed.request)
            if output.failed:
                about = {"custom_id": deed.request.custom_id, "tool": deed.call.name}
                self._log.warning("tool.failed", **about, error=output.output[:ERROR_SHOWN])
            self._tool_ended(deed.number, scope)
            self.tell(events.ToolFinished(deed.number, output))
        self._tool_ended(deed.number, scope)
        self._tools_at_work[at] -= 1
        self._wake.set()

    def _tool_ended(self, number: int, scope: anyio.CancelScope) -> None:
        scopes = self._tool_scopes.get(number, set())
        scopes.discard(scope)
        if not scopes:
            self._tool_scopes.pop(number, None)
