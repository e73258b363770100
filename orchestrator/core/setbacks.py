"""What follows for a run when a call for it failed. The sense of each failure is in failures.py."""

from collections.abc import Callable, Iterator

from orchestrator.core.actions import Deed
from orchestrator.core.endings import Endings
from orchestrator.core.failures import (
    VERDICT_ON_CHECK,
    VERDICT_ON_CREATE,
    Cause,
    Failure,
    Verdict,
)
from orchestrator.core.families import FACTS
from orchestrator.core.model import Outcome, RunError
from orchestrator.core.polling import KEPT_PART_MAX
from orchestrator.core.roster import Roster
from orchestrator.core.rules import Rules
from orchestrator.core.runs import Run, Stop
from orchestrator.core.states import Change, State

TURNED_AWAY = frozenset({Cause.RATE_LIMITED, Cause.QUOTA})


class Setbacks:
    """Decides between again, later, and never."""

    def __init__(
        self, roster: Roster, rules: Rules, endings: Endings, chance: Callable[[], float]
    ) -> None:
        self._roster = roster
        self._rules = rules
        self._endings = endings
        self._chance = chance

    def send_failed(self, run: Run, failure: Failure, back: Change, now: float) -> Iterator[Deed]:
        """A create or a submission failed; `back` is the change to the state before it."""
        totals = self._roster.totals
        is_create = back is Change.CREATE_FAILED
        if failure.maybe_done:
            self._lost(run, is_create=is_create)
        verdict = VERDICT_ON_CREATE[failure.cause]
        if verdict is Verdict.STOP:
            yield from self._endings.give_up_all(run.number, error_of(failure), now)
            return
        in_time = run.stop is None and now < run.deadline_at
        if in_time and failure.maybe_done and self._leaves_lost(run, is_create=is_create):
            message = f"whether it was done, and is to be paid, nobody knows: {failure.message}"
            error = RunError("create_lost", message, failure.cause)
            yield from self._endings.end(run, Outcome.UNKNOWN, now, error=error)
            return
        if self._was_tried_enough(run, failure, verdict) or not in_time:
            is_refused = is_create and in_time and verdict is Verdict.FAIL
            yield from self._give_up(run, failure, now, is_refused=is_refused)
            return
        if is_create and self._endings.creates_stopped is not None:
            yield from self._endings.not_created(run, now)
            return
        totals.retries += 1
        self._roster.move(run, back, now, failure.cause)
        gap = self._gap(run, failure)
        if run.unanswered and failure.maybe_done and FACTS[run.request.family].finds_lost_creates:
            gap = max(gap, self._rules.list_lag_seconds)  # then a list shows whether it is there
        self._roster.wake(run, now + gap)

    def _lost(self, run: Run, *, is_create: bool) -> None:
        run.lost += 1
        run.unanswered += is_create
        self._roster.totals.creates_lost += 1
        self._roster.budget.lose(run, is_create=is_create)

    def _leaves_lost(self, run: Run, *, is_create: bool) -> bool:
        can_look = is_create and FACTS[run.request.family].finds_lost_creates
        return self._rules.gives_up_lost and not can_look

    def _was_tried_enough(self, run: Run, failure: Failure, verdict: Verdict) -> bool:
        if verdict is Verdict.WAIT:
            run.waits += 1
            self._roster.totals.waits += 1
            return run.waits > self._rules.waits_max
        if verdict is not Verdict.RETRY:
            return True
        run.failures += 1
        # An answer that can't be read is paid for, and the next one will be like it.
        if failure.cause is Cause.MALFORMED and run.failures >= self._rules.malformed_max:
            return True
        return run.failures + run.attempts_failed >= self._rules.attempts_max

    def outputs_failed(self, run: Run, failure: Failure, now: float) -> Iterator[Deed]:
        """Tool outputs were refused, or nobody knows.

        A run that waits on the server is looked at: it may have taken them, or have expired. The
        outputs are kept, so no handler is called twice.
        """
        verdict = VERDICT_ON_CREATE[failure.cause]
        unsure = verdict is Verdict.FAIL or failure.maybe_done or failure.cause is Cause.CONFLICT
        if not (FACTS[run.request.family].waits_for_outputs and unsure):
            yield from self.send_failed(run, failure, Change.OUTPUTS_FAILED, now)
            return
        # The look in between is answered, so refusals are counted apart from failures.
        run.refusals += 1
        given_up = run.refusals >= self._rules.attempts_max
        if given_up or run.stop is not None or now >= run.deadline_at:
            yield from self._give_up(run, failure, now)
            return
        self._roster.totals.retries += 1
        self._roster.move(run, Change.OUTPUTS_REFUSED, now, failure.cause)
        self._roster.wake(run, now + self._gap(run, failure))

    def fetch_failed(self, run: Run, failure: Failure, now: float) -> Iterator[Deed]:
        """The result is paid for, so it is asked for as long as there is hope."""
        run.failures += VERDICT_ON_CHECK[failure.cause] is not Verdict.WAIT
        run.waits += failure.cause in TURNED_AWAY
        run.missing += failure.cause in {Cause.NOT_FOUND, Cause.BAD_REQUEST}
        given_up = (
            run.failures >= self._rules.check_failures_max or run.waits > self._rules.waits_max
        )
        stopped = VERDICT_ON_CHECK[failure.cause] is Verdict.STOP
        if given_up or stopped or run.missing >= self._rules.not_found_max:
            finished = run.finished
            message = f"the run finished, but its result can't be fetched: {failure.message}"
            yield from self._endings.end(
                run,
                Outcome.EXPIRED if failure.cause is Cause.NOT_FOUND else Outcome.UNKNOWN,
                now,
                answer=finished.answer if finished else None,
                error=RunError("result_not_fetched", message),
            )
            return
        self._roster.move(run, Change.FETCH_FAILED, now, failure.cause)
        self._roster.wake(run, now + self._gap(run, failure))

    def missing_in_list(self, run: Run, now: float) -> Iterator[Deed]:
        """Lists lag behind: a new run is waited for, an older one is asked for by itself."""
        self._roster.move(run, Change.CHECK_FAILED, now, "not in the list")
        if run.stop is not None and run.cancels == 0:
            yield from self._endings.stop(run, run.stop, now)
        elif now < run.created_at + self._rules.list_lag_seconds:
            keeps = FACTS[run.request.family].keeps_result_seconds
            gap = self._rules.polling.gap_seconds(run.looks, None, keeps, self._chance())
            self._roster.wake(run, now + gap)
        else:
            run.alone = True
            self._roster.line_up(run, now)

    def check_failed(self, run: Run, failure: Failure, now: float) -> Iterator[Deed]:
        """The run is paid for, so it is looked at again as long as there is hope."""
        verdict = VERDICT_ON_CHECK[failure.cause]
        if verdict is Verdict.STOP:
            yield from self._endings.give_up_all(run.number, error_of(failure), now)
            return
        if verdict is Verdict.WAIT:
            run.waits += 1
            self._roster.totals.waits += 1
        else:
            run.failures += 1
        run.missing += failure.cause in {Cause.NOT_FOUND, Cause.BAD_REQUEST}
        # A list that does not work must not cost what it would have told of.
        run.alone = run.alone or (run.group > 0 and run.failures >= self._rules.list_failures_max)
        given_up = run.failures >= self._rules.check_failures_max
        if given_up or run.missing >= self._rules.not_found_max:
            if run.stop is not None:
                yield from self._endings.gone(run, run.stop, now)
                return
            gone = failure.cause is Cause.NOT_FOUND
            outcome = Outcome.EXPIRED if gone else Outcome.UNKNOWN
            yield from self._endings.end(run, outcome, now, error=error_of(failure))
            return
        self._roster.move(run, Change.CHECK_FAILED, now, failure.cause)
        if run.stop is not None and run.cancels == 0:
            yield from self._endings.stop(run, run.stop, now)
            return
        # A long Retry-After must not outlast the result.
        keeps = FACTS[run.request.family].keeps_result_seconds
        self._roster.wake(run, now + min(self._gap(run, failure), keeps * KEPT_PART_MAX))

    def cancel_failed(self, run: Run, failure: Failure, now: float) -> Iterator[Deed]:
        """A refused cancel often means that the run has just ended, so it is looked at again."""
        run.failures += 1
        run.waits += failure.cause in TURNED_AWAY
        if failure.cause in {Cause.BAD_REQUEST, Cause.CONFLICT, Cause.NOT_FOUND}:
            run.cancels += 1
            self._roster.move(run, Change.CANCEL_REFUSED, now, failure.cause)
            self._roster.line_up(run, now)
            return
        if VERDICT_ON_CHECK[failure.cause] is Verdict.STOP or now >= run.until:
            stop = run.stop or self._reason_to_give_up(run, failure, now)
            yield from self._endings.gone(run, stop, now)
            return
        self._roster.move(run, Change.CANCEL_FAILED, now, failure.cause)
        self._roster.wake(run, now + self._gap(run, failure))

    def _give_up(
        self, run: Run, failure: Failure, now: float, *, is_refused: bool = False
    ) -> Iterator[Deed]:
        stop = run.stop or self._reason_to_give_up(run, failure, now)
        if run.state is State.SUBMITTING and FACTS[run.request.family].waits_for_outputs:
            # It is still there, waiting, and keeps its thread from others.
            self._roster.move(run, Change.OUTPUTS_REFUSED, now, failure.cause)
            yield from self._endings.stop(run, stop, now)
            return
        refusal = stop.error.code if is_refused else ""
        yield from self._endings.end(run, stop.outcome, now, error=stop.error, refusal=refusal)
        alike, alike_max = self._endings.refused_alike, self._rules.same_failures_max
        if is_refused and 0 < alike_max <= alike:
            message = f"{alike} requests in a row were refused with {refusal}: {failure.message}"
            yield from self._endings.stop_creates(RunError("same_failure", message), now)

    def _reason_to_give_up(self, run: Run, failure: Failure, now: float) -> Stop:
        if failure.cause is Cause.TIMED_OUT and run.run_deadline_at <= now < run.deadline_at:
            given = self._rules.run_deadline_seconds
            message = f"its last call was not answered within {given:g} s"
            error = RunError("run_deadline_exceeded", message, failure.cause)
            return Stop(Outcome.TIMED_OUT, error, cancel_remote=True)
        if now < run.deadline_at:
            return Stop(Outcome.FAILED, error_of(failure), cancel_remote=True)
        given = run.deadline_at - run.started_at
        message = f"not finished {given:g} s after it was first sent; "
        error = RunError("deadline_exceeded", message + f"the last call: {failure.message}")
        return Stop(Outcome.TIMED_OUT, error, cancel_remote=True)

    def _gap(self, run: Run, failure: Failure) -> float:
        # A limit that turns calls away again and again is asked less and less often.
        waits = failure.cause in TURNED_AWAY or failure.cause is Cause.BUSY
        times = run.waits if waits else max(run.failures, run.refusals)
        return self._rules.backoff.gap_seconds(
            max(times, 1), failure.retry_after_seconds, self._chance()
        )


def error_of(failure: Failure) -> RunError:
    """What a person reads about a failed call."""
    return RunError(failure.code or failure.cause.value, failure.message, failure.cause)
