"""What may be spent is not exceeded, whatever happens; and everything runs when it is enough."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.actions import CheckRuns
from orchestrator.core.budget import OUTPUT_TOKENS_ASSUMED, Amount, Budget, costs_of
from orchestrator.core.entries import CreateSent
from orchestrator.core.events import RunCreated
from orchestrator.core.failures import Cause
from orchestrator.core.model import Family, Outcome, Usage
from orchestrator.core.rules import Rules
from orchestrator.core.scheduler import Scheduler
from orchestrator.core.states import State
from orchestrator.errors import InvariantBroken

from .batch_world import BATCH_RULES
from .paid_world import PRICE, PaidBatchWorld, PaidWorld, price
from .play import Play, asks, ended, ending, endings, kinds, pending, request, results_of
from .pretend_server import End, Fate, Trouble
from .test_batch_machine import BATCHES, LINES
from .test_machine import ON_THE_SERVER, POLLED, SECONDS, SEEDS, TROUBLES
from .world import RULES

# Those that end, so that the server tells what they cost.
FATES = st.lists(
    st.builds(
        Fate,
        family=st.sampled_from([*POLLED, Family.DIRECT]),
        admitted_at=SECONDS,
        work_seconds=SECONDS,
        turns=st.lists(st.integers(1, 2), max_size=2).map(tuple),
        fails=st.integers(0, 2),
        end=st.sampled_from([End.COMPLETED, End.COMPLETED, End.INCOMPLETE, End.FAILED]),
        troubles=TROUBLES,
        thread=st.sampled_from(["", "", "t"]),
    ),
    min_size=1,
    max_size=8,
)
BY_BATCH = st.lists(
    st.builds(
        Fate,
        family=st.just(Family.DIRECT),
        via_batch=st.sampled_from([True, True, False]),
        admitted_at=SECONDS,
        turns=st.lists(st.integers(1, 2), max_size=2).map(tuple),
        fails=st.integers(0, 2),
        end=st.sampled_from(sorted(set(End) - ON_THE_SERVER)),
        troubles=TROUBLES,
    ),
    min_size=1,
    max_size=6,
)
# What a run costs, and what is reserved besides.
SIZES = st.lists(st.tuples(st.integers(1, 50), st.integers(0, 20)), min_size=1, max_size=8)
LIMITS = st.integers(1, 600)


def as_kept(result):
    """What a journal keeps of the cost of a result."""
    cost, lost = costs_of(price, result)
    return SimpleNamespace(
        usage=result.usage, lost_usage=result.lost_usage, cost_usd=cost, lost_usd=lost
    )


def settled(world, results):
    """The books of the budget are those of the results, which is what a journal has."""
    budget = world.scheduler.budget
    assert (budget.reserved, budget.holders) == (Amount(), 0)
    assumed = [budget.assumed_for(result.request, result.lost) for result in results.values()]
    assert budget.assumed == sum(assumed, Amount())
    used = sum(result.usage.total_tokens for result in results.values())
    assert budget.spent.tokens == used + budget.assumed.tokens
    again = Budget(world.scheduler._rules, price)
    for result in results.values():
        again.count_before(as_kept(result))
    assert again.spent.tokens == budget.spent.tokens
    assert again.assumed.tokens == budget.assumed.tokens
    assert again.spent.usd == pytest.approx(budget.spent.usd)
    return budget


@settings(max_examples=15)
@given(FATES, SIZES, LIMITS, SEEDS, st.booleans())
def test_no_more_is_spent_than_the_limit(fates, sizes, limit, seed, in_usd):
    """Retries, runs that failed, lost answers, tools: the server's bill stays below it."""
    limits = {"max_cost_usd": limit * PRICE} if in_usd else {"max_tokens": limit}
    world = PaidWorld(fates, seed, sizes, rules=replace(RULES, **limits))

    results = world.run()

    assert world.server.bill <= limit
    budget = settled(world, results)
    assert budget.spent.tokens <= limit
    for number, result in results.items():
        assert result.outcome in {fates[number - 1].outcome, Outcome.STOPPED, Outcome.FAILED}
        if result.outcome is Outcome.STOPPED:
            assert result.error.code == "budget_spent"


@settings(max_examples=15)
@given(BY_BATCH, BATCHES, LINES, SIZES, LIMITS, SEEDS)
def test_no_more_is_spent_by_batch(fates, batches, lines, sizes, limit, seed):
    """Batches that expire, are lost, or leave out lines don't break the limit either."""
    rules = replace(BATCH_RULES, max_tokens=limit)
    world = PaidBatchWorld(fates, seed, sizes, batches=batches, lines=lines, rules=rules)

    results = world.run()

    assert world.server.bill <= limit
    # Beyond it are only batches that were lost, looked for in vain, and so made once more.
    budget = settled(world, results)
    assert (budget.spent - budget.assumed).tokens <= limit


