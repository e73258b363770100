"""How a request ends, and how a run that is not wanted any more is stopped."""

from collections.abc import Iterator

from orchestrator.core.actions import Deed, DropBatch, RecordOutcome, StopTools
from orchestrator.core.budget import usage_at_most
from orchestrator.core.families import FACTS
from orchestrator.core.model import Answer, Family, Outcome, Result, RunError, Times
from orchestrator.core.roster import NEVER, Roster
from orchestrator.core.rules import Rules
from orchestrator.core.runs import Run, Shard, Stop
from orchestrator.core.states import CALL_OUT, DONE, TABLE, Change, State


class Endings:
    """Ends runs; every way out of the scheduler leads through `end`."""

    def __init__(self, roster: Roster, rules: Rules) -> None:
        self._roster = roster
        self._rules = rules
        self.creates_stopped: RunError | None = None
        self._refusal = ""  # the code of the newest one
        self.refused_alike = 0  # requests in a row that ended by it

    def end(
        self,
        run: Run,
        outcome: Outcome,
        now: float,
        *,
        answer: Answer | None = None,
        error: RunError | None = None,
        times: Times | None = None,
        refusal: str = "",
    ) -> Iterator[Deed]:
        """The request has its outcome; nothing more is done about it.

        What a batch still carries ends as the batch does. `refusal` is the code of a refusal that
        is always the same for the same request.
        """
        if run.state is State.TOOLS:
            yield StopTools(run.number)
        carried = list(run.shard.runs.values()) if run.shard is not None else ()
        for each in carried:
            yield from self.end(each, outcome, now, error=error, refusal=refusal)
        self._roster.move(run, Change.ENDED, now, outcome)
        self._roster.forget(run, now)
        if run.shard is not None:
            self._note_end(run, run.shard, len(carried))
            said = run.finished.said if run.finished is not None else outcome.value
            yield DropBatch(run.number, run.run_id, said)
            return
        self._count_refusal(refusal)
        self._roster.totals.outcomes[outcome] += 1
        yield RecordOutcome(
            run.number,
            Result(
                request=run.request,
                outcome=outcome,
                answer=answer,
                error=error,
                usage=run.usage,
                run_id=run.run_id,
                creates=run.creates,
                checks=run.checks,
                turns=run.turns,
                number=run.number,
                sent=run.sent,
                lost=run.lost,
                lost_usage=usage_at_most(run.request) * run.lost,
                seconds=now - run.started_at if run.started_at < NEVER else 0.0,
                times=times,
                batch_usage=run.batch_usage,
            ),
        )

    def _count_refusal(self, code: str) -> None:
        self.refused_alike = self.refused_alike if code == self._refusal else 0
        self.refused_alike += code != ""
        self._refusal = code

    def _note_end(self, batch: Run, shard: Shard, unanswered: int) -> None:
        totals = self._roster.totals
        if not batch.creates:
            # It was never there, unless an answer was lost.
            totals.lines_undone += unanswered if shard.sent and not batch.lost else 0
            return
        totals.batches_there -= 1
        if batch.finished is None:
            totals.batches_left.append(batch.run_id)

    def stop(self, run: Run, stop: Stop, now: float) -> Iterator[Deed]:
        """Cancel the run on the server if that is wanted and possible, else end it here.

        While a call is out its answer is awaited first, for a while: a create that is on its way
        may become a run that has to be cancelled, or whose id has to be known.
        """
        was_wanted, run.stop = run.is_wanted, stop
        if run.request.family is Family.DIRECT:
            yield from self._stop_call(run, stop, now, was_wanted=was_wanted)
            return
        cancel_waits = stop.cancel_remote and run.state is State.STOPPING
        if (cancel_waits and not was_wanted) or (stop.cancel_remote and run.state in DONE):
            return  # its cancel waits already, or there is nothing left to cancel
        table = TABLE[run.request.family]
        if stop.cancel_remote:
            awaited = run.state in CALL_OUT
            grace = self._rules.cancel_grace_seconds
            if run.request.family is Family.BATCH:
                grace = self._rules.batch_cancel_grace_seconds
        else:
            may_become_a_run = (run.state, Change.SEEN_PENDING) in table
            # Tool outputs are another run, and paid for, unless the run waits for them.
            facts = FACTS[run.request.family]
            submits_a_run = run.state is State.SUBMITTING and not facts.waits_for_outputs
            awaited = submits_a_run or (run.state is State.CREATING and may_become_a_run)
            grace = max(self._rules.stop_grace_seconds, stop.patience_seconds)
        # A request has its own deadline until it is not wanted itself.
        run.run_deadline_at = now + grace
        if not stop.again:
            run.deadline_at = now + grace
        if awaited or cancel_waits:
            self._roster.watch_deadline(run)
            return
        if stop.cancel_remote and (run.state, Change.STOP_WANTED) in table:
            if run.state is State.TOOLS:
                yield StopTools(run.number)
            self._roster.move(run, Change.STOP_WANTED, now, stop.outcome)
            self._roster.line_up(run, now)
            return
        yield from self.end(run, stop.outcome, now, error=stop.error)

    def _stop_call(self, run: Run, stop: Stop, now: float, *, was_wanted: bool) -> Iterator[Deed]:
        """What answers at once leaves no run on the server: it is enough not to wait for it.

        A batch that nobody waits for any more is stopped in the same way as its last run.
        """
        batch = run.batch
        if batch is not None and batch.shard is not None and _may_get_an_id(batch, stop):
            batch.shard.unwanted += was_wanted
            if batch.shard.unwanted == len(batch.shard.runs):
                yield from self.stop(batch, stop, now)
            return
        if batch is None and run.state in CALL_OUT and stop.patience_seconds:
            # Its answer is paid for.
            run.deadline_at = min(run.deadline_at, now + stop.patience_seconds)
            self._roster.watch_deadline(run)
            return
        yield from self.end(run, stop.outcome, now, error=stop.error)
        if batch is not None and batch.shard is not None and not batch.shard.runs:
            yield from self.stop(batch, stop, now)

    def deadline_passed(self, run: Run, now: float) -> Iterator[Deed]:
        if run.stop is not None and not run.stop.again:
            # It was cancelled, or tried to be, and did not end within the grace.
            yield from self.end(run, run.stop.outcome, now, error=run.stop.error)
            return
        given = run.deadline_at - run.started_at
        message = f"not finished {given:g} s after it was first sent"
        error = RunError("deadline_exceeded", message)
        yield from self.stop(run, Stop(Outcome.TIMED_OUT, error, cancel_remote=True), now)

    def run_deadline_passed(self, run: Run, now: float) -> Iterator[Deed]:
        """This run takes too long; its request may have time for another one."""
        if run.stop is None:
            if (stop := self.overdue(run, now)) is not None:
                yield from self.stop(run, stop, now)
            return
        # It does not even end when it is cancelled, so nobody will know what it cost.
        run.lost += 1
        self._roster.totals.creates_lost += 1
        self._roster.budget.lose(run, is_create=False)
        yield from self.gone(run, run.stop, now)

    def overdue(self, run: Run, now: float) -> Stop | None:
        """Why a run is cancelled, or was in a session before, whose wish no journal has."""
        if now < run.run_deadline_at:
            return None
        given = self._rules.run_deadline_seconds
        error = RunError("run_deadline_exceeded", f"its run did not end within {given:g} s")
        return Stop(Outcome.TIMED_OUT, error, cancel_remote=True, again=True)

    def gone(
        self, run: Run, stop: Stop, now: float, answer: Answer | None = None
    ) -> Iterator[Deed]:
        """A run that was stopped is over: its request ends, or gets another run."""
        run.attempts_failed += stop.again
        in_time = now < run.deadline_at and self.creates_stopped is None
        if stop.again and in_time and run.attempts_failed < self._rules.attempts_max:
            self.start_over(run, now, stop.error.code)
            self._roster.line_up(run, now, first=True)
            return
        yield from self.end(run, stop.outcome, now, answer=answer, error=stop.error)

    def run_anew(self, run: Run, now: float) -> Iterator[Deed]:
        """A run is over that only an interrupt had cancelled; its request was wanted all along."""
        if self.creates_stopped is not None:
            yield from self.end(run, Outcome.STOPPED, now, error=self.creates_stopped)
            return
        self.start_over(run, now, "interrupted")
        self._roster.line_up(run, now, first=True)

    def start_over(self, run: Run, now: float, why: str) -> None:
        """The request waits for another run."""
        self._roster.totals.retries += 1
        self._roster.move(run, Change.RUN_AGAIN, now, why)
        run.failures = run.cancels = run.missing = run.unanswered = run.looked_for = 0
        self._roster.name(run, "", now)
        run.was_cancelled = False
        run.prepared = run.answering = run.finished = run.stop = None
        self._roster.budget.release(run)
        self._roster.let_in(now)

    def give_up_all(self, number: int, error: RunError, now: float) -> Iterator[Deed]:
        """No request will work; the one that showed it, and all that wait, are stopped."""
        run = self._roster.runs.get(number)
        if run is not None:
            yield from self.end(run, Outcome.STOPPED, now, error=error)
        yield from self.stop_creates(error, now)

    def stop_creates(self, error: RunError, now: float) -> Iterator[Deed]:
        """Create nothing more. What waits to be created ends; what runs is seen to its end."""
        if self.creates_stopped is not None:
            return  # since then nothing has begun to wait
        self.creates_stopped = error
        while waiting := self._waiting():  # a batch that ends lets others in, which are packed anew
            for run in waiting:
                if run.number in self._roster.runs:  # what a batch carries ends with it
                    yield from self.not_created(run, now)

    def not_created(self, run: Run, now: float) -> Iterator[Deed]:
        """It would have to be created, and nothing is any more."""
        yield from self.end(run, Outcome.STOPPED, now, error=self.creates_stopped)

    def _waiting(self) -> list[Run]:
        return [run for run in self._roster.runs.values() if run.state is State.WAITING]


def _may_get_an_id(batch: Run, stop: Stop) -> bool:
    """A batch that is being created and left alone: its id has to be known, for a while."""
    return not stop.cancel_remote and batch.state is State.CREATING and batch.prepared is not None
