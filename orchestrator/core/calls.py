"""Which call goes out next: the most urgent one that fits what the limiter has left."""

from typing import assert_never

from orchestrator.core.actions import (
    Call,
    CancelRun,
    CheckRuns,
    CreateRun,
    FetchResult,
    RunToCheck,
    SubmitToolOutputs,
)
from orchestrator.core.batches import lines_of
from orchestrator.core.lanes import Want
from orchestrator.core.learned import Learned
from orchestrator.core.roster import NEVER, Roster
from orchestrator.core.rules import Rules
from orchestrator.core.runs import Run, Shard
from orchestrator.core.states import Change, State

# These reserve tokens with the limiter.
COSTS_TOKENS = frozenset({Want.CREATE, Want.SUBMIT})


class Calls:
    """Hands out calls, one for each permit."""

    def __init__(self, roster: Roster, rules: Rules, learned: Learned) -> None:
        self._roster = roster
        self._learned = learned
        self._rules = rules
        self.trial_until: float | None = None
        self.trial_over = False
        self.unreached = 0  # creates in a row that found no server, before any answer

    def tokens_wanted(self, name: str, now: float) -> int:
        """The tokens that the most urgent call of a lane reserves; 0 when it needs none."""
        lane = self._roster.lanes[name]
        for want, _ in lane.by_urgency():
            run = self._roster.head_of(lane, want, now)
            if run is not None:
                return run.request.tokens if want in COSTS_TOKENS else 0
        return 0

    def next_call(self, name: str, now: float, tokens_free: float) -> Call | None:
        lane = self._roster.lanes[name]
        for want, _ in lane.by_urgency():
            run = self._roster.head_of(lane, want, now)
            if run is None or (want in COSTS_TOKENS and run.request.tokens > tokens_free):
                continue
            if want is Want.CREATE and self._held_by_trial(now):
                continue
            self._roster.take_head(lane, want)
            lane.count(want)
            return self._call_for(want, run, name, now)
        return None

    def end_trial(self, now: float) -> None:
        """Nobody has to wake for the trial any more once its time has passed."""
        if self.trial_until is None or now < self.trial_until:
            return
        if self.unreached:
            self.trial_until = None  # the next create is the next trial
        else:
            self.trial_over = True

    def no_connection(self, gap_seconds: float, now: float) -> None:
        """The create on trial found no server; the next one is tried after a while."""
        self.unreached += 1
        self.trial_until = now + gap_seconds

    def _held_by_trial(self, now: float) -> bool:
        """Until the first create is answered it is out on trial: a refused key costs one call."""
        if self.trial_over:
            return False
        if self.trial_until is None:
            self.trial_until = now + self._rules.trial_seconds
            return False
        return now < self.trial_until

    def _call_for(self, want: Want, run: Run, lane: str, now: float) -> Call:
        match want:
            case Want.CREATE:
                return self._create(run, lane, now)
            case Want.SUBMIT:
                return self._submit(run, now)
            case Want.CHECK:
                return self._check(run, now)
            case Want.FETCH:
                return self._fetch(run, now)
            case Want.CANCEL:
                self._roster.move(run, Change.CANCEL_SENT, now)
                return CancelRun(run.number, run.run_id, run.request)
            case _:
                assert_never(want)

    def _create(self, run: Run, lane: str, now: float) -> CreateRun:
        self.create_sent(run, now)
        # The next call of the same create; and what may be there is in the group that was sent.
        again = run.prepared is not None or run.unanswered > 0
        group = run.group if again else self._roster.groups.join(run, lane)
        lines = lines_of(run.shard) if run.shard is not None and run.prepared is None else ()
        return CreateRun(
            number=run.number,
            request=run.request,
            attempt=run.sent,
            deadline_at=min(run.deadline_at, run.run_deadline_at),
            group=group,
            prepared=run.prepared,
            creates=run.creates,
            lost=run.unanswered,
            lines=lines,
        )

    def create_sent(self, run: Run, now: float) -> None:
        """A call of its create goes out."""
        self._roster.move(run, Change.CREATE_SENT, now)
        run.sent += 1
        if run.shard is not None:
            self._send_lines(run, run.shard, now)
            if run.prepared is not None and not run.shard.sent:
                self._count_sent(run.shard)
            return
        self._roster.budget.claim(run)
        run.run_deadline_at = now + self._rules.run_deadline_seconds
        if run.started_at == NEVER:
            run.started_at = now
            run.deadline_at = now + self._rules.deadline_seconds

    def outputs_sent(self, run: Run, now: float) -> None:
        """All tool outputs of a turn go out."""
        self._roster.move(run, Change.OUTPUTS_SENT, now)
        run.run_deadline_at = now + self._rules.run_deadline_seconds

    def _send_lines(self, batch: Run, shard: Shard, now: float) -> None:
        """Everything that a batch carries goes out with it, when it does so for the first time."""
        is_first = not shard.places
        if batch.prepared is None:
            shard.places = tuple(shard.runs)  # the file is written now, or once more
        if not is_first:
            return
        self._roster.totals.lines_out += len(shard.places)
        for run in shard.runs.values():
            self._roster.schedule.drop(run.number)
            creates = run.state is State.WAITING
            self._roster.budget.claim(run)
            self._roster.move(run, Change.CREATE_SENT if creates else Change.OUTPUTS_SENT, now)
            if run.started_at == NEVER:
                run.started_at = now
                run.deadline_at = now + self._rules.batch_deadline_seconds
            batch.deadline_at = min(batch.deadline_at, run.deadline_at)

    def _count_sent(self, shard: Shard) -> None:
        """With the create itself the lines are sent; the upload alone costs nothing."""
        shard.sent = True
        self._roster.totals.lines_sent += len(shard.runs)
        for run in shard.runs.values():
            run.sent += run.state is State.CREATING

    def _submit(self, run: Run, now: float) -> SubmitToolOutputs:
        answering = run.answering
        if answering is None:  # the table lets a run be ANSWERED only by its last tool output
            raise AssertionError(run)
        self.outputs_sent(run, now)
        return SubmitToolOutputs(
            number=run.number,
            run_id=run.run_id,
            request=run.request,
            outputs=answering.in_order(),
            continuation=answering.continuation,
            deadline_at=min(run.deadline_at, run.run_deadline_at),
        )

    def _check(self, due: Run, now: float) -> CheckRuns:
        """A run that is due, and all that run beside it in its group: they are answered for too."""
        if not due.group or due.alone:
            if not due.group:
                self._learned.check_sent(now - due.due_at)
            self._checked(due, now)
            return CheckRuns((RunToCheck(due.number, due.run_id, due.request),))
        members = [self._roster.runs[number] for number in self._roster.groups.members(due.group)]
        group = [run for run in members if run.state is State.RUNNING and not run.alone]
        for run in group:
            self._roster.schedule.drop(run.number)
            self._checked(run, now)
        return CheckRuns(
            tuple(RunToCheck(run.number, run.run_id, run.request) for run in group), due.group
        )

    def _fetch(self, run: Run, now: float) -> FetchResult:
        if run.finished is None:  # the table lets a run be FINISHED only by what was seen
            raise AssertionError(run)
        self._roster.move(run, Change.FETCH_SENT, now)
        lines = lines_of(run.shard) if run.shard is not None else ()
        return FetchResult(run.number, run.run_id, run.request, run.finished, lines)

    def _checked(self, run: Run, now: float) -> None:
        self._roster.move(run, Change.CHECK_SENT, now)
        run.checks += 1
        run.looks += 1
        self._roster.totals.checks += 1
