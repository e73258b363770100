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
from orchestrator.core.runs import Run
from orchestrator.core.states import Change

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
        run.lost += failure.maybe_done
        totals.creates_lost += failure.maybe_done
        match VERDICT_ON_CREATE[failure.cause]:
            case Verdict.STOP:
                yield from self._endings.give_up_all(run.number, error_of(failure), now)
                return
            case Verdict.FAIL:
                given_up = True
            case Verdict.WAIT:
                run.waits += 1
                totals.waits += 1
                given_up = run.waits > self._rules.waits_max
            case Verdict.RETRY:
                run.failures += 1
                attempts = run.failures + run.attempts_failed
                given_up = attempts >= self._rules.attempts_max
                # An answer that can't be read is paid for, and the next one will be like it.
                if failure.cause is Cause.MALFORMED:
                    given_up = given_up or run.failures >= self._rules.malformed_max
        if given_up or run.stop is not None or now >= run.deadline_at:
            yield from self._give_up(run, failure, now)
            return
        if back is Change.CREATE_FAILED and self._endings.creates_stopped is not None:
            stopped = self._endings.creates_stopped
            yield from self._endings.end(run, Outcome.STOPPED, now, error=stopped)
            return
        totals.retries += 1
        self._roster.move(run, back, now, failure.cause)
        self._roster.wake(run, now + self._gap(run, failure))

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
        given_up = run.failures >= self._rules.check_failures_max
        if given_up or run.missing >= self._rules.not_found_max:
            if run.stop is not None:
                yield from self._endings.end(run, run.stop.outcome, now, error=run.stop.error)
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
        if VERDICT_ON_CHECK[failure.cause] is Verdict.STOP or now >= run.deadline_at:
            yield from self._give_up(run, failure, now)
            return
        self._roster.move(run, Change.CANCEL_FAILED, now, failure.cause)
        self._roster.wake(run, now + self._gap(run, failure))

    def _give_up(self, run: Run, failure: Failure, now: float) -> Iterator[Deed]:
        if run.stop is not None:
            yield from self._endings.end(run, run.stop.outcome, now, error=run.stop.error)
        elif now >= run.deadline_at:
            message = f"not finished {self._rules.deadline_seconds:g} s after it was first sent; "
            error = RunError("deadline_exceeded", message + f"the last call: {failure.message}")
            yield from self._endings.end(run, Outcome.TIMED_OUT, now, error=error)
        else:
            yield from self._endings.end(run, Outcome.FAILED, now, error=error_of(failure))

    def _gap(self, run: Run, failure: Failure) -> float:
        # A limit that turns calls away again and again is asked less and less often.
        times = run.waits if failure.cause in TURNED_AWAY else run.failures
        return self._rules.backoff.gap_seconds(
            max(times, 1), failure.retry_after_seconds, self._chance()
        )


def error_of(failure: Failure) -> RunError:
    """What a person reads about a failed call."""
    return RunError(failure.code or failure.cause.value, failure.message)
