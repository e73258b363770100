"""The runs in flight, where each stands, and what is planned for it.

Rules: a run's state changes in `move` and nowhere else. Whatever is done to a run is told to its
story. A run that waits for a permit is in the queue of its lane, and in the schedule at its
deadline; a run that waits for time is in the schedule only.
"""

from collections import deque
from collections.abc import Iterable

from orchestrator.core.budget import Budget, Price
from orchestrator.core.families import BATCHES_URL
from orchestrator.core.groups import Groups
from orchestrator.core.hearing import Hearing
from orchestrator.core.lanes import BATCH_LANE, Lane, Want
from orchestrator.core.model import Family, Request
from orchestrator.core.packing import Packing
from orchestrator.core.rules import Rules
from orchestrator.core.runs import Run, Shard
from orchestrator.core.schedule import Schedule
from orchestrator.core.states import DONE, Change, State, next_state
from orchestrator.core.story import Story
from orchestrator.core.totals import Totals
from orchestrator.errors import TransitionImpossible

# What a run in this state waits for once its time has come.
WANTED_IN = {
    State.WAITING: Want.CREATE,
    State.RUNNING: Want.CHECK,
    State.ANSWERED: Want.SUBMIT,
    State.STOPPING: Want.CANCEL,
    State.FINISHED: Want.FETCH,
}
STATE_OF = {want: state for state, want in WANTED_IN.items()}

NEVER = float("inf")

SENDS = frozenset({Want.CREATE, Want.SUBMIT})


class _NoBody:
    """What a batch has: its lines have bodies."""

    def read(self) -> bytes:
        return b""