@settings(max_examples=15)
@given(FATES, SIZES, SEEDS)
def test_all_requests_run_when_the_limit_is_enough(fates, sizes, seed):
    """With room for every run and every lost answer nothing is stopped."""
    estimates = [sum(sizes[n % len(sizes)]) for n in range(1, len(fates) + 1)]
    runs = [1 + fate.fails + fate.troubles.count(Trouble.LOST_AFTER) for fate in fates]
    limit = sum(each * times for each, times in zip(estimates, runs, strict=True))
    world = PaidWorld(fates, seed, sizes, rules=replace(RULES, max_tokens=limit))

    results = world.run()

    assert [results[n].outcome for n in sorted(results)] == [fate.outcome for fate in fates]


@settings(max_examples=15)
@given(FATES, SIZES, SEEDS)
def test_nothing_is_sent_when_not_even_one_fits(fates, sizes, seed):
    """A limit below the smallest estimate stops everything at once."""
    limit = min(sum(size) for size in sizes) - 1
    if limit == 0:
        return
    world = PaidWorld(fates, seed, sizes, rules=replace(RULES, max_tokens=limit))

    results = world.run()

    assert {result.sent for result in results.values()} == {0}
    assert {result.outcome for result in results.values()} == {Outcome.STOPPED}
    assert world.scheduler.creates_stopped.code == "budget_spent"


class Generous(Scheduler):
    """Forgets what was lost."""

    def __init__(self, rules, chance, price=None):
        super().__init__(rules, chance, price)
        self.budget.lose = lambda run, *, is_create: None
        self.budget.settle = self.budget.release


class Forgetful(Scheduler):
    """Lets nobody in who waited."""

    def __init__(self, rules, chance, price=None):
        super().__init__(rules, chance, price)
        self.budget.take_next = lambda: None


LOSSES = [Fate(troubles=(Trouble.LOST_AFTER,), work_seconds=n) for n in range(12)]
IN_ORDER = [Fate(work_seconds=n) for n in range(12)]


def bill_of(fates, scheduler_type=Scheduler):
    rules = replace(RULES, max_tokens=100)
    world = PaidWorld(fates, 1, [(6, 4)], rules=rules, scheduler_type=scheduler_type)
    settled(world, world.run())
    return world.server.bill


@pytest.mark.parametrize(("broken", "fates"), [(Generous, LOSSES), (Forgetful, IN_ORDER)])
def test_a_broken_budget_is_noticed(broken, fates):
    """The properties above fail for a budget that forgets."""
    assert bill_of(fates) <= 100

    with pytest.raises((AssertionError, InvariantBroken)):
        bill_of(fates, broken)


# Step by step. A request here reserves 10 tokens: 9 for 36 bytes and 1 for the output.
TEN = {"body_bytes": 36, "output_tokens": 1}


def test_who_does_not_fit_waits_until_others_end():
    """First come, first served; what was reserved too much is given back."""
    play = Play(max_tokens=25).running(1, **TEN)
    play.running(2, **TEN)
    play.admit(3, **TEN)
    assert play.calls() == []

    play.wait(1)
    assert kinds(play.calls()) == [CheckRuns, CheckRuns]
    play.seen(ended(run_id="run_1"), 1)  # it took 7: with 10 for the second, 10 more don't fit
    assert play.calls() == []
    play.seen(ended(run_id="run_2"), 2)

    assert play.call().number == 3


def test_who_does_not_fit_when_nothing_is_reserved_stops_the_creates():
    """It is told what the limit is, what was spent, and what the next one may take."""
    play = Play(max_tokens=16).running(**TEN)
    play.check_again()
    assert play.admit(2, 3, **TEN) == []

    deeds = play.seen(ended())

    assert endings(deeds) == {1: Outcome.COMPLETED, 2: Outcome.STOPPED, 3: Outcome.STOPPED}
    error = results_of(deeds)[3].error
    assert error.code == "budget_spent"
    assert error.message == (
        "the limit is 16 tokens, and 7 tokens are spent; the next request may take 10 tokens"
    )


def test_a_lost_create_is_taken_for_spent():
    """Nobody knows what it cost, so all that was reserved is gone; the next try reserves anew."""
    play = Play(max_tokens=25).creating(**TEN)
    play.create_fails(Cause.CONNECTION_LOST)
    assert play.scheduler.budget.spent.tokens == play.scheduler.budget.assumed.tokens == 10

    play.wait_until_due()
    assert play.call().number == 1
    deeds = play.create_fails(Cause.CONNECTION_LOST) + play.wait_until_due()

    assert ending(deeds).outcome is Outcome.STOPPED
    assert (ending(deeds).error.code, ending(deeds).lost) == ("budget_spent", 2)


