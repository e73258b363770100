"""Batches as functions of time: validating, in progress, finalizing, and how each ends.

Nothing in here knows HTTP or the API's words for what is wrong with a line. `Batches.advance`
catches everything up to a moment, in the order in which it would have happened.
"""

from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf
from typing import Any

import msgspec

from orchestrator.emulator.batch_work import Answer, Done, Line, Work
from orchestrator.emulator.chance import digest
from orchestrator.emulator.deviations import Deviation
from orchestrator.emulator.file_store import Files, StoredFile

HOUR_SECONDS = 3600.0


class Status(StrEnum):
    """What a batch can be."""

    VALIDATING = "validating"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


ENDS = frozenset({Status.FAILED, Status.COMPLETED, Status.EXPIRED, Status.CANCELLED})

# What the error file says of lines that were not done; the first as the API reference has it.
LEFT_OVER: Mapping[Status, tuple[str, str]] = {
    Status.EXPIRED: (
        "batch_expired",
        "This request could not be executed before the completion window expired.",
    ),
    Status.CANCELLED: (
        "batch_cancelled",
        "This request was not executed because the batch was cancelled.",
    ),
}


@dataclass(frozen=True, slots=True)
class LineError:
    """What is wrong with the input file, or with one line of it."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """What validation found: the lines in the order of their work, or errors."""

    lines: Sequence[Line] = ()
    model: str | None = None
    prompt_tokens: int = 0
    errors: Sequence[LineError] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is settled about a batch when it is created.

    It expires when so many lines are done, or so great a share (0 to 1) of them, or at its time.
    `stuck_in` is the status that it never leaves by itself; None for none.
    """

    validated_at: float
    expires_at: float
    work_seconds: float | None
    lines_at_once: int
    expire_after_lines: int | None
    expire_after_share: float | None
    finalizing_seconds: float
    cancelling_seconds: float
    output_expires_seconds: float
    stuck_in: str | None = None
    deviations: Collection[Deviation] = frozenset()


