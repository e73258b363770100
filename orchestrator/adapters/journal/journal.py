"""Writes what the driver tells: collected by the loop, written by a thread, many entries at once.

Rules:

- Rows are made as they are told, in the loop: that takes 20 us a request, and a thread would need
  the interpreter's lock for as long, at moments that do not suit the loop.
- One task writes. It takes all that was told, writes it in one transaction, and then calls those
  who waited for it, in the order in which they asked.
- What could not be written is told to nobody as written.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeVar

import anyio
from anyio import to_thread

from orchestrator.adapters.journal.codec import encoded, text_of_json
from orchestrator.adapters.journal.file import JournalFile
from orchestrator.adapters.journal.reading import COUNTS, WRITTEN_BYTES
from orchestrator.adapters.journal.rows import Rows, admission, ending, storable
from orchestrator.core.entries import CreateSent, Entry
from orchestrator.core.events import StopRequested
from orchestrator.core.model import Outcome, Request, Result
from orchestrator.errors import JournalFailed
from orchestrator.ports import Clock

T = TypeVar("T")

# How long the safe size of the result files may lag behind.
NOTES_SECONDS = 1.0

# Lines in the result files before these are made safe: as many as a resume may write again.
WRITTEN_MAX = 1_000

# A commit costs the loop about 0.2 ms however little is in it: at 5,000 requests a second this
# takes a third off what a request costs. More would keep creates waiting (benchmarks/journal.py).
COMMIT_SECONDS_MIN = 0.002


class InThread(Protocol):
    """Does a piece of work elsewhere, so that the loop goes on meanwhile."""

    def __call__(self, work: Callable[[], T], /) -> Awaitable[T]: ...


@dataclass(slots=True)
class _Told:
    """What was told since the last commit, and who waits for it."""

    rows: Rows
    then: list[Callable[[], None]] = field(default_factory=list)


class Journal:
    """The journal of one process's work; it begins a session when it is made.

    Args:
        file: Where it is kept. `close` closes it.
        clock: The driver's.
        line_of: The line of a result for the result files.
        costs_of: What it cost in USD, None without a price; and what its lost answers may cost.
        sync: Makes what was written to the result files safe; called in the thread. What it
            raises, `run` and `close` raise.
        counts: What is known of the execution as a whole, at this moment.
        on_full: Told once that the disk is full: there is room for what is out, and no more.
        in_thread: Another place for the work of the writer.

    Raises:
        JournalFailed: It can't be written.
    """

    def __init__(
        self,
        file: JournalFile,
        clock: Clock,
        *,
        line_of: Callable[[Result], bytes],
        costs_of: Callable[[Result], tuple[float | None, float]],
        sync: Callable[[], None],
        counts: Callable[[], bytes],
        on_full: Callable[[str], None],
        in_thread: InThread | None = None,
    ) -> None:
        self._file = file
        self._clock = clock
        self._line_of = line_of
        self._costs_of = costs_of
        self._sync = sync
        self._counts = counts
        self._on_full = on_full
        self._in_thread = _OwnThread() if in_thread is None else in_thread
        now = clock.now()
        self.session = file.begin(clock.unix())
        self._shift = self.session.base_seconds - now
        self._seconds = self.session.base_seconds
        self._seq = self.session.last_seq
        self._group_max = self.session.group_max
        self._endings = file.ending_max()
        self._written: list[int] = []
        self._written_bytes = file.written_bytes
        self._noted_at = now
        self._told = _Told(self._no_rows())
        self._taken: _Told | None = None
        self._wake = anyio.Event()
        self.failed: JournalFailed | None = None  # why `run` has ended, if by itself
        self._closed = False

    def admitted(self, number: int, request: Request, at: float) -> None:
        """A request has a place in flight."""
        self._seq += 1
        self._told.rows.requests.append(admission(number, request, self._seq, self._stored(at)))
        self._wake.set()

    def keep(self, entry: Entry, at: float) -> None:
        """A call goes out, or something happened that a replay needs."""
        if isinstance(entry, StopRequested):
            return  # that a request is not wanted is told anew to each process
        kind, data = encoded(entry)
        rows = self._told.rows
        self._seq += 1
        rows.events.append((entry.number, self._seq, self._stored(at), kind, data))
        if isinstance(entry, CreateSent):
            self._group_max = max(self._group_max, entry.group)
            rows.batch_lines += [(number, entry.number) for number in entry.lines]
        self._wake.set()

    def ended(self, number: int, result: Result, at: float) -> None:
        """A request has ended; one that was stopped is left for the next session."""
        if result.outcome is Outcome.STOPPED:
            return
        rows = self._told.rows
        self._seq += 1
        costs = self._costs_of(result)
        rows.endings.append(ending(number, result, self._seq, self._stored(at), costs))
        self._endings += 1
        is_completed = result.outcome is Outcome.COMPLETED
        rows.unwritten.append((number, self._endings, is_completed, self._line_of(result)))
        self._wake.set()

    def heard(self, webhook_id: str) -> None:
        """A webhook was heard: when it comes again, to a later process too, it is a repeat."""
        self._told.rows.webhooks.append((storable(webhook_id),))
        self._wake.set()

    def written(self, number: int, results_bytes: int, errors_bytes: int) -> None:
        """The line of this request is in its file, and the two files have these sizes now."""
        self._written.append(number)
        self._written_bytes = (results_bytes, errors_bytes)
        if len(self._written) in {1, WRITTEN_MAX}:
            self._wake.set()

    def after(self, then: Callable[[], None]) -> None:
        """Call `then` once all that was told so far is on disk; at once where it is already.

        Never called when it can't be written, nor by `close`.
        """
        if self._told.rows or self._told.then:
            self._told.then.append(then)
        elif self._taken is not None:
            self._taken.then.append(then)
        else:
            then()

    async def run(self) -> None:
        """Write until cancelled.

        Raises:
            JournalFailed: It can't be written any more.
        """
        while True:
            await self._wait()
            began = self._clock.now()
            taken = self._taken = self._take(began)
            try:
                gave_up = await self._in_thread(partial(self._write, taken.rows))
            except JournalFailed as error:
                self.failed = error
                raise
            for then in taken.then:  # grows while it is gone through
                then()
            self._taken = None
            if gave_up:
                self._on_full(f"there is no room left on the disk of {self._file.path}")
            await anyio.sleep(max(0.0, began + COMMIT_SECONDS_MIN - self._clock.now()))

    def close(self) -> None:
        """Write what is pending and close the file, once `run` has ended. Nobody is told of it.

        After `run` has failed nothing is written any more. Closing twice is fine.

        Raises:
            JournalFailed: It can't be written.
        """
        if self._closed:
            return
        self._closed, is_well = True, False
        try:
            if self.failed is None:
                if self._taken is not None:
                    self._write(self._taken.rows)
                self._noted_at = -NOTES_SECONDS
                self._write(self._take(self._clock.now(), is_last=True).rows)
                is_well = True
        finally:
            self._file.close(is_well=is_well)

    # What is told, and when it is written.

    def _stored(self, at: float) -> float:
        seconds = at + self._shift
        self._seconds = max(self._seconds, seconds)
        return seconds

    def _no_rows(self) -> Rows:
        return Rows(self._seconds, self._seq, self._group_max)

    async def _wait(self) -> None:
        """Until there is something to write."""
        while not (self._told.rows or self._told.then):
            due = None
            if self._written:
                due = self._noted_at + NOTES_SECONDS - self._clock.now()
                if due <= 0 or len(self._written) >= WRITTEN_MAX:
                    return
            self._wake = anyio.Event()
            with anyio.move_on_after(due):
                await self._wake.wait()

    def _take(self, now: float, *, is_last: bool = False) -> _Told:
        taken = self._told
        rows = taken.rows
        # With every commit, so that what is counted is what the entries tell.
        rows.notes[COUNTS] = self._counts()
        is_time = now >= self._noted_at + NOTES_SECONDS
        if is_last or is_time or len(self._written) >= WRITTEN_MAX:
            self._noted_at = now
            self._take_written(rows)
        rows.last_seconds, rows.last_seq = self._seconds, self._seq
        rows.group_max = self._group_max
        self._told = _Told(self._no_rows())
        return taken

    def _take_written(self, rows: Rows) -> None:
        if self._written:
            rows.written, self._written = self._written, []
            rows.notes[WRITTEN_BYTES] = text_of_json(self._written_bytes)

    def _write(self, rows: Rows) -> bool:
        if rows.written and not rows.is_done:
            try:
                self._sync()
            except BaseException:
                # Those lines are safe only here. What else was told is kept all the same.
                rows.written = []
                del rows.notes[WRITTEN_BYTES]
                self._file.write(rows)
                raise
        return self._file.write(rows)


class _OwnThread:
    """A thread of the loop's pool that no other work can keep busy."""

    def __init__(self) -> None:
        self._limiter: anyio.CapacityLimiter | None = None

    async def __call__(self, work: Callable[[], T], /) -> T:
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(1)
        return await to_thread.run_sync(work, limiter=self._limiter)
