"""When a run is looked at next, and what each look at it teaches.

The server's hint is a lower bound, the learned policy comes next, and backoff is for all that it
does not know. Runs that one call answers for together (agent sessions, batches) stay with backoff:
their price is that of the call, which is the same for the last of a group as for all of it, and
polling.py thins their checks out by that.
"""

from collections.abc import Callable

from orchestrator.core.families import FACTS, THREADS_RUNS_URL
from orchestrator.core.groups import Groups
from orchestrator.core.learned import Kind, Learned
from orchestrator.core.model import Family, Seen
from orchestrator.core.rules import Rules
from orchestrator.core.runs import Run
from orchestrator.core.states import State

# A server's stamps are whole seconds, and so may be its idea of now.
STAMP_SECONDS = 1.0

# How long a webhook is under way, at most, when it is in time; what grace it has in ears.py.
DELIVERY_SECONDS = 5.0

# Those that are looked at one by one. A direct request has nothing to look at.
LEARNS = frozenset(
    family
    for family, facts in FACTS.items()
    if facts.runs_per_check == 1 and family is not Family.DIRECT
)


class Looking:
    """Plans looks at runs, and learns from those that were taken.

    Args:
        rules: Backoff and the price of a check.
        groups: Tells how thin a group has become.
        learned: What is known of lifetimes.
        chance: Gives a number in [0, 1).
    """

    def __init__(
        self, rules: Rules, groups: Groups, learned: Learned, chance: Callable[[], float]
    ) -> None:
        self._rules = rules
        self._groups = groups
        self._learned = learned
        self._chance = chance
        # Of runs that an earlier process began: what it saw of them it has counted, and how far
        # that was is not known. So the first look at each teaches nothing.
        self._begun_before: set[int] = set()

    def begun_before(self, run: Run) -> None:
        """An earlier process saw this run at work."""
        if run.request.family in LEARNS:
            self._begun_before.add(run.number)

    def gap_seconds(self, run: Run, hint_seconds: float | None, now: float) -> float:
        """The gap before the next look at a run that is at work now."""
        rules, chance = self._rules, self._chance()
        keeps = FACTS[run.request.family].keeps_result_seconds
        polling = rules.polling if run.shard is None else rules.batch_polling
        is_wanted = run.stop is None
        if is_wanted and run.request.family in LEARNS:
            gap = self._learned.gap_seconds(_kind(run), now - run.began_at, run.looks, chance)
            if gap is not None:
                return polling.within(gap, hint_seconds, keeps)
        left = self._groups.part_left(run.group) if is_wanted else 1.0
        return polling.gap_seconds(run.looks, hint_seconds, keeps, chance, left)

    def found_running(self, run: Run, now: float) -> None:
        """A look found it at work; `run.pending_at` is still of the look before."""
        if self._teaches(run):
            known_age, age = run.pending_at - run.began_at, now - run.began_at
            self._learned.still_running(_kind(run), known_age, age)

    def found_ended(self, run: Run, seen: Seen, told_at: float | None, now: float) -> None:
        """A look found that it had ended, or asks for tools; an event may have told of it."""
        if not self._teaches(run):
            return
        known_age, age = run.pending_at - run.began_at, now - run.began_at
        if told_at is not None:
            # The looks are far apart while events arrive, and the event says it better.
            age = max(min(age, told_at - run.began_at), known_age)
            known_age = max(known_age, age - DELIVERY_SECONDS)
        ago = seen.finished_seconds_ago
        if ago is not None:
            # The server's clock may be wrong: it only narrows what we know ourselves.
            early = max(known_age, age - ago - STAMP_SECONDS)
            late = min(age, age - ago + STAMP_SECONDS)
            if early < late:
                known_age, age = early, late
        self._learned.ended(_kind(run), known_age, age)

    def _teaches(self, run: Run) -> bool:
        """Whether a look tells how long such runs take; not so of one that we have cancelled."""
        if run.request.family not in LEARNS or run.state is not State.CHECKING:
            return False
        if run.number in self._begun_before:
            self._begun_before.discard(run.number)
            return False
        return run.stop is None and run.began_at <= run.pending_at


def _kind(run: Run) -> Kind:
    request = run.request
    # The url of a run on a thread that is there already names the thread.
    url = THREADS_RUNS_URL if request.family is Family.ASSISTANTS else request.url
    return Kind(request.family.value, request.model, url, run.turns > 0)