@dataclass(slots=True, kw_only=True)
class Batch:
    """One batch, caught up to the last look at it; a time that has not come is inf.

    `read` validates the input file, `answer` answers a line; both are let go of at the end, like
    the lines.
    """

    id: str
    endpoint: str
    input_file_id: str
    metadata: Mapping[str, str] | None
    created_at: float
    plan: Plan
    read: Callable[[], Reading] | None
    answer: Answer | None
    model: str | None = None
    prompt_tokens: int = 0
    errors: Sequence[LineError] = ()
    in_progress_at: float = inf
    failed_at: float = inf
    ended_at: float = inf
    cancelling_at: float = inf
    over_at: float = inf
    ends_as: Status = Status.COMPLETED
    total: int = 0
    worked: int = 0
    refused: int = 0
    left_over: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    output_file_id: str | None = None
    error_file_id: str | None = None
    _expires_after: int | None = None
    _work: Work | None = None
    _undone: dict[int, Line] = field(default_factory=dict)
    _outputs: list[bytes] = field(default_factory=list)
    _refusals: list[bytes] = field(default_factory=list)

    def status(self, at: float) -> Status:
        """What it is at a time up to which it is caught up."""
        if self.failed_at <= at:
            return Status.FAILED
        if self.over_at <= at:
            return self.ends_as
        if self.cancelling_at <= at:
            return Status.CANCELLING
        if self.ended_at <= at:
            return Status.FINALIZING
        return Status.IN_PROGRESS if self.in_progress_at <= at else Status.VALIDATING

    @property
    def validates_at(self) -> float:
        """When its input file is to be looked at; inf if it was or never will be."""
        if self.read is None or self.plan.stuck_in == Status.VALIDATING:
            return inf
        return self.plan.validated_at

    def next_step_at(self) -> float:
        """When something happens by itself, once it is caught up; inf for never."""
        if self.read is not None:
            return self.validates_at
        if self._work is None:
            return min(self.failed_at, self.over_at)
        if self.plan.stuck_in == Status.IN_PROGRESS:
            return inf
        return min(self._work.next_at(), self.plan.expires_at)

    def start(self, reading: Reading) -> None:
        """The input file is right, the lines are taken up."""
        self.read = None
        self.model, self.prompt_tokens = reading.model, reading.prompt_tokens
        self.in_progress_at = self.plan.validated_at
        self.total = len(reading.lines)
        self._expires_after = self.plan.expire_after_lines
        if self.plan.expire_after_share is not None:
            self._expires_after = max(1, int(self.plan.expire_after_share * self.total))
        self._undone = {line.number: line for line in reading.lines}
        if self.answer is not None:
            self._work = Work(
                reading.lines,
                self.answer,
                self.in_progress_at,
                seconds=self.plan.work_seconds,
                at_once=self.plan.lines_at_once,
            )

    def fail(self, reading: Reading, errors: Sequence[LineError]) -> None:
        """The input file is wrong, or there is no room for it."""
        self.model, self.errors = reading.model, errors
        self.failed_at = self.plan.validated_at
        self._let_go()

    def catch_up(self, now: float) -> None:
        """Do the lines that are done by now, and end the batch where that was the last."""
        if self._work is None or self.plan.stuck_in == Status.IN_PROGRESS:
            return
        until = min(now, self.plan.expires_at)
        while (done := self._work.next_done(until)) is not None:
            self._note(done)
            count = self.worked + self.refused
            if count == self.total:
                self._end(Status.COMPLETED, done.at)
                return
            if count == self._expires_after:
                self._end(Status.EXPIRED, done.at)
                return
        if now >= self.plan.expires_at:
            self._end(Status.EXPIRED, max(self.in_progress_at, self.plan.expires_at))

    def cancel(self, now: float) -> None:
        """Do no more lines; asking twice is the same as asking once."""
        if self.status(now) in ENDS or self.cancelling_at <= now:
            return
        self._end(Status.CANCELLED, now)
        self.read = None
        self.cancelling_at = now
        stuck = self.plan.stuck_in == Status.CANCELLING
        self.over_at = inf if stuck else now + self.plan.cancelling_seconds

    def deliver(self, files: Files) -> None:
        """Leave the files behind; to be called once, when it is over."""
        deviations = self.plan.deviations
        if self._outputs:
            self.output_file_id = self._leave(files, "output", self._outputs)
            if self.ends_as is Status.COMPLETED and Deviation.BATCH_NO_OUTPUT_ID in deviations:
                self.output_file_id = None
        if self._refusals or Deviation.BATCH_EMPTY_ERROR_FILE in deviations:
            self.error_file_id = self._leave(files, "error", self._refusals)
        elif Deviation.BATCH_BLANK_ERROR_ID in deviations:
            self.error_file_id = ""
        self._let_go()

    def _note(self, done: Done) -> None:
        line, answered = done.line, done.answered
        del self._undone[line.number]
        body: Any = msgspec.Raw(answered.body)
        if Deviation.BATCH_BODY_AS_TEXT in self.plan.deviations:
            body = answered.body.decode()
        response = {
            "status_code": answered.status_code,
            "request_id": digest(self.id, "request", line.custom_id),
            "body": body,
        }
        entry = self._entry(line, response, None)
        if answered.worked:
            self.worked += 1
            self.input_tokens += answered.input_tokens
            self.output_tokens += answered.output_tokens
        else:
            self.refused += 1
        among_outputs = Deviation.BATCH_REFUSED_IN_OUTPUT in self.plan.deviations
        (self._outputs if answered.worked or among_outputs else self._refusals).append(entry)

    def _end(self, ends_as: Status, at: float) -> None:
        """No more lines are done from `at` on; those undone go into the error file."""
        if self.ended_at < inf:  # cancelled while finalizing: what is there stays
            self.ends_as = ends_as
            return
        self.ended_at, self.ends_as = at, ends_as
        stuck = self.plan.stuck_in == Status.FINALIZING
        self.over_at = inf if stuck else at + self.plan.finalizing_seconds
        self.left_over = len(self._undone)
        for line in self._undone.values():
            code, message = LEFT_OVER[ends_as]
            self._refusals.append(self._entry(line, None, {"code": code, "message": message}))
        self._work = None
        self._undone = {}

    def _entry(
        self, line: Line, response: dict[str, Any] | None, error: dict[str, str] | None
    ) -> bytes:
        entry = {
            "id": "batch_req_" + digest(self.id, line.custom_id),
            "custom_id": line.custom_id,
            "response": response,
            "error": error,
        }
        return msgspec.json.encode(entry) + b"\n"

    def _leave(self, files: Files, kind: str, entries: Sequence[bytes]) -> str:
        file = StoredFile(
            id="file-" + digest(self.id, kind),
            filename=f"{self.id}_{kind}.jsonl",
            purpose="batch_output",
            created_at=self.over_at,
            expires_at=self.over_at + self.plan.output_expires_seconds,
            content=b"".join(entries),
        )
        files.add(file)
        return file.id

    def _let_go(self) -> None:
        self.read = self.answer = self._work = None
        self._outputs, self._refusals, self._undone = [], [], {}


