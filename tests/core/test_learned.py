"""The learned policy: it saves checks, notices changes, and stays within its bounds."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.learned import (
    GAP_SECONDS_MIN,
    KINDS_KEPT_MAX,
    KINDS_MAX,
    PRICE_RISE_MAX,
    RUNS_MIN,
    Kind,
    Learned,
)
from orchestrator.core.lifetimes import LAST_SECONDS
from orchestrator.core.polling import Polling

KIND = Kind("responses", "gpt-5-nano", "/v1/responses")


def play(learned, durations, chance, kind=KIND):
    """Run after run; (checks, delay) of each."""
    for seconds in durations:
        age, looks = 0.0, 0
        while True:
            luck = chance.random()
            gap = learned.gap_seconds(kind, age, looks, luck)
            gap = Polling().gap_seconds(looks, None, 600, luck) if gap is None else gap
            known, age, looks = age, age + gap, looks + 1
            if age >= seconds:
                break
            learned.still_running(kind, known, age)
        learned.ended(kind, known, age)
        yield looks, age - seconds


def means(played):
    checks, delays = zip(*played, strict=True)
    return sum(checks) / len(checks), sum(delays) / len(delays)


def test_it_takes_a_fraction_of_the_checks_of_backoff():
    """Runs of 8 to 12 s take 7 checks by backoff, and a good one when that is known."""
    chance = Random(1)  # noqa: S311 - no secret
    learned = Learned(5.0)
    played = list(play(learned, [chance.uniform(8, 12) for _ in range(300)], chance))

    assert means(played[:RUNS_MIN])[0] > 5
    checks, delay = means(played[100:])
    assert checks < 1.5
    assert delay < 2.5


@pytest.mark.slow
@pytest.mark.parametrize("factor", [0.1, 0.3, 3.0, 10.0])
def test_a_sudden_change_is_followed(factor):
    """200 runs after all have become faster or slower, checks and delay are as good as before."""
    chance = Random(2)  # noqa: S311 - no secret
    learned = Learned(2.0)
    durations = [10 * chance.lognormvariate(0, 0.2) for _ in range(400)]
    list(play(learned, durations, chance))

    list(play(learned, [factor * seconds for seconds in durations[:200]], chance))
    checks, delay = means(list(play(learned, [factor * s for s in durations[200:]], chance)))

    assert 2.0 * checks + delay < 5 + 10 * factor


def test_nothing_is_believed_before_a_dozen_runs_ended():
    """Until then, and over a day, backoff is in force."""
    learned = Learned(1.0)
    for _ in range(RUNS_MIN - 1):
        learned.still_running(KIND, 0.0, 9.0)
        learned.ended(KIND, 9.0, 10.0)
        assert learned.gap_seconds(KIND, 0.0, 0, 0.5) is None

    learned.ended(KIND, 9.0, 10.0)

    assert learned.gap_seconds(KIND, 0.0, 0, 0.5) is not None
    assert learned.gap_seconds(KIND, LAST_SECONDS, 9, 0.5) is None
    assert learned.gap_seconds(KIND._replace(after_outputs=True), 0.0, 0, 0.5) is None


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.floats(0, 1e5), st.floats(0, 1e5)), min_size=12, max_size=20),
    st.floats(0, LAST_SECONDS, exclude_max=True),
    st.integers(0, 3),
    st.floats(0, 1, exclude_max=True),
    st.floats(0.001, 1_000),
)
def test_the_next_check_is_in_the_future(looks, age, number, chance, price):
    """Whatever was learned, no gap is 0, and none leads past the grid by more than its jitter."""
    learned = Learned(price)
    for one, other in looks:
        learned.ended(KIND, min(one, other), max(one, other))

    gap = learned.gap_seconds(KIND, age, number, chance)

    assert gap is None or GAP_SECONDS_MIN <= gap < 1.1 * LAST_SECONDS


def test_the_price_rises_while_permits_are_scarce_and_comes_down_again():
    """Checks that wait for a permit make checks rarer, within a bound, and for no longer."""
    learned = Learned(1.0)
    chance = Random(3)  # noqa: S311 - no secret
    list(play(learned, [chance.uniform(1, 30) for _ in range(200)], chance))
    before = learned.gap_seconds(KIND, 0.0, 1, 0.5)
    for _ in range(500):
        learned.check_sent(1e9)

    assert learned.price_seconds == pytest.approx(PRICE_RISE_MAX, rel=0.1)
    assert learned.gap_seconds(KIND, 0.0, 1, 0.5) > 1.5 * before

    for _ in range(800):
        learned.check_sent(0.0)

    assert learned.price_seconds == pytest.approx(1.0, rel=0.01)
    assert learned.gap_seconds(KIND, 0.0, 1, 0.5) == pytest.approx(before, rel=0.2)


def test_memory_is_bounded_whatever_models_there_are():
    """The kinds that were not met for longest are forgotten first."""
    learned = Learned(1.0)
    for n in range(KINDS_MAX + 50):
        learned.ended(KIND, 1.0, 2.0)
        learned.ended(Kind("responses", f"model-{n}", "/v1/responses"), 1.0, 2.0)

    kept = [each.kind for each in learned.kept()]

    assert len(learned._kinds) == KINDS_MAX
    assert len(kept) == KINDS_KEPT_MAX
    assert KIND in kept


def test_what_was_kept_is_known_from_the_first_run_on():
    """The next execution begins where this one ended."""
    chance = Random(4)  # noqa: S311 - no secret
    learned = Learned(5.0)
    list(play(learned, [chance.uniform(8, 12) for _ in range(100)], chance))

    again = Learned(5.0, list(learned.kept()))

    assert means(list(play(again, [chance.uniform(8, 12) for _ in range(50)], chance)))[0] < 1.6