def test_a_create_that_is_refused_keeps_what_it_reserved():
    """Nothing was done, so nothing was spent, and nobody else gets its place."""
    play = Play(max_tokens=12).creating(**TEN)
    play.admit(2, **TEN)
    play.create_fails(Cause.SERVER_ERROR)
    assert play.scheduler.budget.spent.tokens == 0
    play.wait_until_due()
    assert [call.number for call in play.calls()] == [1]


def test_a_request_keeps_its_reservation_while_its_tools_are_at_work():
    """The next turn costs something, too."""
    play = Play(max_tokens=100).running(**TEN)
    play.check_again()
    play.seen(asks("a", run_id="run_1"))
    budget = play.scheduler.budget
    assert (budget.spent.tokens, budget.reserved.tokens) == (0, 10)


def test_what_runs_is_seen_to_its_end_when_the_budget_is_spent():
    """A run that took more than was reserved stops what is new, not what is at work."""
    play = Play(max_tokens=20).running(1, **TEN)
    play.running(2, **TEN)
    play.admit(3, **TEN)
    play.wait(1)
    assert kinds(play.calls()) == [CheckRuns, CheckRuns]
    deeds = play.seen(replace(ended(run_id="run_1"), usage=Usage(30, 1)), 1)

    assert endings(deeds) == {1: Outcome.COMPLETED, 3: Outcome.STOPPED}
    assert play.state(2) is State.CHECKING


def test_what_an_earlier_session_spent_counts():
    """A budget is one for an execution, however often it is gone on with."""
    play = Play(max_tokens=20)
    play.scheduler.budget.note_spent("m", Usage(9, 2))

    deeds = play.admit(1, **TEN)

    assert ending(deeds).error.code == "budget_spent"


def test_a_replay_gives_reservations_to_those_who_were_created():
    """Whatever is left of the budget; the others take their turn when it is over."""
    play = Play(max_tokens=25)
    replay = play.scheduler.replay()
    play.scheduler.budget.note_spent("m", Usage(10, 0))
    replay.admit(1, request("r1", **TEN), 0.0)
    replay.admit(2, request("r2", **TEN), 0.0)
    replay.take(CreateSent(2), 0.0)
    replay.take(RunCreated(2, pending("run_2")), 0.0)
    replay.settle(0.0)
    assert play.scheduler.budget.reserved.tokens == 10
    assert kinds(play.calls()) == [CheckRuns]  # 10 spent, 10 reserved, and 10 more don't fit

    play.seen(ended(run_id="run_2"), 2)

    assert play.scheduler.creates_stopped.code == "budget_spent"


def test_a_model_without_a_price_is_never_let_in():
    """The last line: such requests are refused before they come here."""
    play = Play(max_cost_usd=10)
    play.scheduler.budget._price = lambda *_: None

    assert ending(play.admit(1, **TEN)).error.code == "budget_spent"


def test_the_books_for_the_summary():
    """Limits, what was spent, and what of it is only assumed."""
    budget = Budget(Rules(max_cost_usd=2.0, max_tokens=1_000), price)
    budget.count_before(
        SimpleNamespace(
            usage=Usage(3, 1), lost_usage=Usage(10, 10), cost_usd=3 * PRICE, lost_usd=20 * PRICE
        )
    )
    assert budget.as_dict() == {
        "max_cost_usd": 2.0,
        "max_tokens": 1_000,
        "spent_usd": (4 - 1 + 20) * PRICE,
        "spent_tokens": 24,
        "assumed_usd": 20 * PRICE,
        "assumed_tokens": 20,
    }


def test_without_a_limit_nothing_is_counted():
    """A budget without a limit costs nothing, and says nothing."""
    play = Play()
    play.finished()
    assert play.scheduler.budget.as_dict() is None
    assert play.scheduler.budget.spent == Amount()


def test_what_is_reserved():
    """A token for 4 bytes and the output allowed, or what is assumed; half the price by batch."""
    budget = Budget(Rules(max_cost_usd=1.0), lambda _, usage: usage.output_tokens * 0.001)
    named = request(body_bytes=41, output_tokens=100)
    assert (budget.estimate(named).tokens, budget.estimate(named).usd) == (111, 0.1)
    assert budget.estimate(request()).tokens == OUTPUT_TOKENS_ASSUMED
    assert budget.estimate(request(url="/v1/embeddings", body_bytes=41)).tokens == 11
    batched = request(family=Family.DIRECT, via_batch=True, output_tokens=100)
    assert budget.estimate(batched).usd == 0.05
    rules = Rules(max_cost_usd=1.0, batch_direct_below=5)
    assert Budget(rules, lambda *_: 0.1).estimate(batched).usd == 0.1