class Batches:
    """All batches, and the room that each model has for the prompts of those unfinished."""

    def __init__(self, files: Files, enqueued_tokens_max: int | None, per_hour_max: int) -> None:
        self._files = files
        self._enqueued_tokens_max = enqueued_tokens_max
        self._per_hour_max = per_hour_max
        self._batches: dict[str, Batch] = {}
        self._active: dict[str, Batch] = {}
        self._recent: deque[float] = deque()

    def room_for_one(self, now: float) -> bool:
        """Whether one more can be created this hour."""
        while self._recent and self._recent[0] <= now - HOUR_SECONDS:
            self._recent.popleft()
        return len(self._recent) < self._per_hour_max

    def add(self, batch: Batch) -> None:
        """Take a new batch in."""
        self._recent.append(batch.created_at)
        self._batches[batch.id] = self._active[batch.id] = batch

    def find(self, batch_id: str, now: float) -> Batch | None:
        """The batch as it is now."""
        self.advance(now)
        return self._batches.get(batch_id)

    def newest_first(self, now: float, lag_seconds: float) -> list[Batch]:
        """Those that were there `lag_seconds` ago, caught up to now."""
        self.advance(now)
        created_max = now - lag_seconds
        return [one for one in reversed(self._batches.values()) if one.created_at <= created_max]

    def unfinished(self, now: float) -> list[Batch]:
        """Those that are not over, caught up to now."""
        self.advance(now)
        return list(self._active.values())

    def advance(self, now: float) -> None:
        """Let everything happen that happens by now."""
        due = [batch for batch in self._active.values() if batch.validates_at <= now]
        for batch in sorted(due, key=lambda one: one.validates_at):
            if self._enqueued_tokens_max is not None:
                # Whether there is room depends on what is over by then.
                self._catch_up(batch.validates_at)
            self._validate(batch)
        self._catch_up(now)

    def billed(self, now: float) -> tuple[int, int]:
        """Tokens in and out of all lines that were answered by now."""
        self.advance(now)
        batches = self._batches.values()
        return (
            sum(batch.input_tokens for batch in batches),
            sum(batch.output_tokens for batch in batches),
        )

    def summary(self, now: float) -> dict[str, Any]:
        """For the books: how many are what, and for each what became of its lines."""
        self.advance(now)
        statuses = Counter(batch.status(now) for batch in self._batches.values())
        each = {batch.id: _accounts(batch, now) for batch in self._batches.values()}
        names = ("sent", "answered", "billed", "failed", "expired", "cancelled")
        return {
            "by_status": {status.value: count for status, count in statuses.items()},
            "lines": {name: sum(lines[name] for lines in each.values()) for name in names},
            "each": each,
        }

    def _validate(self, batch: Batch) -> None:
        if batch.read is None:
            return
        reading = batch.read()
        if reading.errors:
            batch.fail(reading, reading.errors)
            return
        limit = self._enqueued_tokens_max
        if limit is not None and self._enqueued(reading.model) + reading.prompt_tokens > limit:
            message = (
                f"Enqueued token limit reached for {reading.model} in organization org-emulator. "
                f"Limit: {limit:,} enqueued tokens. Please try again once some in_progress batches "
                "have been completed."
            )
            batch.fail(reading, [LineError("token_limit_exceeded", message)])
            return
        batch.start(reading)

    def _enqueued(self, model: str | None) -> int:
        return sum(batch.prompt_tokens for batch in self._active.values() if batch.model == model)

    def _catch_up(self, now: float) -> None:
        for batch in list(self._active.values()):
            batch.catch_up(now)
            if batch.over_at <= now:
                batch.deliver(self._files)
            if batch.status(now) in ENDS:
                del self._active[batch.id]


def _accounts(batch: Batch, now: float) -> dict[str, Any]:
    return {
        "status": batch.status(now).value,
        "sent": batch.total,
        "answered": batch.worked + batch.refused,
        "billed": batch.worked,
        "failed": batch.refused,
        "expired": batch.left_over if batch.ends_as is Status.EXPIRED else 0,
        "cancelled": batch.left_over if batch.ends_as is Status.CANCELLED else 0,
        "input_tokens": batch.input_tokens,
        "output_tokens": batch.output_tokens,
    }
