"""What is told of lines that can't be sent: the first one in full, the others by number."""

from bisect import insort
from pathlib import Path

from orchestrator.adapters.request_file.jsontext import LineError
from orchestrator.errors import LineUnusable

BAD_LINES_NAMED = 6  # the first in full and the numbers of five more


class BadLines:
    """The first bad line in full, the numbers of the next few, and how many there are."""

    def __init__(self) -> None:
        self.count = 0
        self._first: list[tuple[int, LineError]] = []

    def add(self, number: int, error: LineError) -> None:
        self.count += 1
        insort(self._first, (number, error), key=lambda bad: bad[0])
        del self._first[BAD_LINES_NAMED:]

    def complaint(self, path: Path) -> LineUnusable:
        (number, error), *others = self._first
        more = ""
        if others:
            numbers = ", ".join(str(other) for other, _ in others)
            unnamed = ", ..." if self.count > BAD_LINES_NAMED else ""
            lines = "line" if len(others) == 1 else "lines"
            more = f" {self.count - 1} more bad {lines}: {numbers}{unnamed}."
        return unusable(path, number, error, more)


def unusable(path: Path, number: int, error: LineError, more: str = "") -> LineUnusable:
    return LineUnusable(
        path=path,
        line=number,
        custom_id=error.named,
        problem=error.problem,
        cure=error.cure,
        more=more,
    )
