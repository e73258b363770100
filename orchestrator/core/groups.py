"""Runs that are checked together, because one call of their API can answer for all of them.

A group is closed when it holds as many runs as one answer can: what is created together is due
together. A run belongs to one group from its create to its end.
"""

from orchestrator.core.families import FACTS
from orchestrator.core.model import Family
from orchestrator.core.runs import Run


class Groups:
    """The groups of all families that can list their runs. Group 0 is no group."""

    __slots__ = ("_members", "_most", "_open", "issued")

    def __init__(self) -> None:
        self.issued = 0
        self._members: dict[int, dict[int, None]] = {}  # in the order of their creation
        self._most: dict[int, int] = {}  # members that a group had at one time
        self._open: dict[tuple[Family, str], tuple[int, int]] = {}  # group, runs it ever held

    def join(self, run: Run, lane: str) -> int:
        """The group that a run is created into; the same again when it is created again."""
        size = FACTS[run.request.family].runs_per_check
        if size == 1:
            return 0
        self.leave(run)
        place = (run.request.family, lane)
        group, held = self._open.get(place, (0, size))
        if held >= size:
            self.issued += 1
            group, held = self.issued, 0
        self._open[place] = (group, held + 1)
        members = self._members.setdefault(group, {})
        members[run.number] = None
        self._most[group] = max(self._most.get(group, 0), len(members))
        run.group = group
        return group

    def rejoin(self, run: Run, group: int) -> None:
        """For a replay: the run was created into this group, which takes no others any more."""
        self.leave(run)
        members = self._members.setdefault(group, {})
        members[run.number] = None
        self._most[group] = max(self._most.get(group, 0), len(members))
        run.group = group
        self.issued = max(self.issued, group)

    def leave(self, run: Run) -> None:
        members = self._members.get(run.group)
        if members is None:
            return
        members.pop(run.number, None)
        if not members:
            del self._members[run.group], self._most[run.group]
        run.group = 0

    def members(self, group: int) -> list[int]:
        """The numbers of the runs that are in flight, in the order of their creation."""
        return list(self._members.get(group, ()))

    def part_left(self, group: int) -> float:
        """The part of a group that is in flight still, of the most that it ever had; above 0.

        It is 1 for no group. A run counts until its request ends, so one whose result is being
        fetched and one that waits for its tools are in it.
        """
        members = self._members.get(group)
        return len(members) / self._most[group] if members else 1.0
