"""When to look again and when to try again: bounds that hold for every number that comes in."""

from math import inf, isfinite, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.polling import (
    HINT_SECONDS_MAX,
    JITTER,
    KEPT_PART_MAX,
    PART_LEFT_THIN,
    Backoff,
    Polling,
)

LOOKS = st.integers(0, 10**9)
CHANCE = st.floats(0, 1, exclude_max=True)
HINTS = st.none() | st.floats(0, 1e6)
KEEPS = st.floats(1, 1e6)
PART_LEFT = st.floats(0, 1, exclude_min=True)
POLLING = st.builds(
    Polling,
    first_seconds=st.floats(0.01, 100),
    factor=st.floats(1, 100),
    gap_seconds_max=st.floats(0.1, 1_000),
    thin_gap_seconds_max=st.floats(0.1, 10_000),
)
BACKOFF = st.builds(
    Backoff,
    first_seconds=st.floats(0.01, 100),
    factor=st.floats(1, 100),
    gap_seconds_max=st.floats(0.1, 1_000),
)


def test_gaps_between_checks_grow_from_half_a_second_to_five():
    """0.5 s, times 1.5, capped at 5 s; with chance in the middle these are the gaps exactly."""
    gaps = [Polling().gap_seconds(looks, None, 600, 0.5) for looks in range(9)]

    expected = [0.5, 0.75, 1.125, 1.6875, 2.53125, 3.796875, 5.0, 5.0, 5.0]
    assert gaps == pytest.approx(expected)


@given(POLLING, LOOKS, st.floats(0, 1e6), KEEPS, CHANCE)
def test_a_hint_is_a_lower_bound(polling, looks, hint, keeps, chance):
    """The server's wish is respected up to ten minutes, unless the result would be gone by then."""
    gap = polling.gap_seconds(looks, hint, keeps, chance)

    assert gap >= min(hint, HINT_SECONDS_MAX, keeps * KEPT_PART_MAX)
    assert gap <= max(polling.gap_seconds(looks, None, keeps, chance), HINT_SECONDS_MAX)
    assert gap >= polling.gap_seconds(looks, None, keeps, chance)


@given(POLLING, LOOKS, HINTS, KEEPS, CHANCE, PART_LEFT)
def test_no_gap_outlasts_half_the_retention(polling, looks, hint, keeps, chance, part_left):
    """Whatever the settings and the hint say, a finished result is found while it is kept."""
    assert 0 < polling.gap_seconds(looks, hint, keeps, chance, part_left) <= keeps / 2


@pytest.mark.parametrize(
    ("left", "seconds"), [(100, 5), (50, 5), (25, 7.0711), (10, 11.1803), (2, 25), (1, 30)]
)
def test_what_is_left_of_a_group_is_looked_at_less_often(left, seconds):
    """From half of the group on, by the square root of what is left, and never over 30 s."""
    gap = Polling().gap_seconds(64, None, inf, 0.5, left / 100)

    assert gap == pytest.approx(seconds, abs=0.001)


def test_a_new_wait_in_a_thin_group_begins_as_ever():
    """Short runs and tool turns are noticed as soon as in a full group; only the cap grows."""
    gaps = [Polling().gap_seconds(looks, None, inf, 0.5, 0.01) for looks in range(12)]

    assert gaps[:6] == [Polling().gap_seconds(looks, None, inf, 0.5) for looks in range(6)]
    assert gaps[6:] == pytest.approx([5.695, 8.543, 12.814, 19.222, 28.833, 30], abs=0.001)


@given(POLLING, LOOKS, HINTS, CHANCE, PART_LEFT, PART_LEFT)
def test_gaps_grow_as_a_group_shrinks(polling, looks, hint, chance, one, other):
    """The less is left, the longer the gap, within what the settings allow."""
    more, less = (
        polling.gap_seconds(looks, hint, inf, chance, part)
        for part in (max(one, other), min(one, other))
    )
    in_full_group = polling.gap_seconds(looks, hint, inf, chance)
    bound = max(polling.gap_seconds_max, polling.thin_gap_seconds_max) * (1 + JITTER)

    assert in_full_group <= more <= less <= max(bound, hint or 0.0)
    assert more == in_full_group or max(one, other) < PART_LEFT_THIN


@given(POLLING, LOOKS, CHANCE)
def test_jitter_lies_on_both_sides_of_the_planned_gap(polling, looks, chance):
    """The gap is the planned one, a tenth more or less."""
    planned = polling.gap_seconds(looks, None, inf, 0.5)

    gap = polling.gap_seconds(looks, None, inf, chance)

    assert planned * (1 - JITTER) <= gap * 1.000001
    assert gap <= planned * (1 + JITTER) * 1.000001
    assert polling.gap_seconds(looks, None, inf, 0.0) == pytest.approx(planned * (1 - JITTER))


@given(POLLING, BACKOFF, st.integers(1, 10**18), CHANCE)
def test_a_run_that_never_ends_does_not_overflow(polling, backoff, times, chance):
    """The billionth check is planned like the hundredth."""
    assert isfinite(polling.gap_seconds(times, None, inf, chance))
    assert isfinite(backoff.gap_seconds(times, None, chance))


@pytest.mark.parametrize("nonsense", [-5.0, nan])
def test_a_hint_that_makes_no_sense_is_no_hint(nonsense):
    """What a server says is not to be trusted."""
    polling, backoff = Polling(), Backoff()

    assert polling.gap_seconds(0, nonsense, 600, 0.5) == polling.gap_seconds(0, None, 600, 0.5)
    assert backoff.gap_seconds(1, nonsense, 0.5) == backoff.gap_seconds(1, None, 0.5)


def test_backoff_doubles_from_half_a_second_to_thirty():
    """0.5 s, doubled, capped at 30 s, all with the greatest chance."""
    gaps = [Backoff().gap_seconds(failures, None, 1.0) for failures in range(1, 9)]

    assert gaps == [0.5, 1, 2, 4, 8, 16, 30, 30]


@given(BACKOFF, st.integers(1, 100), st.floats(0, 1e6), CHANCE)
def test_retry_after_is_a_minimum_and_jitter_comes_on_top(backoff, failures, seconds, chance):
    """Nobody comes back early, and those who were told the same time come back apart."""
    gap = backoff.gap_seconds(failures, seconds, chance)

    assert gap > seconds
    assert backoff.gap_seconds(failures, seconds, 0.9) > backoff.gap_seconds(failures, seconds, 0.1)


@given(BACKOFF, st.integers(1, 10**9), CHANCE)
def test_half_of_a_backoff_is_left_to_chance(backoff, failures, chance):
    """A backoff lies between half of its plan and the whole."""
    planned = backoff.gap_seconds(failures, None, 1.0)

    assert planned / 2 * 0.999999 <= backoff.gap_seconds(failures, None, chance) <= planned
    assert planned <= backoff.gap_seconds_max
