"""Events in, actions out: decides what is done next for every run in flight.

Rules: no clock, no chance, no ids of its own; `now` and `chance` are given. `handle` takes what
happened and returns what must be done at once. Calls wait in lanes until the driver holds a permit
and asks with `next_call`. `next_due` says when time alone will change something.

Where to look: the table of states in states.py; which call is next in calls.py; what follows from
an answer in course.py, from a failed call in setbacks.py, from a webhook in webhooks.py, and how a
request ends in endings.py.
"""

from collections.abc import Callable, Iterator
from typing import assert_never

from orchestrator.core import events
from orchestrator.core.actions import Call, Deed
from orchestrator.core.batches import TOO_LARGE_STATUS, Batches
from orchestrator.core.budget import Budget, Price
from orchestrator.core.calls import Calls
from orchestrator.core.course import Course
from orchestrator.core.endings import Endings
from orchestrator.core.failures import Cause, Failure
from orchestrator.core.model import Outcome, RunError
from orchestrator.core.replay import Replay
from orchestrator.core.roster import NEVER, WANTED_IN, Roster
from orchestrator.core.rules import Rules
from orchestrator.core.runs import Run, Shard, Stop
from orchestrator.core.setbacks import Setbacks, error_of
from orchestrator.core.states import AT_WORK, CALL_OUT, DONE, Change, State
from orchestrator.core.totals import Totals
from orchestrator.core.webhooks import Webhooks


