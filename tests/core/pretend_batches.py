"""The pretend server's batches: files of lines, and what becomes of each batch and each line."""

from dataclasses import dataclass, field
from enum import StrEnum, auto

from orchestrator.core.failures import Cause, Failure
from orchestrator.core.model import BatchSeen, RunError, Seen, Status

from .pretend_server import FAILURES, Cancelling, End, Fate, Server, Trouble


class BatchEnd(StrEnum):
    """What becomes of a batch."""

    COMPLETED = auto()
    EXPIRED = auto()  # half done
    CANCELLED = auto()  # by somebody else, half done
    STUCK = auto()  # pending for ever
    QUEUE_FULL = auto()
    TOO_LARGE = auto()
    TROUBLE = auto()  # the server's own
    NAMES_LINES = auto()  # validation finds the requests that are bound to fail


class LineEnd(StrEnum):
    """What becomes of one line of a batch that gets so far."""

    ANSWERED = auto()
    BROKEN = auto()
    TURNED_AWAY = auto()
    UNDONE = auto()
    LEFT_OUT = auto()


LINE_FAILURES = {
    LineEnd.BROKEN: FAILURES[Trouble.BROKEN],
    LineEnd.TURNED_AWAY: FAILURES[Trouble.TURNED_AWAY],
    LineEnd.UNDONE: Failure(Cause.UNDONE, "expired", "batch_expired"),
}
REFUSALS = {
    BatchEnd.QUEUE_FULL: "token_limit_exceeded",
    BatchEnd.TOO_LARGE: "too_many_tasks",
    BatchEnd.TROUBLE: "server_error",
    BatchEnd.NAMES_LINES: "invalid_request",
}
HALF_DONE = {
    BatchEnd.EXPIRED: Status.EXPIRED,
    BatchEnd.CANCELLED: Status.CANCELLED,
}


@dataclass(frozen=True, slots=True)
class BatchFate:
    """What will happen to one batch."""

    end: BatchEnd = BatchEnd.COMPLETED
    work_seconds: float = 30.0
    part_done: float = 0.5  # of its lines, when it does not complete
    troubles: tuple[Trouble, ...] = ()  # of the calls about it, in order
    files: tuple[str, ...] = ("answers", "errors")
    comes_twice: bool = False  # each line in its file
    lag_seconds: float = 0.0  # lists don't show it for so long
    cancelling: Cancelling = Cancelling.AT_ONCE
    queue_tokens_max: int | None = None


@dataclass(slots=True, eq=False)
class RemoteBatch:
    """A batch on the server."""

    run_id: str
    name: str
    fate: BatchFate
    numbers: tuple[int, ...]
    created_at: float
    ready_at: float
    cancelled: bool = False
    hangs: bool = False
    ends: dict[int, LineEnd] = field(default_factory=dict)
    delivered: bool = False


