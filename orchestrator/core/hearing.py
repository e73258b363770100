"""What webhooks have told of runs, and whether those of a family arrive at all.

Rules: an event never says how a run stands; it only brings the next check forward. While the events
of a family arrive, its runs are checked far apart; when they stop, its runs are polled (ears.py
decides). Without webhooks nothing is kept here, for there may be a million runs.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import TypeVar

from orchestrator.core.ears import GRACE_SECONDS, NEVER, PROBE_SECONDS, Ears
from orchestrator.core.families import FACTS, About
from orchestrator.core.model import Family
from orchestrator.core.polling import JITTER, KEPT_PART_MAX
from orchestrator.core.runs import Run
from orchestrator.core.totals import HearingChange, Totals

T = TypeVar("T")

# Ids that are remembered: of events about runs that we don't know (yet), and of runs that are over.
# An endpoint hears of all runs of its project, so the first are bounded by nothing else.
IDS_MAX = 10_000
ID_CHARACTERS_MAX = 256  # no run has a longer one

# A run that was told of and does not show it yet is looked at soon, and then at gaps that grow up
# to the far one: so the delay is never more than half of the time by which its event was early.
TOLD_SECONDS = 0.5
TOLD_FACTOR = 1.5

# Servers tell the time of an end in whole seconds, and clocks differ by some more.
CLOCKS_DIFFER_SECONDS = 2.0

# A run to be probed is looked for among all of its family, which takes a millisecond for so many.
PROBED_AMONG_MAX = 10_000

# Changes that are kept for the summary.
CHANGES_MAX = 100


@dataclass(slots=True)
class _Told:
    """An event has told of a run, and so many looks since have not shown it."""

    at: float
    looks: int


@dataclass(frozen=True, slots=True)
class _Noticed:
    """A check found an end, or a wish for tools, between these times; its event has not come."""

    family: Family
    about: About
    earliest: float
    latest: float
    judged_at: float


class Hearing:
    """What is known from webhooks.

    Args:
        gap_seconds: Between two checks of a run whose event is waited for; None: there are none.
        totals: Where events are counted.
    """

    def __init__(self, gap_seconds: float | None, totals: Totals) -> None:
        self.is_on = gap_seconds is not None
        self._gap_seconds = gap_seconds or NEVER
        self._totals = totals
        self._began_at = -NEVER
        # Where gaps are shorter than this, probes would be more than all the checks of polling.
        probe_gap_max = max(self._gap_seconds, PROBE_SECONDS)
        self._ears = {
            family: Ears(probe_gap_max) for family in Family if FACTS[family].sends_webhooks
        }
        self._number_of: dict[str, int] = {}  # runs in flight, in the order of their creation
        self._told: dict[int, _Told] = {}  # by run
        # Not dicts: to find their first key takes ever longer while the oldest are being dropped.
        self._early: OrderedDict[str, tuple[Family, About]] = OrderedDict()
        self._over: OrderedDict[str, None] = OrderedDict()
        self._noticed: dict[tuple[str, About], _Noticed] = {}
        self._to_judge: list[tuple[float, str, About]] = []  # a heap
        self._changes: list[HearingChange] = []

    # Runs come and go.

    def enter(self, run: Run, now: float) -> None:
        """This run's id is known."""
        if not self.is_on or run.request.family not in self._ears:
            return
        self._number_of[run.run_id] = run.number
        early = self._early.get(run.run_id)
        if early is not None and early[0] is run.request.family:
            del self._early[run.run_id]
            self._totals.webhooks_unknown -= 1
            self._totals.webhooks_early += 1
            self.hear(*early, now)
            self.tell(run, now, looks=0)

    def leave(self, run: Run) -> None:
        """Nothing more is wanted of the run that has this id."""
        if not self.is_on:
            return
        self._told.pop(run.number, None)
        if self._number_of.get(run.run_id) == run.number:
            del self._number_of[run.run_id]
            _remember(self._over, run.run_id, None)

    def begin(self, now: float) -> None:
        """What an earlier process did not hear, while nobody listened, is no one's fault."""
        self._began_at = now
        for kept in (self._told, self._noticed, self._to_judge):
            kept.clear()
        for ears in self._ears.values():
            ears.rest()

    def holds(self, run: Run) -> bool:
        """Whether events about this run would find it."""
        return self._number_of.get(run.run_id) == run.number

    def has_known(self, run_id: str) -> bool:
        """Whether events about this id find a run, or are known to be late."""
        return run_id in self._number_of or run_id in self._over

    @property
    def size(self) -> int:
        """How many runs events would find."""
        return len(self._number_of)

    # Events.

    def number_of(self, run_id: str) -> int | None:
        """The run in flight that has this id."""
        return self._number_of.get(run_id)

    def tell(self, run: Run, now: float, *, looks: int) -> None:
        """An event is about this run, and so many looks at it are certain to come after it."""
        self._told[run.number] = _Told(now, looks)

    def hear(self, family: Family, about: About, now: float) -> None:
        """An event was of use, or would have been."""
        self._totals.webhooks_heard += 1
        why = self._ears[family].hear(about, now)
        if why is not None:
            self._change(family, why, now)

    def confirms(self, run_id: str, told: tuple[Family, About]) -> bool:
        """Whether an event tells what a check has found a moment before."""
        family, about = told
        noticed = self._noticed.get((run_id, about))
        if noticed is None or noticed.family is not family:
            return False
        del self._noticed[run_id, about]
        return True

    def keep(self, run_id: str, told: tuple[Family, About]) -> None:
        """An event about no run in flight: it is late, or its run's create is not answered yet."""
        if run_id in self._over:
            self._totals.webhooks_late += 1
        else:
            self._totals.webhooks_unknown += run_id not in self._early
            if len(run_id) <= ID_CHARACTERS_MAX:
                _remember(self._early, run_id, told)

    # Checks.

    def gap_seconds(
        self,
        run: Run,
        planned: float,
        hint_seconds: float | None,
        chance: Callable[[], float],
        now: float,
    ) -> float:
        """The gap before the next check of a run that was seen at work.

        Args:
            run: It.
            planned: The gap without webhooks.
            hint_seconds: The server's wish, if any.
            chance: For the jitter: else all that were created together are checked together.
            now: When it was seen.
        """
        ears = self._ears.get(run.request.family)
        if not self.is_on or ears is None:
            return planned
        told = self._told.get(run.number)
        if told is not None:
            told.looks += 1
            if told.looks == 1:
                return 0.0  # the answer may be older than the event
        if ears.are_deaf or run.stop is not None:
            return planned
        ears.expect(now)
        # Never longer than was said: it is what a lost event may cost.
        far = self._gap_seconds * (1 - 2 * JITTER * chance())
        if told is not None:
            grown = TOLD_SECONDS * TOLD_FACTOR ** min(told.looks - 2, 64)
            far = max(min(grown, far), hint_seconds or 0.0)
        else:
            far = max(planned, far)
        return min(far, FACTS[run.request.family].keeps_result_seconds * KEPT_PART_MAX)

    def notice(self, run: Run, about: About, ago: float | None, now: float) -> float | None:
        """A check has found an end or a wish for tools; if no event told of it, it is judged.

        `ago` is how long ago that was by the server's word.

        Returns:
            When an event told of it, if one did.
        """
        ears = self._ears.get(run.request.family)
        told = self._told.pop(run.number, None)
        if told is not None:
            return told.at
        if self.is_on and ears is not None:
            self._await_event(run, ears, about, ago, now)
        return None

    def _await_event(
        self, run: Run, ears: Ears, about: About, ago: float | None, now: float
    ) -> None:
        """No event has told of it; it may be on its way."""
        earliest, latest = run.pending_at, now
        # A word that says otherwise than we saw ourselves is that of another clock, and says
        # nothing.
        most = latest - earliest + CLOCKS_DIFFER_SECONDS
        if ago is not None and -CLOCKS_DIFFER_SECONDS <= ago <= most:
            earliest = latest = min(max(now - ago, earliest), now)
        if earliest < self._began_at:
            return
        key, judged_at = (run.run_id, about), max(latest + GRACE_SECONDS, now)
        self._noticed[key] = _Noticed(run.request.family, about, earliest, latest, judged_at)
        heappush(self._to_judge, (judged_at, *key))
        # Each probe looks for its run among all that are at work: where these are very many, the
        # far gap finds what was lost.
        if self.size <= PROBED_AMONG_MAX:
            ears.suspect(earliest, latest, now)

    def withdraw(self, run: Run, now: float) -> None:
        """The end that a check has found was none: a list may show a session idle too early.

        Else the event about the true end would pass for that of this one. If an event had told of
        this one, it is about an end that does not show yet.
        """
        if self.holds(run) and self._noticed.pop((run.run_id, About.END), None) is None:
            self.tell(run, now, looks=1)

    def forget_told(self, run: Run) -> None:
        """What an event told has been seen, otherwise than by a check."""
        self._told.pop(run.number, None)

    # Time.

    def next_due(self) -> float | None:
        """When time alone decides something."""
        if not self.is_on:
            return None
        moments = [ears.probe_at for ears in self._ears.values() if not ears.are_deaf]
        if (judged_at := self._next_judgement()) is not None:
            moments.append(judged_at)
        first = min(moments, default=NEVER)
        return first if first < NEVER else None

    def judge(self, now: float) -> None:
        """What was noticed long enough ago, and had no event since, had none in time."""
        while (judged_at := self._next_judgement()) is not None and judged_at <= now:
            _, run_id, about = heappop(self._to_judge)
            noticed = self._noticed.pop((run_id, about))
            self._totals.webhooks_missed += 1
            why = self._ears[noticed.family].lose(noticed.about, noticed.earliest, noticed.latest)
            if why is not None:
                self._change(noticed.family, why, now)

    def _next_judgement(self) -> float | None:
        """When the next is judged. What was told of, or noticed anew, has left an entry behind."""
        while self._to_judge:
            judged_at, run_id, about = self._to_judge[0]
            noticed = self._noticed.get((run_id, about))
            if noticed is not None and noticed.judged_at == judged_at:
                return judged_at
            heappop(self._to_judge)
        return None

    def probes(self, now: float) -> Iterator[Family]:
        """The families of which one run has to be looked at, because nothing is heard of them."""
        if self.is_on:
            for family, ears in self._ears.items():
                if not ears.are_deaf and now >= ears.probe_at:
                    yield family

    def probed(self, family: Family, *, run: Run | None, now: float) -> None:
        """This run of the family is looked at now; None when none waits for an event."""
        if run is None:
            self._ears[family].rest()
        else:
            self._ears[family].probed(now)

    def numbers(self) -> Iterator[int]:
        """The runs in flight, in the order of their creation."""
        return iter(self._number_of.values())

    # Changes.

    def take_changes(self) -> Sequence[HearingChange]:
        """What was decided since it was asked last."""
        if not self._changes:
            return ()
        changes, self._changes = self._changes, []
        return changes

    def _change(self, family: Family, why: str, now: float) -> None:
        change = HearingChange(now, family, not self._ears[family].are_deaf, why)
        self._changes.append(change)
        if len(self._totals.hearing_changes) < CHANGES_MAX:
            self._totals.hearing_changes.append(change)


def _remember(ids: OrderedDict[str, T], run_id: str, value: T) -> None:
    """Keep an id, and drop the oldest of too many."""
    ids[run_id] = value
    ids.move_to_end(run_id)
    if len(ids) > IDS_MAX:
        ids.popitem(last=False)