class Roster:
    """All runs in flight."""

    def __init__(self, rules: Rules, price: Price | None = None) -> None:
        self.runs: dict[int, Run] = {}
        self.schedule = Schedule()
        self.lanes: dict[str, Lane] = {}
        self.story = Story()
        self.totals = Totals()
        self.groups = Groups()
        self.packing = Packing(rules)
        self.budget = Budget(rules, price)
        self.hearing = Hearing(rules.webhook_gap_seconds, self.totals)
        self.batches_issued = 0
        self.replaying = False  # then nothing lines up: what a run waits for is settled in the end
        self._direct_below = rules.batch_direct_below
        self._threads: dict[str, deque[int]] = {}
        self._checks_lane = rules.checks_lane

    def admit(self, number: int, request: Request, now: float) -> Run:
        run = self.runs[number] = Run(number, request, due_at=now)
        totals = self.totals
        totals.admitted += 1
        totals.in_state[run.state] += 1
        totals.in_flight_max = max(totals.in_flight_max, totals.in_flight)
        self.story.tell(now, number, "admitted", request.custom_id)
        return run

    def may_start(self, run: Run) -> bool:
        """Whether this new run's turn on its thread has come; else it is kept until it has."""
        if not run.request.thread:
            return True
        self._threads.setdefault(run.request.thread, deque()).append(run.number)
        return self.is_first_on_thread(run)

    def is_first_on_thread(self, run: Run) -> bool:
        waiting = self._threads.get(run.request.thread)
        return waiting is None or waiting[0] == run.number

    def _next_on_thread(self, run: Run) -> Run | None:
        """A run leaves its thread; the one whose turn has come, if it was the active one."""
        waiting = self._threads.get(run.request.thread)
        if waiting is None:
            return None
        was_active = waiting[0] == run.number
        waiting.remove(run.number)
        if not waiting:
            del self._threads[run.request.thread]
            return None
        return self.runs[waiting[0]] if was_active else None

    def move(self, run: Run, change: Change, now: float, detail: str = "") -> None:
        """Bring a run into the state that the table says."""
        before = run.state
        try:
            run.state = next_state(run.request.family, before, change)
        except KeyError:
            raise TransitionImpossible(
                number=run.number,
                family=run.request.family.value,
                state=before.value,
                change=change.value,
                story=self.story.of(run.number),
            ) from None
        if run.shard is None:
            self.totals.in_state[before] -= 1
            self.totals.in_state[run.state] += 1
        self.story.tell(now, run.number, change, detail)

    def name(self, run: Run, run_id: str, now: float) -> None:
        """The server calls this run so; nothing, where there is none any more."""
        if run_id and run_id == run.run_id and self.hearing.holds(run):
            return  # another turn
        self.hearing.leave(run)
        run.run_id = run_id
        if run_id:
            self.hearing.enter(run, now)

    def presuppose(self, run: Run, state: State) -> None:
        """For a replay: what is known of this run could only happen in this state."""
        if run.state is State.TOOLS and state is not State.TOOLS:
            run.answering = None
        if run.shard is None:
            self.totals.in_state[run.state] -= 1
            self.totals.in_state[state] += 1
        run.state = state

    def wake(self, run: Run, due_at: float) -> None:
        """Look after this run at `due_at`, or at its deadline if that is earlier."""
        run.due_at = due_at
        until = due_at if run.state in DONE else min(due_at, run.until)
        self.schedule.put(run.number, until)

    def line_up(self, run: Run, now: float, *, first: bool = False) -> None:
        """Let this run wait for the permit that its state calls for, for a batch, or for money."""
        if self.replaying:
            return
        want = WANTED_IN[run.state]
        run.due_at = min(run.due_at, now)
        if want is Want.CREATE and run.shard is None and not self.budget.admits(run, first=first):
            self.story.tell(now, run.number, "waits for the budget")
            self.watch_deadline(run)
            return
        if run.request.via_batch and not run.direct and want in SENDS:
            closed = self.packing.add(run, now)
            self.watch_deadline(run)
            if closed is not None:
                self._launch(closed, now)
            return
        queue = self.lane_for(run, want).waiting[want]
        if first:
            queue.appendleft(run.number)
        else:
            queue.append(run.number)
        self.watch_deadline(run)

    def watch_deadline(self, run: Run) -> None:
        if run.until < NEVER and run.state not in DONE:
            self.schedule.put(run.number, run.until)

    def watch_tools(self, run: Run) -> None:
        until = min(run.deadline_at, run.expires_at)
        if until < NEVER:
            self.schedule.put(run.number, until)

    def lane_for(self, run: Run, want: Want) -> Lane:
        if want not in SENDS and self._checks_lane is not None:
            name = self._checks_lane
        else:
            name = BATCH_LANE if run.request.family is Family.BATCH else run.request.model
        lane = self.lanes.get(name)
        if lane is None:
            lane = self.lanes[name] = Lane(name)
        return lane

    def head_of(self, lane: Lane, want: Want, now: float) -> Run | None:
        """The first run that really waits for this; entries whose run moved on are dropped."""
        queue = lane.waiting[want]
        while queue:
            run = self.runs.get(queue[0])
            if run is not None and run.state is STATE_OF[want] and run.due_at <= now:
                return run
            queue.popleft()
        return None

    def take_head(self, lane: Lane, want: Want) -> None:
        """The head of the queue is handed out: it waits for an answer now, not for time."""
        self.schedule.drop(lane.waiting[want].popleft())

    def forget(self, run: Run, now: float) -> None:
        self.schedule.drop(run.number)
        self.groups.leave(run)
        self.hearing.leave(run)
        del self.runs[run.number]
        if run.shard is not None:
            self._batch_is_over(run, run.shard, now)
            return
        self.totals.in_state[run.state] -= 1
        if run.batch is not None:
            self.take_out(run)
        elif run.request.via_batch:
            self.packing.remove(run)
        self.budget.settle(run)
        self.let_in(now)
        following = self._next_on_thread(run)
        if following is not None and following.state is State.WAITING:
            self.line_up(following, now)

    def let_in(self, now: float) -> None:
        """There may be money for some of those who wait for it."""
        while not self.replaying and (run := self.budget.take_next()) is not None:
            self.line_up(run, now)

    # Batches.

    def close_shards(self, now: float) -> None:
        """For these shards nothing more has come for a while."""
        for shard in self.packing.take_closed(now):
            if len(shard.runs) >= self._direct_below:
                self._launch(shard, now)
                continue
            for run in shard.runs.values():
                run.direct = True
                self.line_up(run, now)

    def _launch(self, shard: Shard, now: float) -> None:
        self.batches_issued += 1
        batch = self.make_batch(-self.batches_issued, shard, now)
        if self.packing.queue.enter(batch, shard):
            self.line_up(batch, now)

    def make_batch(self, number: int, shard: Shard, now: float) -> Run:
        """Make a batch of a shard. Its number is below 0, so it is no request's."""
        request = Request(
            custom_id=f"batch{number}",
            url=BATCHES_URL,
            family=Family.BATCH,
            model=shard.model,
            tokens=0,
            body=_NoBody(),
        )
        batch = self.runs[number] = Run(number, request, due_at=now, shard=shard)
        self.totals.batches_open += 1
        for run in shard.runs.values():
            run.batch = batch
        self.story.tell(now, number, "packed", f"{len(shard.runs)} lines")
        return batch

    def take_out(self, run: Run) -> None:
        """This run does not wait for its line any more."""
        shard = run.batch.shard if run.batch is not None else None
        if shard is not None:
            del shard.runs[run.number]
            run.lost += run.batch.lost if run.batch is not None else 0
            self.totals.lines_out -= bool(shard.places)
            shard.unwanted -= run.stop is not None and shard.unwanted > 0
        run.batch = None

    def pack_again(self, runs: Iterable[Run], now: float) -> None:
        """What was packed together is packed anew, because the limits are others now."""
        for run in list(runs):
            self.take_out(run)
            self.line_up(run, now)

    def _batch_is_over(self, batch: Run, shard: Shard, now: float) -> None:
        self.totals.batches_open -= 1
        self.totals.lines_answered_there -= shard.answered
        self.packing.queue.leave(batch, shard)
        while (following := self.packing.queue.take_next(shard.model)) is not None:
            self._let_in(following, now)

    def _let_in(self, batch: Run, now: float) -> None:
        shard = batch.shard
        if shard is None:
            return
        queue = self.packing.queue
        if shard.tokens > queue.tokens_max(shard.model) and len(shard.runs) > 1:
            # Not by `forget`, which lets the next one in: there may be thousands to be unmade.
            del self.runs[batch.number]
            self.totals.batches_open -= 1
            self.pack_again(shard.runs.values(), now)
        elif queue.enter(batch, shard):
            self.line_up(batch, now)
