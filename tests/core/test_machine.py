"""The whole core against a pretend server: any mixture of fates, in virtual time, with a referee.

The canaries at the end break the scheduler on purpose; a referee that does not notice is no use.
"""

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.core.actions import RecordOutcome
from orchestrator.core.model import Family, Outcome
from orchestrator.core.polling import Polling
from orchestrator.core.roster import Roster
from orchestrator.core.rules import Rules
from orchestrator.core.runs import Run
from orchestrator.core.schedule import Schedule
from orchestrator.core.scheduler import Scheduler
from orchestrator.core.states import State
from orchestrator.errors import InvariantBroken

from .pretend_server import WAIT_FOR_OUTPUTS, Cancelling, End, Fate, Trouble
from .world import RULES, World

SECONDS = st.floats(0, 30)
ON_THE_SERVER = {End.VANISHES, End.HANGS}
# A batch is no family of a request: it carries requests of the direct endpoints.
POLLED = sorted(set(Family) - {Family.DIRECT, Family.BATCH})
# At most three, so that no bound on attempts is reached and the outcome must be the fate's own;
# of those at most two that say the run is missing.
TROUBLES = (
    st.lists(st.sampled_from(Trouble), max_size=3)
    .map(tuple)
    .filter(lambda troubles: troubles.count(Trouble.MISSING) < 3)
)


def fates(stops):
    """Any fate; `stops` says when its request may be stopped."""
    polled = st.builds(
        Fate,
        family=st.sampled_from(POLLED),
        admitted_at=SECONDS,
        work_seconds=SECONDS,
        turns=st.lists(st.integers(1, 3), max_size=3).map(tuple),
        fails=st.integers(0, 2),
        end=st.sampled_from(End),
        troubles=TROUBLES,
        stale_looks=st.integers(0, 3),
        cancelling=st.sampled_from(Cancelling),
        lag_seconds=st.just(0.0) | st.floats(0, 5),
        thread=st.sampled_from(["", "", "t1", "t2"]),
        stops=stops,
    )
    direct = st.builds(
        Fate,
        family=st.just(Family.DIRECT),
        admitted_at=SECONDS,
        turns=st.lists(st.integers(1, 3), max_size=3).map(tuple),
        fails=st.integers(0, 2),
        end=st.sampled_from(sorted(set(End) - ON_THE_SERVER)),
        troubles=TROUBLES,
        stops=stops,
    )
    return st.lists(polled | direct, min_size=1, max_size=6)


STOPS = st.lists(st.tuples(st.floats(0, 60), st.booleans()), max_size=3).map(tuple)
SEEDS = st.integers(0, 2**32)


@given(fates(st.just(())), SEEDS)
def test_every_request_ends_as_its_fate_says(fates, seed):
    """Lost answers, 5xx, 429, 404, late status: trouble on the way changes no outcome."""
    results = World(fates, seed).run()

    assert [results[n].outcome for n in sorted(results)] == [fate.outcome for fate in fates]


WAITS = sorted(WAIT_FOR_OUTPUTS)


LAGS = Fate(Family.AGENT_SESSIONS, troubles=(Trouble.LOST_AFTER,), lag_seconds=5.0)


@example([LAGS, replace(LAGS, family=Family.ASSISTANTS, fails=1)], 0)
@given(fates(st.just(())), SEEDS)
def test_lost_creates_are_looked_for_and_counted_to_the_last(fates, seed):
    """What can be listed is not created twice, but where the list lags; what was lost is told."""
    world = World(fates, seed)

    for number, result in world.run().items():
        fate = fates[number - 1]
        if fate.family not in WAITS:
            continue
        created = {run_id for run_id in world.server.runs if run_id.startswith(f"r{number}/")}
        assert result.lost == len(created - world.referee.ever_known)
        if fate.end is not End.VANISHES:  # else lists don't show it
            assert result.lost == 0  # lists lag 5 s at most, and 10 s are waited for them


@given(fates(STOPS), SEEDS, st.none() | SECONDS)
def test_whatever_is_stopped_ends_once(fates, seed, creates_stop_at):
    """At any moment, with and without a cancel, again and again: exactly one outcome each."""
    world = World(fates, seed, creates_stop_at=creates_stop_at)

    results = world.run()

    for number, fate in enumerate(fates, 1):
        possible = {fate.outcome}
        if fate.stops:
            possible |= {Outcome.CANCELLED}
        if creates_stop_at is not None:
            possible |= {Outcome.STOPPED, Outcome.FAILED}  # a failed run gets no second one
        assert results[number].outcome in possible


