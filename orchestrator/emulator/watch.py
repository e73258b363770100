"""What will happen by itself, by time: who waits for ends that nobody asks about."""

from collections.abc import Callable
from heapq import heappop, heappush
from math import inf

# Looks at a thing at a time; gives when to look again (later than that; inf for not until it is
# moved), None for never.
Look = Callable[[float], float | None]


class Watch:
    """Things by the time of their next look; each thing is there once, under its key.

    Putting or moving a thing leaves its old heap entry behind. Only a thing's newest ticket counts,
    so an old entry is dropped when it surfaces.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, str]] = []
        self._things: dict[str, tuple[float, int, Look]] = {}
        self._tickets = 0

    def put(self, key: str, at: float, look: Look) -> None:
        """Look at this thing at `at`, whatever was planned for it before."""
        self._tickets += 1
        self._things[key] = (at, self._tickets, look)
        if at < inf:
            heappush(self._heap, (at, self._tickets, key))

    def move(self, key: str, at: float) -> None:
        """Look at `at` instead; nothing happens where the thing is not watched (any more)."""
        if key in self._things:
            self.put(key, at, self._things[key][2])

    def at(self, key: str) -> float:
        """When the thing is to be looked at; inf for never."""
        return self._things[key][0] if key in self._things else inf

    def clear(self) -> None:
        """Watch nothing any more."""
        self._heap.clear()
        self._things.clear()

    def next_at(self) -> float:
        """When there is something to look at; inf for never."""
        while self._heap and self._is_stale(self._heap[0]):
            heappop(self._heap)
        return self._heap[0][0] if self._heap else inf

    def advance(self, now: float) -> None:
        """Look at everything that is to be looked at by now, in the order of time."""
        while (at := self.next_at()) <= now:
            _, _, key = heappop(self._heap)
            _, _, look = self._things.pop(key)
            again = look(at)
            if again is not None:
                self.put(key, again, look)

    def _is_stale(self, entry: tuple[float, int, str]) -> bool:
        _, ticket, key = entry
        return key not in self._things or self._things[key][1] != ticket
