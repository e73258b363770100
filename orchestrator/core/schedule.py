"""Which run is next and when: a heap of due times that may hold stale entries.

Moving a run leaves its old heap entry behind. Every entry carries a ticket, and only the run's
newest ticket counts, so an old entry is recognised and dropped when it surfaces. Tickets also
settle ties: of two runs due at the same time the one that was put first comes first.
"""

from heapq import heapify, heappop, heappush

# A stale entry costs about 100 bytes; below this many it does not pay to sweep.
STALE_ENTRIES_MIN = 1_000


class Schedule:
    """Runs, by number, ordered by the time at which something must be done about them."""

    __slots__ = ("_heap", "_ticket_of", "_tickets_issued")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, int]] = []
        self._ticket_of: dict[int, int] = {}
        self._tickets_issued = 0

    def __len__(self) -> int:
        return len(self._ticket_of)

    def __contains__(self, number: int) -> bool:
        return number in self._ticket_of

    def __repr__(self) -> str:
        return f"<Schedule of {len(self)}, next at {self.next_due()}>"

    def put(self, number: int, due_at: float) -> None:
        """Wake this run at `due_at`, whatever was planned for it before."""
        self._tickets_issued += 1
        self._ticket_of[number] = self._tickets_issued
        heappush(self._heap, (due_at, self._tickets_issued, number))
        if len(self._heap) > 2 * len(self._ticket_of) + STALE_ENTRIES_MIN:
            self._sweep()

    def drop(self, number: int) -> None:
        """Forget this run; nothing happens when it is not there."""
        self._ticket_of.pop(number, None)

    def next_due(self) -> float | None:
        """The earliest due time, or None when nothing is planned."""
        heap = self._heap
        while heap:
            due_at, ticket, number = heap[0]
            if self._ticket_of.get(number) == ticket:
                return due_at
            heappop(heap)
        return None

    def take_due(self, now: float) -> list[int]:
        """Take out every run that is due at `now`, the earliest first."""
        due = []
        heap = self._heap
        while heap and heap[0][0] <= now:
            _, ticket, number = heappop(heap)
            if self._ticket_of.get(number) == ticket:
                del self._ticket_of[number]
                due.append(number)
        return due

    def _sweep(self) -> None:
        self._heap = [entry for entry in self._heap if self._ticket_of.get(entry[2]) == entry[1]]
        heapify(self._heap)