HUNG = st.builds(
    Fate,
    family=st.sampled_from(POLLED),
    lag_seconds=st.just(0.0) | st.floats(0, 5),
    work_seconds=SECONDS,
    end=st.just(End.HANGS),
    troubles=TROUBLES,
    stops=st.just(()) | st.lists(st.tuples(SECONDS, st.just(True)), min_size=1).map(tuple),  # noqa: FBT003 - cancel
)


@given(st.lists(HUNG, min_size=1, max_size=4), SEEDS)
def test_no_hung_run_is_left_on_the_server(fates, seed):
    """Whether its deadline passed or it was stopped, the last run we knew of was cancelled."""
    world = World(fates, seed)

    for result in world.run().values():
        assert not result.run_id or result.run_id in world.server.cancels_asked


def test_the_same_seed_gives_the_same_world():
    """Chance comes in from outside, so a failure can be played again."""
    fates = [Fate(turns=(2,), work_seconds=n, fails=n % 2) for n in range(10)]

    first, second = (World(fates, seed=7).run() for _ in range(2))

    assert first == second


# Canaries.


class Forgetful(Schedule):
    """Loses every seventh wake."""

    __slots__ = ("puts",)

    def put(self, number, due_at):
        self.puts = getattr(self, "puts", 0) + 1
        super().put(number, due_at)
        if self.puts % 7 == 0:
            self.drop(number)


class DropsWakes(Scheduler):
    def __init__(self, rules, chance):
        super().__init__(rules, chance)
        self.roster.schedule = Forgetful()


class AnswersTwice(Scheduler):
    """Does not remember which tool calls were answered."""

    def handle(self, event, now):
        deeds = super().handle(event, now)
        for run in self.roster.runs.values():
            run.answered = frozenset()
        return deeds


class ForgetsIds(Scheduler):
    """Takes a run at work for one that waits to be created."""

    def handle(self, event, now):
        deeds = super().handle(event, now)
        for run in self.roster.runs.values():
            if run.state is State.RUNNING and run.checks == 2:
                self._start_over(run, now)
        return deeds

    def _start_over(self, run: Run, now):
        self.totals.in_state[run.state] -= 1
        run.state = State.WAITING
        self.totals.in_state[run.state] += 1
        self.roster.line_up(run, now)


class Barges(Roster):
    """Lets nobody wait for a turn on a thread."""

    def may_start(self, run):
        super().may_start(run)
        return True


class IgnoresThreads(Scheduler):
    def __init__(self, rules, chance):
        super().__init__(rules, chance)
        self.roster.__class__ = Barges


class LosesOutcomes(Scheduler):
    """Ends every request, and does not always say so."""

    def handle(self, event, now):
        deeds = super().handle(event, now)
        return [
            deed for deed in deeds if not (isinstance(deed, RecordOutcome) and deed.number == 5)
        ]


CROWD = [
    Fate(
        family=[Family.RESPONSES, Family.ASSISTANTS, Family.AGENT_SESSIONS][n // 3 % 3],
        turns=(2,) * (n % 3),
        work_seconds=n % 9,
        stale_looks=2,
        thread="t" if n in {3, 12} else "",
    )
    for n in range(20)
]
IMPATIENT = Rules(polling=Polling(first_seconds=0.1, gap_seconds_max=0.2))


@pytest.mark.parametrize(
    ("broken", "rules", "cry"),
    [
        (DropsWakes, RULES, "watched by nobody|without a deadline"),
        (AnswersTwice, RULES, "answered twice"),
        (ForgetsIds, RULES, "created twice"),
        (IgnoresThreads, RULES, "has its thread"),
        (LosesOutcomes, RULES, "no outcome was recorded for .5"),
        (Scheduler, IMPATIENT, "before it was due"),
    ],
    ids=[
        "drops wakes",
        "answers twice",
        "forgets ids",
        "ignores threads",
        "loses outcomes",
        "is impatient",
    ],
)
def test_a_broken_scheduler_is_noticed(broken, rules, cry):
    """The property fails for each of these; if it did not, it would prove nothing."""
    World(CROWD, seed=1).run()

    with pytest.raises((AssertionError, InvariantBroken), match=cry):
        World(CROWD, seed=1, rules=rules, scheduler_type=broken).run()


def test_a_lost_wake_is_noticed_at_the_end_too(monkeypatch):
    """Without the invariants a lost wake still shows: something never ends."""
    monkeypatch.setattr("core.world.invariants.check", lambda scheduler: None)

    with pytest.raises(AssertionError, match="never comes"):
        World(CROWD, seed=1, scheduler_type=DropsWakes).run()
