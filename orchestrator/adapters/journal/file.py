"""The journal's file as the one process has it that works on the execution.

Rules:

- One process at a time, by a lock that ends with the process however it ends.
- Everything is written by transactions that are on disk when they are told as done.
- A full disk is met twice: the first time the ballast is given up and the same is written again.
"""

import os
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Lock

import msgspec

from orchestrator.adapters.journal.ballast import Ballast
from orchestrator.adapters.journal.codec import text_of_json
from orchestrator.adapters.journal.lock import FolderLock
from orchestrator.adapters.journal.opening import (
    CURE_NO_ROOM,
    JOURNAL_NAME,
    is_full,
    open_to_write,
)
from orchestrator.adapters.journal.reading import FACTS, WRITTEN_BYTES, JournalReader
from orchestrator.adapters.journal.records import Facts, Session
from orchestrator.adapters.journal.rows import Rows, text_from
from orchestrator.adapters.journal.statements import SQL, run_places, run_rows
from orchestrator.core.entries import Entry
from orchestrator.core.model import Outcome
from orchestrator.errors import JournalFailed, JournalUnusable, OutputFolderUnusable

# Ids of webhooks that are kept, the newest, to know a repeat by; as many as a receiver knows.
WEBHOOKS_MAX = 100_000


class JournalFile(JournalReader):
    """The journal of a folder, made where there is none. Use it in a `with` block, or close it.

    Raises:
        FolderInUse: Another process works on it.
        JournalUnusable: What is there is no journal, or of a newer version, or damaged; or there is
            no room on its disk.
        OutputFolderUnusable: It can't be made.
    """

    def __init__(self, folder: Path) -> None:
        with ExitStack() as opened:
            try:
                lock = FolderLock(folder)
                opened.callback(lock.release)
                connection = open_to_write(folder)
            except OSError as error:
                raise OutputFolderUnusable(path=folder, problem=_reason(error)) from None
            opened.callback(connection.close)
            super().__init__(folder, connection)
            before = self.sessions()
            try:
                self._ballast = Ballast(folder)
            except OSError as error:
                raise JournalUnusable(
                    path=folder / JOURNAL_NAME, problem=_reason(error), cure=CURE_NO_ROOM
                ) from None
            self._opened = opened.pop_all()
        self._writing = Lock()
        self._session_number = len(before)
        self.last_seconds = max((session.last_seconds for session in before), default=0.0)
        self._last_seq = max((session.last_seq for session in before), default=0)

    def close(self, *, is_well: bool = True) -> None:
        """Put the log into the file, and let others have the folder. Closing twice is fine.

        Unless all `is_well` the ballast stays: the next process will need it.
        """
        with self._writing:
            if is_well:
                self._ballast.give_up()
            self._opened.close()

    # Before the work.

    def begin(self, unix: float) -> Session:
        """This process works on the execution from now on.

        Args:
            unix: Now, in seconds since 1970.

        Raises:
            JournalFailed: It can't be written.
        """
        session = Session(
            number=self._session_number + 1,
            pid=os.getpid(),
            started_unix=unix,
            base_seconds=self.last_seconds,
            last_seconds=self.last_seconds,
            last_seq=self._last_seq,
            group_max=self.group_max,
        )
        self._transact(lambda: self._insert_session(session))
        self._session_number = session.number
        return session

    def replay(self, now: float) -> Iterator[tuple[float, Entry]]:
        """The entries that bring the core back to where it stood, with times before `now`.

        Args:
            now: The driver's clock at the moment at which the execution's clock goes on.
        """
        shift = now - self.last_seconds
        for at, entry in self.entries():
            yield at + shift, entry

    def ending_max(self) -> int:
        """The order of the last line that is not safe in its file, 0 for none."""
        return self._int("ending_max")

    def webhook_ids(self) -> list[str]:
        """The webhooks that were heard, the oldest first."""
        return [text_from(webhook_id) for (webhook_id,) in self.rows("heard")]

    def set_facts(self, facts: Facts) -> None:
        """Keep them; what another version knows beside them stays."""
        self._transact(lambda: self._put_facts(facts))

    def accept(
        self,
        now: Iterable[tuple[int, int, bytes]],
        gone: Sequence[int],
        facts: Facts,
        ended: Sequence[int] = (),
    ) -> None:
        """From now on requests are as their lines are now.

        Args:
            now: Number, line and digest of each that is there.
            gone: Numbers of those in flight that are not, and are forgotten.
            ended: Numbers of those that have ended and are not: they keep no place in the file.
            facts: Of the input as it is now.
        """

        def work() -> None:
            rows = ((line, digest, number) for number, line, digest in now)
            self._connection.executemany(SQL["accept"], rows)
            run_places(self._connection, "forget", gone)
            run_places(self._connection, "take_out", ended)
            self._put_facts(facts)

        self._transact(work)

    def all_written(self, results_bytes: int, errors_bytes: int) -> None:
        """Every line is safe in the result files, which have these sizes."""

        def work() -> None:
            self._connection.execute(SQL["drop_unwritten"])
            note = (WRITTEN_BYTES, text_of_json((results_bytes, errors_bytes)))
            self._connection.execute(SQL["set_note"], note)

        self._transact(work)

    def forget_unfinished(self) -> None:
        """What was in flight will be admitted anew, under other numbers; its story stays."""
        numbers = [each.number for each in self.unfinished()]
        self._transact(lambda: run_places(self._connection, "forget", numbers))

    def reopen(self, outcomes: Collection[Outcome], facts: Facts) -> None:
        """Forget that requests ended so: they will be admitted anew, under other numbers.

        Their story stays. Their lines have to be safe in a file of errors, which is a new one from
        now on.

        Args:
            outcomes: Not completed.
            facts: As they are from now on.
        """

        def work() -> None:
            run_places(self._connection, "reopen", [each.value for each in outcomes])
            self._connection.execute(SQL["drop_unwritten_errors"])
            results_bytes, _ = self.written_bytes
            note = (WRITTEN_BYTES, text_of_json((results_bytes, 0)))
            self._connection.execute(SQL["set_note"], note)
            self._put_facts(facts)

        self._transact(work)

    def _put_facts(self, facts: Facts) -> None:
        stored = self._note(FACTS)
        merged = {} if stored is None else self._parsed(stored, dict)
        merged |= msgspec.to_builtins(facts)
        self._connection.execute(SQL["set_note"], (FACTS, text_of_json(merged)))

    # At work.

    def write(self, rows: Rows) -> bool:
        """Put all of it on disk, from any thread. What was written already is not written again.

        Whether the disk was full and the ballast had to be given up.

        Raises:
            JournalFailed: None of it is there.
        """
        with self._writing:
            if rows.is_done:
                return False
            gave_up = self._transact(lambda: self._put(rows))
            rows.is_done = True
            return gave_up

    def _put(self, rows: Rows) -> None:
        connection = self._connection
        run_rows(connection, "admit", rows.requests)
        run_rows(connection, "keep", rows.events)
        run_rows(connection, "carry", rows.batch_lines)
        run_rows(connection, "end", rows.endings)
        run_rows(connection, "put_out", rows.unwritten)
        run_places(connection, "take_in", rows.written)
        if rows.webhooks:
            run_rows(connection, "hear", rows.webhooks)
            connection.execute(SQL["forget_heard"], (WEBHOOKS_MAX,))
        for note in rows.notes.items():
            connection.execute(SQL["set_note"], note)
        last = (rows.last_seconds, rows.last_seq, rows.group_max, self._session_number)
        connection.execute(SQL["session_goes_on"], last)

    def _insert_session(self, session: Session) -> None:
        row = (
            session.number,
            session.pid,
            session.started_unix,
            session.base_seconds,
            session.last_seconds,
            session.last_seq,
            session.group_max,
        )
        self._connection.execute(SQL["begin_session"], row)

    def _transact(self, work: Callable[[], object]) -> bool:
        """Do it in one transaction; whether the ballast was given up for it."""
        try:
            self._attempt(work)
        except sqlite3.Error as error:
            if not is_full(error) or not self._ballast.give_up():
                raise self._failed(error) from error
        else:
            return False
        try:
            self._attempt(work)
        except sqlite3.Error as error:
            raise self._failed(error) from error
        return True

    def _attempt(self, work: Callable[[], object]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            work()
            self._connection.execute("COMMIT")
        except BaseException:
            # Of some errors SQLite has undone the transaction itself.
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            raise

    def _failed(self, error: sqlite3.Error) -> JournalFailed:
        return JournalFailed(path=self.path, problem=str(error))


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
