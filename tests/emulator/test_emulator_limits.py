"""The emulator's limiter: strict sliding windows, and what it tells those whom it refuses."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from orchestrator.emulator.limits import Limits, go_duration
from orchestrator.emulator.refusals import Refusal

# Time goes in 1024ths of a second: floats hold them exactly, so a window's edge is an edge.
TICKS = 1024
MINUTE = 60 * TICKS

# (gap, tokens): gaps that make many calls share windows, and some sit right on their edges.
CALLS = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 7, 500, 5_119, 20_480, MINUTE - 1, MINUTE]), st.integers(0, 50)
    ),
    max_size=60,
)


def play(limits, calls):
    """The admitted (ticks, tokens) of these calls, each (gap, tokens)."""
    admitted, ticks = [], 0
    for gap, tokens in calls:
        ticks += gap
        if told(limits, tokens, ticks / TICKS) is None:
            admitted.append((ticks, tokens))
    return admitted


def told(limits, tokens, now):
    """The headers of a refusal, None for an admitted call."""
    try:
        limits.admit("m", tokens, now)
    except Refusal as refusal:
        return refusal.headers
    return None


def in_window(admitted, end):
    return [tokens for at, tokens in admitted if end - MINUTE < at <= end]


@given(calls=CALLS, rpm=st.integers(1, 12), tpm=st.integers(1, 120), refused_count=st.booleans())
def test_no_sliding_minute_ever_holds_more_than_the_limits(calls, rpm, tpm, refused_count):
    """Whatever comes in whenever, every window of 60 seconds keeps both limits."""
    admitted = play(Limits(rpm, tpm, refused_count=refused_count), calls)

    for end, _ in admitted:
        window = in_window(admitted, end)
        assert len(window) <= rpm
        assert sum(window) <= tpm


@given(calls=CALLS, rpm=st.integers(1, 12))
def test_nobody_is_refused_without_need(calls, rpm):
    """Where refused calls don't count, a call is only refused when the window is really full."""
    limits, admitted, ticks = Limits(rpm, None, refused_count=False), [], 0
    for gap, _ in calls:
        ticks += gap
        full = len(in_window(admitted, ticks)) == rpm
        refused = told(limits, 0, ticks / TICKS) is not None
        assert refused == full
        if not refused:
            admitted.append((ticks, 0))


@given(
    calls=CALLS,
    rpm=st.integers(1, 12),
    tpm=st.integers(50, 120),
    tokens=st.integers(0, 50),
    refused_count=st.booleans(),
)
def test_who_waits_as_told_gets_in(calls, rpm, tpm, tokens, refused_count):
    """A refused call that comes back after `retry-after-ms` is admitted, if nobody else calls."""
    limits = Limits(rpm, tpm, refused_count=refused_count)
    play(limits, calls)
    now = sum(gap for gap, _ in calls) / TICKS
    headers = told(limits, tokens, now)
    assume(headers is not None)

    wait_ms = int(headers["retry-after-ms"])
    assert 0 < wait_ms <= 60_000
    assert int(headers["retry-after"]) * 1000 >= wait_ms
    assert told(limits, tokens, now + wait_ms / 1000) is None


def test_the_most_in_any_window_is_remembered():
    """The peak is the highest count of any 60 seconds, not of a calendar minute."""
    limits = Limits(None, None, refused_count=True)

    for at in (0, 50, 59, 61, 70, 200):
        limits.admit("m", 10, at)

    assert limits.windows["m"].admitted_max == 4  # 50, 59, 61, 70
    assert limits.windows["m"].tokens_max == 40
    assert limits.windows["m"].admitted_by_minute == {0: 3, 1: 2, 3: 1}


def test_models_have_limits_of_their_own():
    """One model's calls take nothing from another's."""
    limits = Limits(1, None, refused_count=True)

    limits.admit("a", 0, 0)
    limits.admit("b", 0, 0)

    with pytest.raises(Refusal):
        limits.admit("a", 0, 1)


def test_a_refused_call_uses_up_a_request():
    """Unsuccessful requests contribute: who hammers never gets through, who waits does."""
    hammered = Limits(1, None, refused_count=True)
    hammered.admit("m", 0, 0)
    for second in range(1, 200):
        with pytest.raises(Refusal):
            hammered.admit("m", 0, second)

    hammered.admit("m", 0, 199 + 60)


def test_the_headers_tell_what_is_left():
    """An admitted call's headers carry the limit, the rest, and when all is new again."""
    limits = Limits(600, 90_000, refused_count=True)
    limits.admit("m", 16, 0)

    assert limits.admit("m", 4, 30) == {
        "x-ratelimit-limit-requests": "600",
        "x-ratelimit-remaining-requests": "598",
        "x-ratelimit-reset-requests": "1m0s",
        "x-ratelimit-limit-tokens": "90000",
        "x-ratelimit-remaining-tokens": "89980",
        "x-ratelimit-reset-tokens": "1m0s",
    }


def test_only_limits_that_are_set_have_headers():
    """Without a limit there is nothing to tell."""
    assert Limits(None, None, refused_count=True).admit("m", 1, 0) == {}
    assert all("requests" in name for name in Limits(5, None, refused_count=True).admit("m", 1, 0))
    assert all("tokens" in name for name in Limits(None, 5, refused_count=True).admit("m", 1, 0))


def test_a_refusal_reads_like_openais():
    """Status, wording, type, code and both retry headers of a 429."""
    limits = Limits(2, None, refused_count=False)
    limits.admit("gpt-x", 0, 0)
    limits.admit("gpt-x", 0, 59.9)

    with pytest.raises(Refusal) as caught:
        limits.admit("gpt-x", 0, 59.95)

    refusal = caught.value
    assert refusal.status == 429
    assert (refusal.type, refusal.code) == ("requests", "rate_limit_exceeded")
    assert refusal.message == (
        "Rate limit reached for gpt-x in organization org-emulator on requests per min (RPM): "
        "Limit 2, Used 2, Requested 1. Please try again in 50ms."
    )
    assert refusal.headers["retry-after"] == "1"
    assert refusal.headers["retry-after-ms"] == "50"
    assert refusal.headers["x-ratelimit-remaining-requests"] == "0"


def test_tokens_that_no_window_holds_are_too_large():
    """A request above the whole limit is told so, and not when to come back."""
    with pytest.raises(Refusal, match="Request too large for m") as caught:
        Limits(None, 100, refused_count=True).admit("m", 101, 0)

    assert caught.value.type == "tokens"
    assert "retry-after" not in caught.value.headers


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0s"),
        (0.0001, "1ms"),
        (0.012, "12ms"),
        (1, "1s"),
        (1.5, "1.5s"),
        (59.9994, "1m0s"),
        (86.4, "1m26.4s"),
        (90, "1m30s"),
        (360, "6m0s"),
        (3600, "1h0m0s"),
        (3661.25, "1h1m1.25s"),
    ],
)
def test_durations_look_as_go_prints_them(seconds, shown):
    """Reset headers use Go's way to write a duration."""
    assert go_duration(seconds) == shown
