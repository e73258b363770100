"""The limiter: no window over the limit, hardly a permit lost, the server's word is heard."""

import asyncio
from bisect import bisect_left
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.virtual_loop import VirtualTimeLoop

from orchestrator.adapters.clock import LoopClock
from orchestrator.adapters.limiter.limiter import Limiter
from orchestrator.ports import LimitsTold

LANE = "gpt-5-mini"


def fullest_window(times, amounts=None, seconds=60.0):
    """The most that any half-open window of this length holds."""
    sums = [0, *accumulate(amounts or [1] * len(times))]
    return max(
        sums[bisect_left(times, start + seconds)] - sums[index] for index, start in enumerate(times)
    )


async def send(limiter, calls, tokens=0, until=float("inf")):
    """Send as fast as the limiter lets us, as the driver does; the times at which calls went."""
    loop, times = asyncio.get_running_loop(), []
    while len(times) < calls and loop.time() < until:
        free = limiter.tokens_free(LANE)
        if free is not None and free >= tokens:
            limiter.take(LANE, tokens)
            times.append(loop.time())
        else:
            await asyncio.sleep(limiter.seconds_until(LANE, tokens))
    return times


def virtually(coroutine):
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(coroutine)


@pytest.mark.parametrize(
    "rpm", [60, 600, 3_500, 6_000, pytest.param(30_000, marks=pytest.mark.slow)]
)
async def test_no_window_is_over_the_limit_and_permits_are_used(rpm):
    """With a backlog, every minute holds at most rpm calls, and at 600 and more 99 % of them."""
    times = await send(Limiter(LoopClock(), rpm=rpm), calls=4 * rpm, until=200)

    assert fullest_window(times) <= rpm
    for minute in range(3):
        used = bisect_left(times, 60 * (minute + 1)) - bisect_left(times, 60 * minute)
        assert used >= (0.99 if rpm >= 600 else 0.97) * rpm


@given(
    rpm=st.integers(1, 400),
    pauses=st.lists(st.tuples(st.integers(1, 200), st.floats(0, 100)), max_size=6),
)
def test_no_window_is_over_the_limit_whatever_the_pauses(rpm, pauses):
    """Bursts after idle times stay within every window too."""

    async def scene():
        limiter, times = Limiter(LoopClock(), rpm=rpm), []
        for calls, pause in pauses:
            times += await send(limiter, min(calls, 2 * rpm))
            await asyncio.sleep(pause)
        return times

    times = virtually(scene())

    assert not times or fullest_window(times) <= rpm


@given(
    tpm=st.integers(100, 100_000),
    parts=st.lists(st.floats(0.001, 1.0), min_size=1, max_size=40),
)
def test_no_window_holds_more_tokens_than_the_limit(tpm, parts):
    """Requests of any size up to the limit: tokens of every window stay within it."""
    amounts = [max(1, int(part * tpm)) for part in parts]

    async def scene():
        limiter, times = Limiter(LoopClock(), tpm=tpm), []
        for tokens in amounts:
            times += await send(limiter, 1, tokens)
        return times

    assert fullest_window(virtually(scene()), amounts) <= tpm


async def test_token_permits_are_used():
    """With a backlog of small requests, 97 % of the tokens of each minute are used."""
    times = await send(Limiter(LoopClock(), tpm=100_000), calls=10_000, tokens=100, until=200)

    for minute in range(3):
        used = bisect_left(times, 60 * (minute + 1)) - bisect_left(times, 60 * minute)
        assert used * 100 >= 0.97 * 100_000


async def test_a_request_larger_than_the_limit_goes_alone():
    """It is sent when nothing else is in the window; the server has the last word on it."""
    limiter = Limiter(LoopClock(), tpm=1_000)
    await send(limiter, 1, 10)

    (sent_at,) = await send(limiter, 1, 5_000)

    assert sent_at == pytest.approx(60.8, abs=0.5)


async def test_models_have_limits_of_their_own():
    """One model's full bucket does not hold up another."""
    limiter = Limiter(LoopClock(), rpm=1)
    limiter.take("a", 0)

    assert limiter.tokens_free("a") is None
    assert limiter.tokens_free("b") is not None


async def test_checks_may_have_a_limit_of_their_own():
    """Checks in a lane of their own take nothing from the model."""
    limiter = Limiter(LoopClock(), rpm=1, checks_lane="(checks)", checks_rpm=600)
    limiter.take(LANE, 0)

    assert limiter.tokens_free("(checks)") is not None
    assert limiter.rpm_of("(checks)") == 600


async def test_a_429_pauses_the_lane_for_as_long_as_it_says():
    """Retry-After is a minimum; other lanes go on."""
    limiter = Limiter(LoopClock(), rpm=6_000)
    limiter.refused(LANE, 7.0)

    assert limiter.seconds_until(LANE, 0) == pytest.approx(7.0)
    assert limiter.tokens_free("other") is not None


async def test_a_429_without_a_time_still_pauses():
    """A server that names no time gets a second of peace."""
    limiter = Limiter(LoopClock())
    limiter.refused(LANE, None)

    assert limiter.tokens_free(LANE) is None
    assert limiter.seconds_until(LANE, 0) == pytest.approx(1.0)


async def test_after_a_pause_the_rate_grows_slowly_back():
    """Half the rate first, then half as much again every five seconds, and all of it in the end."""
    limiter = Limiter(LoopClock(), rpm=6_000)
    times = await send(limiter, calls=10**6, until=60)
    limiter.refused(LANE, 2.0)
    times = await send(limiter, calls=10**6, until=120)

    def rate(start, end):
        return (bisect_left(times, end) - bisect_left(times, start)) / (end - start)

    assert times[0] >= 62
    assert rate(62, 67) == pytest.approx(50, rel=0.1)
    assert rate(67, 72) == pytest.approx(75, rel=0.1)
    assert rate(80, 120) == pytest.approx(99.5, rel=0.02)


