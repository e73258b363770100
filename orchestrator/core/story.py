"""What happened to a run, in order: kept for the newest events of all runs together.

An error that names a run carries its story, so that a bug report says how it came about. The
memory is bounded whatever the number of runs; the journal of an execution holds the rest.
"""

from collections import deque

# At about 200 bytes an entry, 2 MB.
ENTRIES_MAX = 10_000


class Story:
    """The newest entries of all runs."""

    __slots__ = ("_entries",)

    def __init__(self, entries_max: int = ENTRIES_MAX) -> None:
        self._entries: deque[tuple[float, int, str, str]] = deque(maxlen=entries_max)

    def tell(self, at: float, number: int, what: str, detail: str = "") -> None:
        """Add an entry. `detail` never holds a prompt, an answer or a key."""
        self._entries.append((at, number, what, detail))

    def of(self, number: int) -> str:
        """The story of one run, a line an entry."""
        lines = [
            f"{at:12.3f}  {what}{': ' if detail else ''}{detail}"
            for at, told_of, what, detail in self._entries
            if told_of == number
        ]
        return "\n".join(lines) or "(nothing is remembered of this run)"
