"""The lines of a batch in the order in which they are done: a function of time, like runs.

Nothing happens between two looks at a batch. Whoever looks says what time it is, and the work is
caught up to there, in the order in which it would have happened.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf
from typing import NamedTuple

HTTP_OK = 200


class Line(NamedTuple):
    """One request of the input file; `number` counts from 1, empty lines included."""

    number: int
    custom_id: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of a line: the same that a direct call would have got, after `seconds`.

    `seconds` is inf where the answer never comes.
    """

    status_code: int
    body: bytes
    seconds: float
    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def worked(self) -> bool:
        """Whether it is an answer and no refusal."""
        return self.status_code == HTTP_OK


class Done(NamedTuple):
    """A line that was answered, and when."""

    at: float
    line: Line
    answered: Answered


Answer = Callable[[Line, float], Answered]


class Work:
    """Takes up line after line and hands them out as they are done.

    With `seconds` the lines are done evenly spread over so much time, however long each would
    take; without, `at_once` of them are worked on at a time, each as long as its answer takes. A
    line that is never answered holds up no other.
    """

    def __init__(
        self,
        lines: Sequence[Line],
        answer: Answer,
        starts_at: float,
        *,
        seconds: float | None,
        at_once: int,
    ) -> None:
        self._lines = lines
        self._answer = answer
        self._starts_at = starts_at
        self._seconds = seconds
        self._taken = 0
        self._free_at = [starts_at] * min(at_once, len(lines))
        self._running: list[tuple[float, int, Answered]] = []

    def next_done(self, now: float) -> Done | None:
        """The line that is done next, if it is done by `now`; each is handed out once."""
        while True:
            starts_at = self._next_start()
            if self._running and self._running[0][0] <= starts_at:
                if self._running[0][0] > now:
                    return None
                at, place, answered = heappop(self._running)
                return Done(at, self._lines[place], answered)
            if starts_at > now:
                return None
            self._take_up(starts_at)

    def next_at(self) -> float:
        """When the next line is taken up or done; inf for never."""
        return min(self._next_start(), self._running[0][0] if self._running else inf)

    def _next_start(self) -> float:
        if self._taken == len(self._lines):
            return inf
        if self._seconds is None:
            return self._free_at[0]
        return self._starts_at + self._seconds * (self._taken + 1) / len(self._lines)

    def _take_up(self, now: float) -> None:
        place = self._taken
        self._taken += 1
        answered = self._answer(self._lines[place], now)
        hangs = answered.seconds == inf
        if self._seconds is None:
            heappop(self._free_at)
            heappush(self._free_at, now if hangs else now + answered.seconds)
            ends_at = now + answered.seconds
        else:
            ends_at = inf if hangs else now
        if not hangs:
            heappush(self._running, (ends_at, place, answered))