async def test_a_volley_of_429_slows_down_once():
    """Thirty calls refused together are one lesson, not thirty."""
    limiter = Limiter(LoopClock(), rpm=6_000)
    await send(limiter, calls=10**6, until=60)
    for _ in range(30):
        limiter.refused(LANE, 1.0)
    await asyncio.sleep(1.0)

    times = await send(limiter, calls=10**6, until=65)

    assert len(times) / 4 == pytest.approx(50, rel=0.1)


async def test_without_a_limit_a_429_slows_down_and_recovers():
    """We know no limit, the server has one: half of what was sent before, growing again."""
    limiter = Limiter(LoopClock())
    for _ in range(600):
        limiter.take(LANE, 0)
        await asyncio.sleep(0.1)
    limiter.refused(LANE, None)
    await asyncio.sleep(1.0)

    slow = await send(limiter, calls=10**5, until=66)
    await send(limiter, calls=20_000, until=100)

    assert len(slow) == pytest.approx(25, abs=3)
    assert limiter.seconds_until(LANE, 0) == 0


async def test_a_429_at_the_very_start_does_not_crawl():
    """Twelve calls went out and one came back with 429: six a second, not one in two seconds."""
    limiter = Limiter(LoopClock())
    await send(limiter, 12)
    limiter.refused(LANE, None)
    await asyncio.sleep(1.0)

    times = await send(limiter, calls=10**5, until=4)

    assert len(times) == pytest.approx(18, abs=3)


async def test_the_servers_limit_is_believed_where_it_is_stricter():
    """A limit in the headers is taken over when ours is higher or unknown, never the other way."""
    limiter = Limiter(LoopClock(), rpm=600)

    limiter.told(LANE, LimitsTold(requests_limit=10_000), 0.0)
    assert limiter.rpm_of(LANE) == 600
    limiter.told(LANE, LimitsTold(requests_limit=60), 0.0)
    assert limiter.rpm_of(LANE) == 60
    limiter.told("other", LimitsTold(requests_limit=10_000), 0.0)
    assert limiter.rpm_of("other") == 600


async def test_a_limit_learned_late_counts_what_was_sent_before():
    """32 calls went out before the first answer told of 60 a minute: no window holds more."""
    limiter = Limiter(LoopClock())
    times = await send(limiter, 32)
    limiter.told(LANE, LimitsTold(requests_limit=60, requests_remaining=28), 0.0)

    times += await send(limiter, calls=200, until=180)

    assert fullest_window(times) <= 60


async def test_a_token_limit_learned_late_counts_what_was_sent_before():
    """900 of 1,000 tokens went out before the first answer told the limit."""
    limiter = Limiter(LoopClock())
    limiter.take(LANE, 900)
    limiter.told(LANE, LimitsTold(tokens_limit=1_000, tokens_remaining=100), 0.0)

    (sent_at,) = await send(limiter, 1, 200)

    assert sent_at > 60


async def test_an_hour_of_work_leaves_nothing_behind():
    """What has left the window is forgotten, also where nobody asks for it."""
    limiter = Limiter(LoopClock())
    for _ in range(3_600):
        limiter.take(LANE, 10)
        await asyncio.sleep(1.0)

    bucket = limiter._bucket(LANE)
    assert len(bucket._calls._slots) <= 130
    assert len(bucket._tokens._slots) <= 130


async def test_somebody_else_on_the_same_quota_is_noticed():
    """The server counted 300 calls that we did not send: so many fewer are ours."""
    limiter = Limiter(LoopClock(), rpm=600)
    await send(limiter, 50)
    now = asyncio.get_running_loop().time()
    limiter.told(LANE, LimitsTold(requests_limit=600, requests_remaining=250), now)

    times = await send(limiter, calls=10**6, until=60)

    assert len(times) + 50 <= 300
    assert len(times) + 50 >= 250


async def test_our_own_calls_are_not_taken_for_a_strangers():
    """Headers that agree with our books change nothing."""
    limiter, loop, sent = Limiter(LoopClock(), rpm=600), asyncio.get_running_loop(), []
    while loop.time() < 180:
        sent += await send(limiter, 1)
        in_window = len(sent) - bisect_left(sent, loop.time() - 60)
        told = LimitsTold(requests_limit=600, requests_remaining=600 - in_window)
        limiter.told(LANE, told, sent[-1])

    assert len(sent) >= 0.99 * 600 * 3


async def test_usage_corrects_the_estimate():
    """What a call did not use can be used by another one; what it used more is missing."""
    limiter = Limiter(LoopClock(), tpm=1_000)
    limiter.take(LANE, 900)
    await asyncio.sleep(56)

    limiter.spent(LANE, reserved=900, used=100, taken_at=0.0)
    assert limiter.tokens_free(LANE) == 900
    limiter.spent(LANE, reserved=100, used=1_000, taken_at=0.0)
    assert limiter.tokens_free(LANE) == 0


async def test_nothing_is_given_back_where_the_server_gives_nothing_back():
    """A server whose headers count the reserved tokens is the truth."""
    limiter = Limiter(LoopClock(), tpm=1_000)
    limiter.take(LANE, 900)
    limiter.told(LANE, LimitsTold(tokens_limit=1_000, tokens_remaining=100), 0.0)
    await asyncio.sleep(56)

    limiter.spent(LANE, reserved=900, used=100, taken_at=0.0)

    assert limiter.tokens_free(LANE) == 100
