"""What follows for a run from what was seen of it: look again, call tools, run again, finish."""

from collections.abc import Callable, Iterator

from orchestrator.core.actions import CallTool, Deed, StopTools
from orchestrator.core.endings import Endings
from orchestrator.core.failures import RETRYABLE_RUN_CODES
from orchestrator.core.families import FACTS, About
from orchestrator.core.looking import Looking
from orchestrator.core.model import (
    OUTCOME_OF,
    Family,
    Outcome,
    RunError,
    Seen,
    Status,
    ToolOutput,
)
from orchestrator.core.roster import NEVER, Roster
from orchestrator.core.rules import Rules
from orchestrator.core.runs import Answering, Run, Stop
from orchestrator.core.states import Change, State


class Course:
    """Reads what the server says of a run and sets its course."""

    def __init__(
        self,
        roster: Roster,
        rules: Rules,
        endings: Endings,
        looking: Looking,
        chance: Callable[[], float],
    ) -> None:
        self._roster = roster
        self._looking = looking
        self._rules = rules
        self._endings = endings
        self._chance = chance

    def created(self, run: Run, seen: Seen, now: float) -> Iterator[Deed]:
        run.creates += 1
        run.unanswered = run.looked_for = 0
        run.created_at = now
        if seen.found:
            run.lost -= 1
            self._roster.totals.creates_lost -= 1
        self._roster.totals.created += 1
        self._roster.totals.created_to_check += run.request.family is not Family.DIRECT
        return self._accepted(run, seen, now)

    def prepared(self, run: Run, continuation: bytes, now: float) -> Iterator[Deed]:
        """The next call of its create may go out."""
        # A look that found nothing is no progress: the creates that were lost still count.
        run.failures, run.waits = run.unanswered, 0
        run.looked_for = run.unanswered
        run.prepared = continuation
        run.sent -= 1  # what a create needs before costs nothing
        self._roster.move(run, Change.PREPARED, now)
        if run.stop is not None:
            yield from self._endings.stop(run, run.stop, now)
        elif self._endings.creates_stopped is not None:
            yield from self._endings.not_created(run, now)
        else:
            self._roster.line_up(run, now, first=True)

    def outputs_accepted(self, run: Run, seen: Seen, now: float) -> Iterator[Deed]:
        run.turns += 1
        self._roster.totals.turns += 1
        if run.answering is not None:
            run.answered |= run.answering.outputs.keys()
            run.answering = None
        return self._accepted(run, seen, now)

    def _accepted(self, run: Run, seen: Seen, now: float) -> Iterator[Deed]:
        # A direct answer is always a new turn: some servers number its calls from 0 each time.
        if seen.run_id != run.run_id or run.request.family is Family.DIRECT:
            run.answered = frozenset()
            run.stale_looks = 0
        self._roster.name(run, seen.run_id, now)
        run.began_at = now
        run.failures = run.missing = run.waits = run.refusals = 0
        run.looks = 0
        return self.seen(run, seen, now)

    def seen(self, run: Run, seen: Seen, now: float) -> Iterator[Deed]:
        if run.request.family is Family.DIRECT and _nothing_to_do(seen):
            yield from self._not_understood(run, seen, now)
            return
        if seen.status is Status.PENDING:
            yield from self.still_running(run, seen.look_again_seconds, now)
            return
        if seen.status is Status.REQUIRES_ACTION and _all_answered(run, seen):
            yield from self._asked_again(run, seen, now)
            return
        self.note_delay(run, seen, now)
        self._count(run, seen)
        if seen.status is Status.REQUIRES_ACTION:
            yield from self._call_tools(run, seen, now)
        elif self._worth_another_run(run, seen):
            self._run_again(run, seen, now)
        else:
            yield from self._finished(run, seen, now)

    def still_running(self, run: Run, hint: float | None, now: float) -> Iterator[Deed]:
        if self._roster.replaying:
            self._looking.begun_before(run)
        else:
            self._looking.found_running(run, now)
        self._roster.move(run, Change.SEEN_PENDING, now)
        run.pending_at = now
        if run.stop is not None and run.cancels == 0:
            yield from self._endings.stop(run, run.stop, now)
            return
        gap = self._looking.gap_seconds(run, hint, now)
        gap = self._roster.hearing.gap_seconds(run, gap, hint, self._chance, now)
        self._roster.wake(run, now + gap)

    def _finished(self, run: Run, seen: Seen, now: float) -> Iterator[Deed]:
        fetches = FACTS[run.request.family].fetches_result
        if fetches and seen.status in {Status.COMPLETED, Status.INCOMPLETE}:
            run.finished = seen
            self._roster.move(run, Change.SEEN_FINISHED, now, seen.said)
            self._roster.line_up(run, now)
            return
        yield from self._ended(run, seen, now)

    def fetched(self, run: Run, seen: Seen, now: float) -> Iterator[Deed]:
        """Part of the result, all of it, or the news that the run has not finished so well."""
        run.failures = run.missing = run.waits = 0
        self._count(run, seen)
        if seen.status is Status.PENDING:
            run.finished = None
            self._roster.hearing.withdraw(run, now)
            yield from self.still_running(run, None, now)
        elif self._worth_another_run(run, seen):
            self._run_again(run, seen, now)
        elif seen.status is Status.COMPLETED and seen.continuation is not None:
            run.finished = seen
            self._roster.move(run, Change.MORE_TO_FETCH, now)
            self._roster.line_up(run, now)
        else:
            yield from self._ended(run, seen, now)

    def _ended(self, run: Run, seen: Seen, now: float) -> Iterator[Deed]:
        outcome, error = OUTCOME_OF[seen.status], seen.error
        if outcome is Outcome.UNKNOWN:
            error = RunError("unknown_status", f"the server says {seen.said!r}, which is no status")
        stop = run.stop or self._endings.overdue(run, now)
        if stop is not None and stop.again:
            if outcome is Outcome.CANCELLED:
                yield from self._endings.gone(run, stop, now, seen.answer)
                return
        elif run.stop is not None and outcome is not Outcome.COMPLETED:
            outcome, error = run.stop.outcome, run.stop.error
        elif run.was_cancelled and outcome is Outcome.CANCELLED:
            yield from self._endings.run_anew(run, now)
            return
        yield from self._endings.end(
            run, outcome, now, answer=seen.answer, error=error, times=seen.times
        )

    def _not_understood(self, run: Run, seen: Seen, now: float) -> Iterator[Deed]:
        message = f"{run.request.url} answers at once, yet it says {seen.said!r} and no more"
        error = RunError("unfinished_answer", message)
        self._count(run, seen)
        yield from self._endings.end(run, Outcome.UNKNOWN, now, answer=seen.answer, error=error)

    def _count(self, run: Run, seen: Seen) -> None:
        run.usage += seen.usage
        self._roster.budget.spend(run, seen.usage)

    def _worth_another_run(self, run: Run, seen: Seen) -> bool:
        if not run.is_wanted or self._endings.creates_stopped is not None:
            return False
        if seen.status is Status.EXPIRED and FACTS[run.request.family].runs_again_when_expired:
            return run.runs_expired < self._rules.expired_runs_max
        return (
            seen.status is Status.FAILED
            and seen.error is not None
            and seen.error.code in RETRYABLE_RUN_CODES
            and run.attempts_failed + 1 < self._rules.attempts_max
        )

    def _run_again(self, run: Run, seen: Seen, now: float) -> None:
        if seen.status is Status.EXPIRED:
            run.runs_expired += 1
        else:
            run.attempts_failed += 1
        self._endings.start_over(run, now, seen.error.code if seen.error else "")
        failed = max(run.attempts_failed, 1)
        gap = self._rules.backoff.gap_seconds(failed, None, self._chance())
        self._roster.wake(run, now + gap)

    def note_delay(self, run: Run, seen: Seen, now: float) -> None:
        """How late we noticed: by the server's clock, but never more than the gap before.

        Without the server's word, from its webhook on; without that, half the gap: the end is
        equally likely anywhere in it.
        """
        if run.state is not State.CHECKING:
            self._roster.hearing.forget_told(run)
            return
        waits = FACTS[run.request.family].waits_for_outputs
        asks = waits and seen.status is Status.REQUIRES_ACTION
        about = About.ACTION if asks else About.END
        ago = seen.finished_seconds_ago
        told_at = self._roster.hearing.notice(run, about, ago, now)
        if not self._roster.replaying:
            self._looking.found_ended(run, seen, told_at, now)
        gap = now - run.pending_at
        if ago is None and told_at is not None:
            delay = now - told_at
        else:
            delay = gap / 2 if ago is None else min(max(ago, 0.0), gap)
        self._roster.totals.detection_delays_seconds.append(delay)

    # Tools.

    def _call_tools(self, run: Run, seen: Seen, now: float) -> Iterator[Deed]:
        waits = FACTS[run.request.family].waits_for_outputs
        if run.stop is not None and run.stop.again and not waits:
            run.stop = None  # it came to the end of its turn before it could be cancelled
        stop = run.stop or self._reason_to_stop(run, seen)
        if stop is not None:
            yield from self._stop_asking(run, stop, seen, now)
            return
        unanswered = {c.call_id: c for c in seen.tool_calls if c.call_id not in run.answered}
        # After a refused submission the outputs are there already.
        kept = run.answering.outputs if run.answering is not None else {}
        outputs = {call_id: kept[call_id] for call_id in unanswered if call_id in kept}
        run.answering = Answering(tuple(unanswered.values()), seen.continuation, outputs)
        self._roster.move(run, Change.SEEN_TOOL_CALLS, now, f"{len(unanswered)} calls")
        if run.answering.complete:
            self._answered(run, now)
            return
        self._roster.totals.tool_calls += len(unanswered) - len(outputs)
        expires_at = NEVER if seen.lives_seconds is None else run.created_at + seen.lives_seconds
        # A run that outlives its time by our clock is believed to live.
        run.expires_at = expires_at if expires_at > now else NEVER
        self._roster.watch_tools(run)
        for call in run.answering.calls:
            if call.call_id not in outputs:
                yield CallTool(run.number, run.request, call)

    def _reason_to_stop(self, run: Run, seen: Seen) -> Stop | None:
        error = seen.unanswerable
        if error is None and run.turns >= self._rules.turns_max:
            message = f"the model still asks for tools after {run.turns} turns"
            error = RunError("too_many_turns", message)
        return None if error is None else Stop(Outcome.FAILED, error, cancel_remote=True)

    def _stop_asking(self, run: Run, stop: Stop, seen: Seen, now: float) -> Iterator[Deed]:
        """The run asks for something that it will not get."""
        if FACTS[run.request.family].waits_for_outputs:
            run.stop = stop
            yield from self.still_running(run, None, now)
        else:
            yield from self._endings.end(
                run, stop.outcome, now, answer=seen.answer, error=stop.error
            )

    def tools_too_late(self, run: Run, now: float) -> Iterator[Deed]:
        """The server waits no longer: what the tools would still bring is of no use."""
        yield StopTools(run.number)
        run.answering = None
        run.expires_at = NEVER
        self._roster.move(run, Change.TOOLS_TOO_LATE, now)
        self._roster.line_up(run, now)

    def _asked_again(self, run: Run, seen: Seen, now: float) -> Iterator[Deed]:
        """The outputs were accepted, but the status does not show it yet. Never answer twice."""
        run.stale_looks += 1
        if run.stale_looks > self._rules.stale_looks_max:
            message = f"still asks for accepted tool outputs after {run.stale_looks - 1} checks"
            error = RunError("tool_outputs_ignored", message)
            stop = Stop(Outcome.FAILED, error, cancel_remote=True)
            yield from self._stop_asking(run, run.stop or stop, seen, now)
            return
        run.looks = 0
        yield from self.still_running(run, None, now)

    def tool_finished(self, run: Run, output: ToolOutput, now: float) -> Iterator[Deed]:
        answering = run.answering
        if run.state is not State.TOOLS or answering is None:
            return
        if any(call.call_id == output.call_id for call in answering.calls):
            answering.outputs.setdefault(output.call_id, output)
            self._roster.totals.tool_failures += output.failed
        if answering.complete:
            self._answered(run, now)
        yield from ()

    def _answered(self, run: Run, now: float) -> None:
        self._roster.move(run, Change.TOOLS_FINISHED, now)
        self._roster.line_up(run, now)


def _all_answered(run: Run, seen: Seen) -> bool:
    return all(call.call_id in run.answered for call in seen.tool_calls)


def _nothing_to_do(seen: Seen) -> bool:
    """Neither an end nor a tool to call; there is no run that could be looked at again."""
    asks_for_nothing = seen.status is Status.REQUIRES_ACTION and not seen.tool_calls
    return seen.status is Status.PENDING or asks_for_nothing
