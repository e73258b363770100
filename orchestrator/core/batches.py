"""The life of a batch, and what becomes of the runs that it carries.

To its runs a batch is a long call: they are sent when it is, and each is answered by a line of its
files, in the same way as by a call of its own. So retries, tool calls and failures are decided
where they always are. Whatever a batch leaves unanswered is a failure of that call: what was never
done goes into the next batch, and what may be paid for is counted as such.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

from orchestrator.core import events
from orchestrator.core.actions import BatchLine, Deed, DropBatch
from orchestrator.core.course import Course
from orchestrator.core.endings import Endings
from orchestrator.core.failures import RETRYABLE_RUN_CODES, Cause, Failure
from orchestrator.core.model import Outcome, RunError, Seen, Status
from orchestrator.core.roster import Roster
from orchestrator.core.rules import Rules
from orchestrator.core.runs import Run, Shard, Stop
from orchestrator.core.setbacks import Setbacks
from orchestrator.core.states import Change, State

# The prompts that wait for a model are too many. Source: reports of people who met it.
QUEUE_FULL_CODES = frozenset({"token_limit_exceeded"})

# The file is larger than this server takes. Source: the same.
TOO_LARGE_CODES = frozenset({"too_many_tasks", "file_too_large"})

TOO_LARGE_STATUS = 413  # HTTP

FailureOf = Callable[[Run], Failure]


class Batches:
    """Decides about batches; what they carry is handed to those who decide about calls."""

    def __init__(
        self, roster: Roster, rules: Rules, endings: Endings, course: Course, setbacks: Setbacks
    ) -> None:
        self._roster = roster
        self._rules = rules
        self._endings = endings
        self._course = course
        self._setbacks = setbacks

    def created(self, batch: Run, shard: Shard, seen: Seen, now: float) -> Iterator[Deed]:
        """The batch is on its server."""
        totals = self._roster.totals
        totals.batches += 1
        totals.batches_there += 1
        window = seen.lives_seconds or self._rules.batch_window_seconds
        batch.deadline_at = min(batch.deadline_at, now + window + self._rules.batch_late_seconds)
        for run in list(shard.runs.values()):
            run.run_id = seen.run_id
            if run.stop is not None:
                yield from self._endings.end(run, run.stop.outcome, now, error=run.stop.error)
        # One that was found may have ended meanwhile; a look tells, and is understood as others.
        seen = replace(seen, status=Status.PENDING)
        yield from self._course.created(batch, seen, now)

    def seen(self, batch: Run, shard: Shard, seen: Seen, now: float) -> Iterator[Deed]:
        """A check was answered, or a cancel."""
        if seen.batch is not None:
            self._roster.totals.lines_answered_there += seen.batch.answered - shard.answered
            shard.answered = seen.batch.answered
        if seen.status is Status.PENDING:
            yield from self._course.still_running(batch, seen.look_again_seconds, now)
            return
        self._course.note_delay(batch, seen, now)
        batch.finished = seen
        if seen.continuation is not None:
            self._roster.move(batch, Change.SEEN_FINISHED, now, seen.said)
            self._roster.line_up(batch, now)
            return
        yield from self._over(batch, shard, seen, now)

    def fetched(self, batch: Run, shard: Shard, seen: Seen, now: float) -> Iterator[Deed]:
        """One of its files was read, or all."""
        batch.failures = batch.missing = batch.waits = 0
        if seen.continuation is not None:
            batch.finished = seen
            self._roster.move(batch, Change.MORE_TO_FETCH, now)
            self._roster.line_up(batch, now)
            return
        yield from self._over(batch, shard, seen, now)

    def line_answered(self, event: events.LineAnswered, now: float) -> Iterator[Deed]:
        """What came of one line; a second line about the same run means nothing."""
        batch = self._roster.runs.get(event.batch)
        shard = batch.shard if batch is not None else None
        if shard is None:
            return
        shard.delivered += event.number > 0  # 0 is a line that is nobody's
        run = shard.runs.get(event.number)
        if run is None:
            return
        self._roster.take_out(run)
        answer = event.answer
        undone = isinstance(answer, Failure) and answer.cause is Cause.UNDONE
        self._roster.totals.lines_answered += not undone
        self._roster.totals.lines_undone += undone
        if isinstance(answer, Failure):
            yield from self._failed(run, answer, now)
            return
        run.batch_usage += answer.usage
        if run.state is State.SUBMITTING:
            yield from self._course.outputs_accepted(run, answer, now)
        else:
            yield from self._course.created(run, answer, now)

    def deadline_passed(self, batch: Run, shard: Shard, now: float) -> Iterator[Deed]:
        """One of its runs has no time left, or its server has forgotten it."""
        if batch.stop is None and batch.state is not State.WAITING:
            message = f"{batch.run_id or 'the batch'} did not end in time"
            stop = Stop(Outcome.TIMED_OUT, RunError("batch_late", message), cancel_remote=True)
            yield from self._endings.stop(batch, stop, now)
            return
        cause = Cause.UNDONE if batch.state is State.WAITING else Cause.TIMED_OUT
        message = f"{batch.run_id or 'the batch'} did not end, not even when it was cancelled"
        yield from self.dissolve(batch, shard, lambda _: Failure(cause, message), now)

    def too_large(self, batch: Run, shard: Shard, failure: Failure, now: float) -> Iterator[Deed]:
        """Its file was not even taken; half as many lines may be."""
        if len(shard.places) == 1:
            yield from self._setbacks.send_failed(batch, failure, Change.CREATE_FAILED, now)
            return
        self._roster.packing.halve(shard)
        undone = Failure(Cause.UNDONE, failure.message, failure.code)
        yield from self.dissolve(batch, shard, lambda _: undone, now)

    def given_up(self, batch: Run, shard: Shard, failure: Failure, now: float) -> Iterator[Deed]:
        """The time of one of its runs is over and the last call failed; others may have time."""
        yield from self.dissolve(batch, shard, lambda _: failure, now)

    def dissolve(
        self, batch: Run, shard: Shard, failure_of: FailureOf, now: float
    ) -> Iterator[Deed]:
        """The batch is gone; each of its runs is told why its call failed."""
        runs = list(shard.runs.values())
        for run in runs:
            self._roster.take_out(run)
        lost = tuple(run.number for run in runs if failure_of(run).maybe_done)
        for deed in self._endings.end(batch, Outcome.COMPLETED, now):
            if isinstance(deed, DropBatch):
                # Lines of runs that this process did not wait for are there for the next one.
                yield replace(deed, is_over=bool(runs) or batch.stop is None, lost=lost)
            else:
                yield deed
        for run in runs:
            if run.state is State.WAITING or run.state is State.ANSWERED:
                self._roster.line_up(run, now)  # it was never sent
            else:
                failure = failure_of(run)
                self._roster.totals.lines_undone += shard.sent and not failure.maybe_done
                yield from self._failed(run, failure, now)

    # When it is over.

    def _over(self, batch: Run, shard: Shard, seen: Seen, now: float) -> Iterator[Deed]:
        """Nothing more comes of it; what it left unanswered is a failure of each call."""
        totals = self._roster.totals
        if shard.runs or batch.stop is None:  # else the next process reads it, and counts it
            totals.batches_by_end[seen.said] += 1
        if seen.batch is not None and seen.batch.output_missing:
            # To send it all again would be paid again, and would end like this again.
            message = f"{batch.run_id} is {seen.said}, but its server names no file of the answers"
            error = RunError("batch_output_missing", message)
            yield from self._endings.end(batch, Outcome.UNKNOWN, now, error=error)
            return
        match seen.status:
            case Status.FAILED:
                yield from self._refused(batch, shard, seen, now)
            case Status.EXPIRED | Status.CANCELLED:
                message = f"{batch.run_id} ended as {seen.said} before it was this line's turn"
                undone = Failure(Cause.UNDONE, message, f"batch_{seen.said}")
                yield from self.dissolve(batch, shard, lambda _: undone, now)
            case Status.COMPLETED if shard.delivered:
                lost = Failure(Cause.MALFORMED, f"{batch.run_id} completed without this line")
                yield from self.dissolve(batch, shard, lambda _: lost, now)
            case Status.COMPLETED:
                message = f"{batch.run_id} completed, but none of its lines is in its files"
                error = RunError("batch_output_missing", message)
                yield from self._endings.end(batch, Outcome.UNKNOWN, now, error=error)
            case _:
                message = f"{batch.run_id} is {seen.said!r}, which is no status"
                error = RunError("unknown_status", message)
                yield from self._endings.end(batch, Outcome.UNKNOWN, now, error=error)

    def _refused(self, batch: Run, shard: Shard, seen: Seen, now: float) -> Iterator[Deed]:
        """Its validation failed; nothing was done and nothing is paid."""
        error = seen.error or RunError("failed", "the server gives no reason")
        message = f"{batch.run_id} was refused: {error.message}"
        line_errors = seen.batch.line_errors if seen.batch is not None else {}
        by_number = {
            n: line_errors[at] for at, n in enumerate(shard.places, 1) if at in line_errors
        }
        failure = Failure(Cause.BAD_REQUEST, message, error.code)
        alone = len(shard.places) == 1
        if error.code in QUEUE_FULL_CODES:
            told = seen.batch.queue_tokens_max if seen.batch is not None else None
            is_ours = self._roster.packing.queue.learn(shard, told)
            if not (alone and told is not None and told < shard.tokens):
                wait = None if is_ours else self._rules.batch_queue_retry_seconds
                failure = Failure(Cause.RATE_LIMITED, message, error.code, 0, wait)
        elif error.code in TOO_LARGE_CODES and not alone:
            self._roster.packing.halve(shard)
            failure = Failure(Cause.UNDONE, message, error.code)
        elif error.code in RETRYABLE_RUN_CODES:
            failure = Failure(Cause.SERVER_ERROR, message, error.code)
        elif by_number:
            others = Failure(Cause.UNDONE, message, error.code)
            yield from self.dissolve(
                batch, shard, lambda run: _of_line(by_number.get(run.number), others), now
            )
            return
        yield from self.dissolve(batch, shard, lambda _: failure, now)

    def _failed(self, run: Run, failure: Failure, now: float) -> Iterator[Deed]:
        if run.state is State.SUBMITTING:
            return self._setbacks.outputs_failed(run, failure, now)
        return self._setbacks.send_failed(run, failure, Change.CREATE_FAILED, now)


def _of_line(error: RunError | None, others: Failure) -> Failure:
    return others if error is None else Failure(Cause.BAD_REQUEST, error.message, error.code)


def lines_of(shard: Shard) -> tuple[BatchLine, ...]:
    """What the batch does for each of its runs, in the order of its file."""
    return tuple(_line_of(shard.runs[number]) for number in shard.places if number in shard.runs)


def _line_of(run: Run) -> BatchLine:
    answering = run.answering
    if run.state is not State.SUBMITTING or answering is None:
        return BatchLine(run.number, run.request)
    return BatchLine(run.number, run.request, answering.in_order(), answering.continuation)