class Scheduler:
    """Holds every run in flight and decides what is done about it.

    Args:
        rules: Bounds and times.
        chance: Gives a number in [0, 1) for jitter.
        price: What a usage of a model costs in USD, for a limit of the cost.
        began_at: When the execution began, for its deadline.
    """

    def __init__(
        self,
        rules: Rules,
        chance: Callable[[], float],
        price: Price | None = None,
        began_at: float = 0.0,
    ) -> None:
        self._rules = rules
        self._ends_at = began_at + rules.execution_deadline_seconds
        self.roster = Roster(rules, price)
        self._calls = Calls(self.roster, rules)
        self._endings = Endings(self.roster, rules)
        self._course = Course(self.roster, rules, self._endings, chance)
        self._setbacks = Setbacks(self.roster, rules, self._endings, chance)
        self._webhooks = Webhooks(self.roster, chance)
        self._batches = Batches(self.roster, rules, self._endings, self._course, self._setbacks)

    @property
    def totals(self) -> Totals:
        return self.roster.totals

    @property
    def budget(self) -> Budget:
        return self.roster.budget

    @property
    def in_flight(self) -> int:
        return len(self.roster.runs)

    @property
    def creates_stopped(self) -> RunError | None:
        """Why nothing new is created any more, or None."""
        return self._endings.creates_stopped

    def next_due(self) -> float | None:
        """When `TimePassed` will change something; None when only an answer will."""
        moments = (
            self.roster.schedule.next_due(),
            self.roster.packing.next_due(),
            self.roster.hearing.next_due(),
            None if self._calls.trial_over else self._calls.trial_until,
            self._ends_at if self._ends_at < NEVER else None,
        )
        return min((moment for moment in moments if moment is not None), default=None)

    def busy_lanes(self) -> list[str]:
        """The lanes in which something may wait for a permit."""
        return [name for name, lane in self.roster.lanes.items() if lane]

    def tokens_wanted(self, lane: str, now: float) -> int:
        """The tokens that the most urgent call of a lane reserves; 0 when it needs none."""
        return self._calls.tokens_wanted(lane, now)

    def next_call(self, lane: str, now: float, tokens_free: float = float("inf")) -> Call | None:
        """The most urgent call of a lane that fits into `tokens_free`, to be sent now.

        The driver holds a permit of this lane when it asks, so no permit goes to stale work.
        """
        return self._calls.next_call(lane, now, tokens_free)

    def handle(self, event: events.Event, now: float) -> list[Deed]:
        """Take in what happened; what must be done at once comes back.

        An event about a run that has ended meanwhile is late, and means nothing.
        """
        deeds = list(self._deeds_after(event, now))
        if self.creates_stopped is None and (error := self.budget.error) is not None:
            deeds += self._endings.stop_creates(error, now)
        if self.roster.hearing.is_on:
            deeds += self._webhooks.changes(now)
        return deeds

    def _deeds_after(  # noqa: PLR0911 - one arm for each event
        self, event: events.Event, now: float
    ) -> Iterator[Deed]:
        match event:
            case events.RequestAdmitted():
                return self._admitted(event, now)
            case events.TimePassed():
                return self._time_passed(now)
            case events.WebhookArrived():
                return self._webhooks.arrived(event, now)
            case events.CreatesStopped(code=code, reason=reason):
                return self._endings.stop_creates(RunError(code, reason), now)
            case events.LineAnswered():
                return self._batches.line_answered(event, now)
            case events.CreateFailed(failure=failure) if self._finds_no_server(failure):
                gap = self._rules.backoff.gap_seconds(self._calls.unreached + 1, None, 0.5)
                self._calls.no_connection(gap, now)
                if self._calls.unreached >= self._rules.unreached_max:
                    return self._endings.give_up_all(event.number, error_of(failure), now)
            case events.RunCreated() | events.RunPrepared() | events.CreateFailed():
                self._calls.trial_over = True
        return self._told(event, now)

    def _told(self, event: events.RunEvent, now: float) -> Iterator[Deed]:
        run = self.roster.runs.get(event.number)
        if run is None:
            return iter(())
        if run.shard is not None:
            return self._told_of_batch(run, run.shard, event, now)
        return self._told_of(run, event, now)

    def replay(self) -> Replay:
        """Bring a new scheduler to where another one stood; nothing else was done with it."""
        return Replay(self.roster, self._calls, self._batches, self._told)

    def state_of(self, number: int) -> State | None:
        """Where a run stands, a batch by its number too; None when it is not in flight."""
        run = self.roster.runs.get(number)
        return run.state if run is not None else None

    def _finds_no_server(self, failure: Failure) -> bool:
        return failure.cause is Cause.NOT_SENT and not self._calls.trial_over

    def _told_of_batch(  # noqa: PLR0911 - one arm for each event
        self, batch: Run, shard: Shard, event: events.RunEvent, now: float
    ) -> Iterator[Deed]:
        """What is otherwise than with a run of one request."""
        match event:
            case events.RunCreated(seen=seen):
                return self._batches.created(batch, shard, seen, now)
            case events.CreateFailed(failure=failure) if failure.status_code == TOO_LARGE_STATUS:
                return self._batches.too_large(batch, shard, failure, now)
            case events.CreateFailed(failure=failure) if now >= batch.deadline_at:
                return self._batches.given_up(batch, shard, failure, now)
            case events.CancelFailed(failure=failure) if now >= batch.deadline_at:
                # What it did is paid for, and nobody will read it.
                failure = Failure(Cause.TIMED_OUT, failure.message, failure.code)
                return self._batches.given_up(batch, shard, failure, now)
            case events.RunSeen(seen=seen):
                batch.failures = batch.missing = batch.waits = 0
                batch.alone = False
                return self._batches.seen(batch, shard, seen, now)
            case events.CancelAccepted(seen=seen):
                batch.cancels += 1
                return self._batches.seen(batch, shard, seen, now)
            case events.ResultFetched(seen=seen):
                return self._batches.fetched(batch, shard, seen, now)
            case _:
                return self._told_of(batch, event, now)

    def _told_of(  # noqa: C901, PLR0911, PLR0912 - one arm for each event
        self, run: Run, event: events.RunEvent, now: float
    ) -> Iterator[Deed]:
        match event:
            case events.RunCreated(seen=seen):
                return self._course.created(run, seen, now)
            case events.RunPrepared(continuation=continuation):
                return self._course.prepared(run, continuation, now)
            case events.OutputsAccepted(seen=seen):
                return self._course.outputs_accepted(run, seen, now)
            case events.RunSeen(seen=seen):
                run.failures = run.missing = run.waits = 0
                run.alone = False
                return self._course.seen(run, seen, now)
            case events.CancelAccepted(seen=seen):
                run.cancels += 1
                return self._course.seen(run, seen, now)
            case events.ToolFinished(output=output):
                return self._course.tool_finished(run, output, now)
            case events.CreateFailed(failure=failure):
                return self._setbacks.send_failed(run, failure, Change.CREATE_FAILED, now)
            case events.OutputsFailed(failure=failure):
                return self._setbacks.outputs_failed(run, failure, now)
            case events.RunMissing():
                return self._setbacks.missing_in_list(run, now)
            case events.ResultFetched(seen=seen):
                return self._course.fetched(run, seen, now)
            case events.FetchFailed(failure=failure):
                return self._setbacks.fetch_failed(run, failure, now)
            case events.CheckFailed(failure=failure):
                return self._setbacks.check_failed(run, failure, now)
            case events.CancelFailed(failure=failure):
                return self._setbacks.cancel_failed(run, failure, now)
            case events.StopRequested():
                error = RunError(event.outcome.value, event.reason)
                stop = Stop(event.outcome, error, event.cancel_remote, event.patience_seconds)
                return self._endings.stop(run, stop, now)
            case _:
                assert_never(event)

    def _admitted(self, event: events.RequestAdmitted, now: float) -> Iterator[Deed]:
        run = self.roster.admit(event.number, event.request, now)
        may_start = self.roster.may_start(run)
        if self.creates_stopped is not None:
            yield from self._endings.not_created(run, now)
        elif may_start:
            self.roster.line_up(run, now)

    def _time_passed(self, now: float) -> Iterator[Deed]:
        if now >= self._ends_at:
            yield from self._execution_over(now)
        self._calls.end_trial(now)
        self.roster.close_shards(now)
        self._webhooks.time_passed(now)
        for number in self.roster.schedule.take_due(now):
            run = self.roster.runs.get(number)
            if run is None:
                continue  # it ended with the batch that carried it
            if run.shard is not None and now >= run.deadline_at and run.state not in DONE:
                yield from self._batches.deadline_passed(run, run.shard, now)
            elif now >= run.deadline_at and run.state not in DONE:
                yield from self._endings.deadline_passed(run, now)
            elif now >= run.until and run.state in AT_WORK:
                yield from self._endings.run_deadline_passed(run, now)
            elif run.state is State.TOOLS:
                yield from self._course.tools_too_late(run, now)
            elif run.state in WANTED_IN:
                # What was sent before goes before what is new.
                self.roster.line_up(run, now, first=run.state is State.WAITING)

    def _execution_over(self, now: float) -> Iterator[Deed]:
        """Nothing new is created, and whatever is at work is cancelled."""
        self._ends_at = NEVER
        given = self._rules.execution_deadline_seconds
        error = RunError("execution_deadline", f"the execution had {given:g} s, which have passed")
        stop = Stop(Outcome.TIMED_OUT, error, cancel_remote=True)
        yield from self._endings.stop_creates(error, now)
        for run in list(self.roster.runs.values()):
            if run.number not in self.roster.runs or not run.is_wanted:
                continue
            if run.shard is not None:
                yield from self._batches.deadline_passed(run, run.shard, now)
            elif run.batch is not None and run.state in CALL_OUT:
                run.stop = stop  # what its batch has done by now is kept
            else:
                yield from self._endings.stop(run, stop, now)
