"""Remote runs as functions of time: what a run shows follows from when it was created."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf
from typing import ClassVar


@dataclass(slots=True)
class Run:
    """One remote run: queued, then in progress, then whatever it ends as.

    A status that nobody knows is shown from the moment it would be in progress, for ever.
    Families keep what else they know of a run in a subclass. One that is `kept` can be retrieved
    for ever.
    """

    kept: ClassVar[bool] = False

    id: str
    model: str
    created_at: float
    started_at: float
    ends_at: float
    ends_as: str
    input_tokens: int
    output_tokens: int
    lost: bool = False
    stale_checks: int = 0
    cancelled_at: float | None = None

    def status(self, now: float) -> str:
        """What the run is at this time."""
        if self.cancelled_at is not None:
            return "cancelled"
        if now < self.started_at:
            return "queued"
        if self.ends_as not in ENDS and self.ends_as != NEVER:
            return self.ends_as
        return "in_progress" if now < self.ends_at else self.ends_as

    def is_over(self, now: float) -> bool:
        """Whether it shows its last status, one that is known."""
        return self.cancelled_at is not None or self.over_at <= now

    @property
    def over_at(self) -> float:
        """When it shows its last status, inf for never."""
        if self.cancelled_at is not None:
            return self.cancelled_at
        return self.ends_at if self.ends_as in ENDS else inf

    def billed(self, now: float) -> tuple[int, int]:
        """Tokens in and out that it has cost by now; nothing before the end, nothing cancelled."""
        if self.cancelled_at is None and self.over_at <= now and self.ends_as in BILLED:
            return self.input_tokens, self.output_tokens
        return 0, 0


NEVER = "hang"
BILLED = frozenset({"completed", "incomplete"})
ENDS = BILLED | {"failed"}


class Runs:
    """All runs that can still be retrieved, and a tally of those that can't."""

    def __init__(self, retention_seconds: float) -> None:
        self._retention_seconds = retention_seconds
        self._runs: dict[str, Run] = {}
        self._guests: dict[str, Run] = {}
        self._leaving: list[tuple[float, str]] = []
        self._gone: Counter[str] = Counter()
        self._gone_tokens = [0, 0]

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs.values())

    def add(self, run: Run, now: float) -> None:
        """Take a new run in, and let go of those whose time is up."""
        self._forget(now)
        self._runs[run.id] = run
        self._plan(run)

    def add_guest(self, run: Run) -> None:
        """Let a run be found for good that somebody else counts and bills."""
        self._guests[run.id] = run

    def find(self, run_id: str, now: float) -> Run | None:
        """The run, unless it was never there, is lost, or was kept long enough."""
        run = self._runs.get(run_id)
        if run is None or run.lost:
            return self._guests.get(run_id)
        too_old = not run.kept and run.over_at + self._retention_seconds < now
        return None if too_old else run

    def cancel(self, run: Run, now: float) -> None:
        """End the run now, unless it is over; asking twice is the same as asking once."""
        if not run.is_over(now):
            run.cancelled_at = now
            self._plan(run)

    def by_status(self, now: float) -> dict[str, int]:
        """How many runs ever created are what by now."""
        return dict(self._gone + Counter(run.status(now) for run in self))

    def billed(self, now: float) -> tuple[int, int]:
        """Tokens in and out that all runs have cost by now."""
        tokens = [run.billed(now) for run in self]
        return (
            self._gone_tokens[0] + sum(cost[0] for cost in tokens),
            self._gone_tokens[1] + sum(cost[1] for cost in tokens),
        )

    def _plan(self, run: Run) -> None:
        if run.over_at < inf and not run.kept:
            heappush(self._leaving, (run.over_at + self._retention_seconds, run.id))

    def _forget(self, now: float) -> None:
        while self._leaving and self._leaving[0][0] < now:
            _, run_id = heappop(self._leaving)
            run = self._runs.pop(run_id, None)
            if run is not None:  # a cancelled run was planned twice
                self._gone[run.status(now)] += 1
                tokens_in, tokens_out = run.billed(now)
                self._gone_tokens[0] += tokens_in
                self._gone_tokens[1] += tokens_out
