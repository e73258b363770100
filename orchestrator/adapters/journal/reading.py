"""Reads a journal: what a resume starts from, without holding it all in memory."""

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from orchestrator.adapters.journal.codec import decoded, from_json
from orchestrator.adapters.journal.opening import (
    CURE_NEWER,
    JOURNAL_NAME,
    damaged,
    open_to_read,
)
from orchestrator.adapters.journal.records import (
    EndedGroup,
    Facts,
    Known,
    Session,
    Unfinished,
    Unwritten,
)
from orchestrator.adapters.journal.rows import text_from
from orchestrator.adapters.journal.statements import SQL
from orchestrator.core.entries import Entry
from orchestrator.core.failures import Cause
from orchestrator.core.model import Outcome, Usage
from orchestrator.errors import JournalUnusable

FACTS, COUNTS, WRITTEN_BYTES = "facts", "counts", "written_bytes"


class JournalReader:
    """What a journal holds; every method raises JournalUnusable where it is damaged.

    Use it in a `with` block, or close it, and soon: the log of a writer grows until then.
    """

    def __init__(self, folder: Path, connection: sqlite3.Connection) -> None:
        self.folder = folder
        self.path = folder / JOURNAL_NAME
        self._connection = connection

    @classmethod
    def open(cls, folder: Path) -> "JournalReader":
        """Look at a journal as it is now, whether a process writes it or not. It needs no lock.

        Raises:
            JournalUnusable: There is none, or it can't be read.
        """
        return JournalReader(folder, open_to_read(folder))

    @staticmethod
    def is_there(folder: Path) -> bool:
        """Whether the folder has a journal."""
        try:
            return (folder / JOURNAL_NAME).exists()
        except OSError:  # a name that is too long, a folder that may not be looked into
            return False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file. Closing twice is fine."""
        self._connection.close()

    # Of the execution.

    @property
    def facts(self) -> Facts | None:
        """What was told of the execution when it began, by this version's names."""
        stored = self._note(FACTS)
        return None if stored is None else self._parsed(stored, Facts)

    @property
    def last_counts(self) -> bytes | None:
        """The counts as they were at most about a second before the last commit."""
        stored = self._note(COUNTS)
        return stored.encode() if isinstance(stored, str) else stored

    @property
    def written_bytes(self) -> tuple[int, int]:
        """How much of the files of results and of errors is safe; what follows is unwritten."""
        stored = self._note(WRITTEN_BYTES)
        return (0, 0) if stored is None else self._parsed(stored, tuple[int, int])

    def sessions(self) -> list[Session]:
        """All processes that worked on it, the first one first."""
        return [Session(*row) for row in self.rows("sessions")]

    @property
    def ended_count(self) -> int:
        """How many requests have ended; of one that is sent again the newest end counts."""
        return sum(count for _, count in self.rows("outcomes"))

    @property
    def number_max(self) -> int:
        """The largest number that a request ever had, 0 for none."""
        return self._int("number_max")

    @property
    def batch_number_min(self) -> int:
        """The smallest number that a batch ever had, 0 for none; batches count downwards."""
        return min(0, self._int("batch_number_min"))

    @property
    def group_max(self) -> int:
        """The largest group that a run was created into, 0 for none."""
        return max((session.group_max for session in self.sessions()), default=0)

    # Of requests. Those that were reopened are left out.

    def lines(self) -> Iterator[tuple[int, bool]]:
        """The lines that were admitted, each with whether it has ended."""
        for line, has_ended in self.rows("lines"):
            yield line, has_ended == 1

    def digests(self) -> Iterator[Known]:
        """What tells whether the lines that were admitted are still the same."""
        for custom_id, digest, number, line, has_ended, url, family in self.rows("digests"):
            kind = (text_from(url), family)
            yield Known(text_from(custom_id), digest, number, line, has_ended == 1, kind)

    def unfinished(self) -> list[Unfinished]:
        """The requests that have not ended, in the order of their admission."""
        return [
            Unfinished(number, text_from(custom_id), line, digest)
            for number, custom_id, line, digest in self.rows("unfinished")
        ]

    def unwritten(self) -> Iterator[Unwritten]:
        """The lines that are not safe in the result files, in the order of their ending."""
        for number, is_completed, line in self.rows("unwritten"):
            yield Unwritten(number, is_completed == 1, line)

    def ended_groups(self) -> list[EndedGroup]:
        """How the requests ended that have ended, those too that were sent again."""
        groups = []
        for row in self.rows("ended_groups"):
            outcome, code, model, count, *sums, sent, lost, number, cause, is_reopened = row
            *sums, cost_usd, unpriced, lost_usd = sums
            [(custom_id, message)] = self.rows("example", [number])
            group = EndedGroup(
                outcome=Outcome(outcome),
                code=text_from(code),
                model=text_from(model),
                count=count,
                usage=Usage(*sums[:4]),
                batch_usage=Usage(*sums[4:8]),
                lost_usage=Usage(*sums[8:]),
                sent=sent,
                lost=lost,
                custom_id=text_from(custom_id),
                message=text_from(message),
                cause=None if cause is None else Cause(cause),
                is_reopened=is_reopened == 1,
                cost_usd=None if unpriced else cost_usd or 0.0,
                lost_usd=lost_usd or 0.0,
            )
            groups.append(group)
        return groups

    def durations(self) -> Iterator[tuple[str, float]]:
        """Model and url, and seconds from the create to our noticing the end.

        Of runs that were looked at until they completed, created once and without tools.
        """
        for model, url, seconds in self.rows("durations"):
            yield f"{text_from(model)} {text_from(url)}", seconds

    def entries(self) -> Iterator[tuple[float, Entry]]:
        """What a replay needs, in order, by the execution's clock.

        It is of all requests that have not ended, and of the batches that carried one of them.
        """
        for at, number, kind, data in self.rows("replay"):
            yield at, self.entry(number, kind, data)

    # How it is read.

    def rows(self, name: str, parameters: Sequence[Any] = ()) -> Iterator[Any]:
        """What the statement of this name finds."""
        try:
            yield from self._connection.execute(SQL[name], parameters)
        except sqlite3.DatabaseError as error:
            raise damaged(self.path, error) from None

    def _int(self, name: str) -> int:
        [(value,)] = self.rows(name)
        return int(value)

    def _note(self, key: str) -> str | bytes | None:
        for (value,) in self.rows("note", [key]):
            return value  # type: ignore[no-any-return]  # the column says so
        return None

    def _parsed(self, stored: str | bytes, kind: Any) -> Any:
        try:
            return from_json(stored, kind)
        except ValueError as error:
            raise damaged(self.path, error) from None

    def entry(self, number: int, kind: str, data: str) -> Entry:
        """An entry from its row."""
        try:
            return decoded(number, kind, data)
        except ValueError as error:
            problem = f"it holds an entry of {number} that this version can't read ({error})"
            raise JournalUnusable(path=self.path, problem=problem, cure=CURE_NEWER) from None
