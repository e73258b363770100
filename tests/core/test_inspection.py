"""The optimum: no other schedule is cheaper, whatever the distribution and the price."""

from bisect import bisect_left
from itertools import accumulate, combinations
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.inspection import cheapest
from orchestrator.core.lifetimes import AGES, BINS, Belief

PRICES = st.floats(0.01, 20)


@st.composite
def distributions(draw, most=7):
    """Ages of ends, rising, and how often each."""
    ages = sorted(draw(st.sets(st.floats(0.1, 100), min_size=1, max_size=most)))
    weights = draw(st.lists(st.integers(0, 9), min_size=len(ages), max_size=len(ages)))
    weights[-1] += 1
    return ages, [weight / sum(weights) for weight in weights]


def cost_of(checks, ages, parts, price):
    """The mean of price x checks + delay."""
    found = [bisect_left(checks, age) for age in ages]
    return sum(
        part * (price * (check + 1) + checks[check] - age)
        for age, part, check in zip(ages, parts, found, strict=True)
    )


def planned(ages, parts, price):
    """The optimum's checks, and what it says that they cost."""
    summed = accumulate((age * part for age, part in zip(ages, parts, strict=True)), initial=0.0)
    ended = list(accumulate(parts, initial=0.0))
    schedule = cheapest([0.0, *ages], ended, list(summed), price, spread_within=False)
    checks, place = [], 0
    while place < len(ages):
        place = schedule.following[place]
        checks.append(ages[place - 1])
    return checks, schedule.cost


@settings(max_examples=40)
@given(distributions(), PRICES)
def test_no_schedule_is_cheaper(distribution, price):
    """Of all ways to place checks on the ages where runs end, none costs less."""
    ages, parts = distribution
    checks, cost = planned(ages, parts, price)
    every = [[*chosen, ages[-1]] for n in range(len(ages)) for chosen in combinations(ages[:-1], n)]

    assert cost_of(checks, ages, parts, price) == pytest.approx(cost)
    assert cost == pytest.approx(min(cost_of(each, ages, parts, price) for each in every))


@settings(max_examples=30)
@given(distributions(30), PRICES, st.floats(0.05, 50))
def test_a_fixed_gap_is_never_cheaper(distribution, price, gap):
    """Checks every so many seconds cost as much, or more."""
    ages, parts = distribution
    fixed = [gap * n for n in range(1, int(ages[-1] / gap) + 2)]

    assert planned(ages, parts, price)[1] <= cost_of(fixed, ages, parts, price) + 1e-9


@settings(max_examples=15)
@given(st.integers(0, 999), PRICES)
def test_the_next_check_is_always_ahead(seed, price):
    """At every age of the grid the next look is later, also within a bin."""
    chance = Random(seed)  # noqa: S311 - no secret
    weights = [chance.random() ** 9 for _ in range(BINS)]
    total = sum(weights) + 1.0
    belief = Belief([weight / total for weight in weights])

    schedule = cheapest(AGES, belief.ended, belief.summed, price, spread_within=True)

    assert all(schedule.following[place] > place for place in range(BINS))
    assert all(step >= 0.0 for step in schedule.steps)


def test_a_narrow_bin_far_out_is_looked_at_finely():
    """Runs that all end about 10 minutes after their creation are not found half a minute late."""
    masses = [0.0] * BINS
    masses[next(place for place, age in enumerate(AGES) if age > 600) - 1] = 1.0
    belief = Belief(masses)

    schedule = cheapest(AGES, belief.ended, belief.summed, 1.0, spread_within=True)

    assert schedule.cost < 10