class BatchServer:
    """Does what it is asked about batches; lines are done by `server` when they are delivered."""

    def __init__(self, server: Server, fates: list[Fate], lines: list[list[LineEnd]]):
        self._server = server
        self._fates = fates
        self._lines = lines
        self.files: dict[bytes, tuple[int, ...]] = {}
        self.batches: dict[str, RemoteBatch] = {}
        self.cancels_asked: set[str] = set()

    def upload(self, numbers: tuple[int, ...]) -> bytes:
        file_id = f"file_{len(self.files)}".encode()
        self.files[file_id] = numbers
        return file_id

    def create(self, name: str, file_id: bytes, fate: BatchFate, now: float) -> Seen:
        run_id = f"batch_{len(self.batches)}"
        ready_at = now + fate.work_seconds
        batch = RemoteBatch(run_id, name, fate, self.files[file_id], now, ready_at)
        self.batches[run_id] = batch
        return Seen(run_id, Status.PENDING, "validating")

    def find(self, name: str, now: float) -> Seen | None:
        """By the list."""
        for batch in self.batches.values():
            if batch.name == name and self.is_listed(batch.run_id, now):
                return self.check(batch.run_id, now)
        return None

    def is_listed(self, run_id: str, now: float) -> bool:
        batch = self.batches[run_id]
        return now >= batch.created_at + batch.fate.lag_seconds

    def is_pending(self, run_id: str, now: float) -> bool:
        batch = self.batches[run_id]
        stuck = batch.fate.end is BatchEnd.STUCK or batch.hangs
        return not batch.cancelled and (stuck or now < batch.ready_at)

    def check(self, run_id: str, now: float) -> Seen:
        batch = self.batches[run_id]
        if self.is_pending(run_id, now):
            about = BatchSeen(answered=len(batch.numbers) // 2)
            return Seen(run_id, Status.PENDING, "in_progress", batch=about)
        if batch.cancelled:
            return self._with_files(batch, Status.CANCELLED)
        end = batch.fate.end
        bound_to_fail = self._bound_to_fail(batch) if end is BatchEnd.NAMES_LINES else {}
        if (
            end in {BatchEnd.QUEUE_FULL, BatchEnd.TROUBLE}
            or (end is BatchEnd.TOO_LARGE and len(batch.numbers) > 1)
            or bound_to_fail
        ):
            about = BatchSeen(
                line_errors=bound_to_fail, queue_tokens_max=batch.fate.queue_tokens_max
            )
            error = RunError(REFUSALS[end], end)
            return Seen(run_id, Status.FAILED, "failed", error=error, batch=about)
        return self._with_files(batch, HALF_DONE.get(end, Status.COMPLETED))

    def _bound_to_fail(self, batch: RemoteBatch) -> dict[int, RunError]:
        return {
            place: RunError("invalid_prompt", "no")
            for place, number in enumerate(batch.numbers, 1)
            if self._fates[number].end is End.FAILED
        }

    def _with_files(self, batch: RemoteBatch, status: Status) -> Seen:
        about = BatchSeen(answered=len(batch.numbers))
        files = ",".join(batch.fate.files).encode()
        return Seen(batch.run_id, status, status.value, continuation=files, batch=about)

    def cancel(self, run_id: str, now: float) -> Seen | Failure:
        batch = self.batches[run_id]
        self.cancels_asked.add(run_id)
        pending = self.is_pending(run_id, now)
        if not pending or batch.fate.cancelling is Cancelling.REFUSED:
            return FAILURES[Trouble.BUSY]
        if batch.fate.cancelling is Cancelling.NEVER_ENDS:
            batch.hangs = True
        else:
            batch.cancelled = True
        return Seen(run_id, Status.PENDING, "cancelling")

    def read(self, run_id: str, name: str, lines, now: float):
        """What one of its files says of these lines: pairs of a number and what came of it."""
        batch = self.batches[run_id]
        self._settle(batch, [line.number for line in lines])
        for line in lines:
            end = batch.ends[line.number]
            if end is LineEnd.ANSWERED and name == "answers":
                yield line.number, self._done(line, now)
            elif end in LINE_FAILURES and name == "errors":
                yield line.number, LINE_FAILURES[end]

    def _settle(self, batch: RemoteBatch, numbers: list[int]) -> None:
        """Decide what comes of each line, once."""
        if batch.ends:
            return
        completed = not batch.cancelled and batch.fate.end not in HALF_DONE
        done = batch.numbers
        if not completed:
            done = done[: round(len(done) * batch.fate.part_done)]
        for number in batch.numbers:
            ends = self._lines[number]
            end = ends.pop(0) if ends else LineEnd.ANSWERED
            if number not in done and end is LineEnd.ANSWERED:
                end = LineEnd.LEFT_OUT if number % 2 else LineEnd.UNDONE
            batch.ends[number] = end
        if completed and all(batch.ends[number] is LineEnd.LEFT_OUT for number in numbers):
            batch.ends |= dict.fromkeys(numbers, LineEnd.ANSWERED)

    def _done(self, line, now: float) -> Seen:
        custom_id = line.request.custom_id
        if line.outputs:
            call_ids = [output.call_id for output in line.outputs]
            return self._server.submit(self._server.newest(custom_id), call_ids, now)
        return self._server.create(custom_id, self._fates[line.number], now)
