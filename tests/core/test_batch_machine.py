"""The core with batches against a pretend server: any mixture of fates, with a referee."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.actions import CreateRun, DropBatch
from orchestrator.core.events import RunSeen
from orchestrator.core.model import Family, Outcome, Status
from orchestrator.core.packing import Packing, Queue
from orchestrator.core.rules import Rules
from orchestrator.core.scheduler import Scheduler
from orchestrator.errors import InvariantBroken, TransitionImpossible

from .batch_world import BATCH_RULES, BatchWorld
from .pretend_batches import BatchEnd, BatchFate, LineEnd
from .pretend_server import Cancelling, End, Fate
from .test_machine import ON_THE_SERVER, SECONDS, SEEDS, STOPS, TROUBLES


def requests(stops):
    by_batch = st.builds(
        Fate,
        family=st.just(Family.DIRECT),
        via_batch=st.sampled_from([True, True, True, False]),
        admitted_at=SECONDS,
        turns=st.lists(st.integers(1, 3), max_size=3).map(tuple),
        fails=st.integers(0, 2),
        end=st.sampled_from(sorted(set(End) - ON_THE_SERVER)),
        troubles=TROUBLES,
        stops=stops,
    )
    return st.lists(by_batch, min_size=1, max_size=6)


LINES = st.lists(st.lists(st.sampled_from(LineEnd), max_size=4).map(tuple), max_size=6)
BATCHES = st.lists(
    st.builds(
        BatchFate,
        end=st.sampled_from(BatchEnd),
        work_seconds=st.floats(0, 200),
        part_done=st.floats(0, 1),
        troubles=TROUBLES,
        files=st.sampled_from([("answers", "errors"), ("errors", "answers")]),
        comes_twice=st.booleans(),
        lag_seconds=st.just(0.0) | st.floats(0, 30),
        cancelling=st.sampled_from(Cancelling),
        queue_tokens_max=st.none() | st.just(120),
    ),
    max_size=4,
).filter(lambda fates: [fate.end for fate in fates].count(BatchEnd.STUCK) <= 1)
BATCH_RULES_ANY = st.builds(
    lambda **of: Rules(**{**vars(BATCH_RULES), **of}),
    batch_lines_max=st.integers(1, 4),
    batch_queue_tokens=st.none() | st.integers(50, 250),
    batch_direct_below=st.sampled_from([0, 0, 2]),
)


@given(requests(st.just(())), BATCHES, LINES, BATCH_RULES_ANY, SEEDS)
def test_every_request_ends_as_its_fate_says(fates, batches, lines, rules, seed):
    """Batches expire, hang, are refused, lines are left out: none of it changes an outcome."""
    world = BatchWorld(fates, seed, batches=batches, lines=lines, rules=rules)

    results = world.run()

    assert [results[n].outcome for n in sorted(results)] == [fate.outcome for fate in fates]


@given(requests(STOPS), BATCHES, LINES, BATCH_RULES_ANY, SEEDS, st.none() | st.floats(0, 300))
def test_whatever_is_stopped_ends_once(fates, batches, lines, rules, seed, creates_stop_at):
    """At any moment, with and without a cancel, again and again: exactly one outcome each."""
    world = BatchWorld(
        fates, seed, batches=batches, lines=lines, rules=rules, creates_stop_at=creates_stop_at
    )

    results = world.run()

    for number, fate in enumerate(fates, 1):
        possible = {fate.outcome}
        if fate.stops:
            possible |= {Outcome.CANCELLED}
        if creates_stop_at is not None:
            possible |= {Outcome.STOPPED, Outcome.FAILED}  # a failed run gets no second one
        assert results[number].outcome in possible


# Canaries.


class GivesUpEarly(Scheduler):
    """Takes a batch that is still at work for one that is over."""

    def handle(self, event, now):
        if isinstance(event, RunSeen) and event.number < 0 and event.seen.status is Status.PENDING:
            event = RunSeen(event.number, replace(event.seen, status=Status.EXPIRED))
        return super().handle(event, now)


class ForgetsBatches(Scheduler):
    """Does not say that a batch is over."""

    def handle(self, event, now):
        deeds = super().handle(event, now)
        return [deed for deed in deeds if not isinstance(deed, DropBatch)]


class Unpacking(Packing):
    """Does not notice that a run in a shard is not wanted any more."""

    def remove(self, run):
        pass


class KeepsTheStopped(Scheduler):
    def __init__(self, rules, chance):
        super().__init__(rules, chance)
        self.roster.packing.__class__ = Unpacking


class Keeping(Queue):
    """Counts batches for ever."""

    def leave(self, batch, shard):
        pass


class FillsTheQueue(Scheduler):
    def __init__(self, rules, chance):
        super().__init__(rules, chance)
        self.roster.packing.queue.__class__ = Keeping


class AnswersAgain(Scheduler):
    """Sends tool outputs that were accepted once more, with those of the next turn."""

    def next_call(self, lane, now, tokens_free=float("inf")):
        call = super().next_call(lane, now, tokens_free)
        if isinstance(call, CreateRun) and any(line.outputs for line in call.lines):
            lines = tuple(replace(line, outputs=line.outputs * 2) for line in call.lines)
            call = replace(call, lines=lines)
        return call


CROWD = [
    Fate(
        family=Family.DIRECT,
        via_batch=True,
        turns=(2,) * (n % 3),
        admitted_at=float(n),
        stops=((1.0, True),) if n == 7 else (),
    )
    for n in range(20)
]
TIGHT = replace(BATCH_RULES, batch_lines_max=4, batch_queue_tokens=400)


@pytest.mark.parametrize(
    ("broken", "cry"),
    [
        (GivesUpEarly, "given up too early"),
        (ForgetsBatches, "nobody was told"),
        (KeepsTheStopped, "Run 8 .* can't go from 'ended'"),
        (FillsTheQueue, "never comes|watched by nobody"),
        (AnswersAgain, "missing or in disorder"),
    ],
    ids=[
        "gives up early",
        "forgets batches",
        "keeps the stopped",
        "fills the queue",
        "answers again",
    ],
)
def test_a_broken_scheduler_is_noticed(broken, cry):
    """The property fails for each of these; if it did not, it would prove nothing."""
    BatchWorld(CROWD, seed=1, rules=TIGHT).run()

    with pytest.raises((AssertionError, InvariantBroken, TransitionImpossible), match=cry):
        BatchWorld(CROWD, seed=1, rules=TIGHT, scheduler_type=broken).run()
