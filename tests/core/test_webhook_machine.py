"""The whole core with webhooks: lost, doubled, late, early, about nobody, of any type.

An event only brings a check forward. So whatever comes, every request ends as it would without.
"""

from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core import actions, events
from orchestrator.core.families import WEBHOOKS, About
from orchestrator.core.hearing import Hearing
from orchestrator.core.model import Family, Outcome
from orchestrator.errors import InvariantBroken

from .pretend_server import Fate
from .test_machine import SECONDS, SEEDS, STOPS, fates
from .world import RULES, World

GAP_SECONDS = 20.0  # less than the deadline leaves for each of all turns of all runs
HEARING = replace(RULES, deadline_seconds=3_000.0, webhook_gap_seconds=GAP_SECONDS)
ENDS = {family: kind for kind, (family, about) in WEBHOOKS.items() if about is About.END}
TYPES = [*WEBHOOKS, "agent.session.created", "response.created", "batch.canceled", "", "video.x"]

EXAMPLES = settings.default.max_examples // 4  # they take their time

# How often a check may follow from one event: at once, and while its run does not show it yet at
# gaps that grow from half a second to the far one.
CHECKS_PER_EVENT = 12


@dataclass(frozen=True)
class Channel:
    """What the way of the events does to them; parts of all."""

    lost: float = 0.0
    doubled: float = 0.0
    late: float = 0.0
    odd: float = 0.0  # beside the true one, any type about any run
    silent_from: float = float("inf")


class Anytime(dict):
    """Events bring checks forward, so that none can be too early."""

    def __missing__(self, number):
        return 0.0

    def __setitem__(self, number, at):
        pass


class Told(World):
    """The same world, in which the server tells of what becomes of its runs."""

    def __init__(self, fates, seed, channel, **more):
        super().__init__(fates, seed, rules=HEARING, **more)
        self.channel = channel
        self.told = dict.fromkeys(range(len(self.fates)), 0)
        self.referee.not_before = Anytime()

    def _answer_to(self, number, call):
        answer = super()._answer_to(number, call)
        if isinstance(call, actions.CreateRun | actions.SubmitToolOutputs | actions.CancelRun):
            self._tell_of(number, call)
        return answer

    def _tell_of(self, number, call):
        run_id = call.run_id if not isinstance(call, actions.CreateRun) else None
        remote = self.server.runs.get(run_id or self._newest_of(call))
        if remote is None or remote.fate.family not in ENDS:
            return
        at = max(remote.ready_at, self.now)
        waits = remote.turn < len(remote.fate.turns)
        kind = ENDS[remote.fate.family]
        if waits and remote.fate.family is Family.AGENT_SESSIONS:
            kind = "agent.session.action_required"
        chance, channel = self.chance, self.channel
        copies = 1 + (chance.random() < channel.doubled)
        if at >= channel.silent_from or chance.random() < channel.lost:
            copies = 0
        for _ in range(copies):
            late = chance.uniform(0, 90) if chance.random() < channel.late else 0.05
            self._arrives(at + late, number, remote.run_id, kind)
        if chance.random() < channel.odd:
            odd_id = chance.choice([*self.server.runs, "nobody's", ""])
            self._arrives(self.now + chance.uniform(0, 30), number, odd_id, chance.choice(TYPES))

    def _newest_of(self, call):
        created = self.server.created.get(call.request.custom_id)
        return None if created is None else self.server.newest(call.request.custom_id)

    def _arrives(self, at, number, run_id, kind):
        self.told[number] += 1
        self._later(at, events.WebhookArrived(run_id, kind))


PARTS = st.sampled_from([0.0, 0.1, 0.5, 1.0])
CHANNELS = st.builds(
    Channel,
    lost=PARTS,
    doubled=PARTS,
    late=PARTS,
    odd=PARTS,
    silent_from=st.just(float("inf")) | SECONDS,
)


@settings(max_examples=EXAMPLES)
@given(fates(st.just(())), SEEDS, CHANNELS)
def test_every_request_ends_as_without_webhooks(fates, seed, channel):
    """Whatever the events do, no run is left alone, and no outcome changes."""
    results = Told(fates, seed, channel).run()

    assert [results[n].outcome for n in sorted(results)] == [fate.outcome for fate in fates]


@settings(max_examples=EXAMPLES)
@given(fates(STOPS), SEEDS, CHANNELS)
def test_whatever_is_stopped_ends_once(fates, seed, channel):
    """An event about a run that is being cancelled, or was, does no harm."""
    results = Told(fates, seed, channel).run()

    for number, fate in enumerate(fates, 1):
        assert results[number].outcome in {fate.outcome, Outcome.CANCELLED}


@settings(max_examples=EXAMPLES)
@given(st.integers(1, 5), SEEDS, st.floats(0, 100), st.integers(0, 3))
def test_a_run_that_is_told_of_is_checked_once(runs, seed, work_seconds, turns):
    """And once for each turn, however long it takes; silence costs a few looks, at one run."""
    fates = [Fate(turns=(1,) * turns, work_seconds=work_seconds)] * runs
    world = Told(fates, seed, Channel())

    results = world.run()

    checks = sum(result.checks for result in results.values())
    far = work_seconds / (GAP_SECONDS * 0.8)
    probes = 2 + 5 * (turns + 1) if work_seconds > 10 else 0
    assert checks <= runs * (turns + 1) * (1 + far) + probes


@settings(max_examples=EXAMPLES)
@given(fates(st.just(())), SEEDS, CHANNELS)
def test_events_cost_few_checks(fates, seed, channel):
    """Nobody who can send events can make us ask without end."""
    world = Told(fates, seed, channel)
    results = world.run()

    told = sum(world.told.values())
    for number, fate in enumerate(fates, 1):
        if fate.family is not Family.RESPONSES:
            continue  # each look at a group looks at all of it
        runs_and_turns = (1 + fate.fails) * (1 + len(fate.turns))
        polled = 12 + results[number].seconds / 4.0
        assert results[number].checks <= runs_and_turns * 8 + polled + CHECKS_PER_EVENT * told


class NeverLooks(Hearing):
    """Relies on events alone."""

    def gap_seconds(self, run, planned, hint_seconds, chance, now):
        gap = super().gap_seconds(run, planned, hint_seconds, chance, now)
        return 1e9 if gap > 1 else gap

    def next_due(self):
        return None

    def probes(self, now):
        return iter(())


class ForgetsIds(Hearing):
    """Does not know a run by its id once a second one is there."""

    def enter(self, run, now):
        super().enter(run, now)
        if len(self._number_of) > 1:
            self._number_of.popitem()


@pytest.mark.parametrize(
    ("broken", "cry"),
    [(NeverLooks, "noticed late"), (ForgetsIds, "would not find it")],
    ids=["never looks", "forgets ids"],
)
def test_a_hearing_that_is_broken_is_noticed(broken, cry, monkeypatch):
    """The property fails for each of these; if it did not, it would prove nothing."""
    fates = [Fate(work_seconds=5.0)] * 3

    def play():
        results = Told(fates, 1, Channel(lost=1.0)).run()
        assert all(result.seconds < 2 * GAP_SECONDS for result in results.values()), "noticed late"

    play()
    monkeypatch.setattr("orchestrator.core.roster.Hearing", broken)
    with pytest.raises((AssertionError, InvariantBroken), match=cry):
        play()
