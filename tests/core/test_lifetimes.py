"""Counting lifetimes: nothing that is seen of a run is lost, nothing that is not is made up."""

from math import inf, nan
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.lifetimes import AGES, BINS, PRIOR, Lifetimes, bin_of, place_of

AGE = st.floats(0, 200_000)


@given(AGE)
def test_every_age_has_a_bin_and_a_place(age):
    """From 0 to far over a day."""
    assert 0 <= bin_of(age) < BINS
    assert 0 <= place_of(age) < len(AGES)
    if age < AGES[-1]:
        assert AGES[bin_of(age)] <= age * 1.000001 + 1e-9
        assert age <= AGES[bin_of(age) + 1] * 1.000001


def test_the_first_to_end_do_not_make_all_look_short():
    """Of 1,000 that began together 50 have ended after a second: 5 in 100 are believed to do so."""
    lifetimes = Lifetimes()
    for n in range(1_000):
        if n < 50:
            lifetimes.ended(0.0, 1.0)
        else:
            lifetimes.survived(0.0, 1.0)

    assert lifetimes.believe().left(1.1) == pytest.approx(0.95, abs=0.02)


def test_runs_that_are_given_up_do_not_bias():
    """With every other run cancelled at a random age, the rest of the story is still right."""
    chance, lifetimes = Random(3), Lifetimes()  # noqa: S311 - no secret
    for _ in range(400):
        end, given_up = chance.expovariate(0.1), chance.uniform(0, 20)
        age = 0.0
        while True:
            known, age = age, age + chance.uniform(0.5, 1.5)
            if given_up < age and given_up < end:
                break
            if end <= age:
                lifetimes.ended(known, age)
                break
            lifetimes.survived(known, age)

    belief = lifetimes.believe()
    assert belief.left(5) == pytest.approx(0.607, abs=0.08)
    assert belief.left(15) == pytest.approx(0.223, abs=0.08)


@settings(max_examples=20)
@given(st.lists(st.tuples(AGE, AGE, st.booleans()), max_size=30))
def test_a_belief_is_a_distribution(looks):
    """Whatever is told, masses are not negative and no more than all."""
    lifetimes = Lifetimes()
    for one, other, has_ended in looks:
        tell = lifetimes.ended if has_ended else lifetimes.survived
        tell(min(one, other), max(one, other))

    belief = lifetimes.believe()

    assert min(belief.masses) >= 0.0
    assert belief.ended[-1] <= 1.0 + 1e-9


def test_what_is_long_ago_fades():
    """After thousands of runs of 2 s nobody believes in the 50 s of before."""
    lifetimes = Lifetimes()
    for seconds in [50.0] * 300 + [2.0] * 4_000:
        lifetimes.ended(seconds - 0.1, seconds)

    assert lifetimes.believe().left(3) < 0.03
    assert lifetimes.runs < 1_500


def test_counts_go_on_elsewhere():
    """What was counted is the same after it was written down and read."""
    lifetimes, other = Lifetimes(), Lifetimes()
    for n in range(100):
        lifetimes.survived(0.0, n / 10)
        lifetimes.ended(n / 10, n / 10 + 1)

    other.take(*lifetimes.counts())

    assert other.believe().ended == pytest.approx(lifetimes.believe().ended, abs=1e-3)
    assert PRIOR.left(1.0) > other.belief.left(20.0)


@pytest.mark.parametrize(
    ("ended", "entered"),
    [
        ([nan], []),
        ([], [inf]),
        ([-1.0], []),
        ([0.0] * (BINS + 1), []),
        ([], [0.0] * (BINS + 2)),
        ([1e9], []),
        ([], [1e12]),
    ],
)
def test_what_are_no_counts_is_refused(ended, entered):
    """A file that somebody changed does not get into the engine."""
    with pytest.raises(ValueError, match=r"^$"):
        Lifetimes().take(ended, entered)
