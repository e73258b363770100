"""The tests' own ground: virtual time."""

import asyncio
import time

import pytest
from aiolimiter import AsyncLimiter
from support.virtual_loop import Deadlock, VirtualTimeLoop


async def test_a_day_of_sleep_takes_no_time():
    """Sleeping jumps the clock."""
    loop, real_start = asyncio.get_running_loop(), time.perf_counter()
    start = loop.time()

    await asyncio.sleep(86_400)

    assert loop.time() - start == pytest.approx(86_400, abs=0.01)
    assert time.perf_counter() - real_start < 1


async def test_the_limiter_library_runs_in_virtual_time():
    """300 permits at 60 a minute take 240 virtual seconds: 60 at once, the rest by the drip."""
    loop, limiter = asyncio.get_running_loop(), AsyncLimiter(60, 60)
    start = loop.time()

    for _ in range(300):
        await limiter.acquire()

    assert loop.time() - start == pytest.approx(240, abs=0.1)


def test_a_deadlock_has_a_name():
    """Waiting for something that can't come is an error, not a hang."""
    loop = VirtualTimeLoop()

    with pytest.raises(Deadlock, match="no timer"):
        loop.run_until_complete(loop.create_future())

    loop.close()
