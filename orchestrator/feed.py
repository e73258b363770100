"""Between whoever has requests and the driver: reads while there is room, hands results back."""

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from contextlib import aclosing
from typing import Protocol, TypeVar

import anyio
import anyio.lowlevel

from orchestrator.core.model import Outcome, Request, Result
from orchestrator.driver import Driver, level

Given = TypeVar("Given")


class Recipient(Protocol):
    """Whoever waits for the result of a request."""

    def take(self, number: int, result: Result) -> None:
        """The request has ended."""
        ...

    def fail(self, error: BaseException) -> None:
        """No result will come any more."""
        ...


class Room:
    """Places in flight, so many at each level; who has waited longest gets the next one."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._taken: Counter[int] = Counter()  # by level
        self._queues: defaultdict[int, deque[anyio.Event]] = defaultdict(deque)  # by level
        self._closed: BaseException | None = None

    async def wait(self) -> None:
        """Wait until the caller may take a place, which has to be done at once.

        Raises whatever the room was closed with.
        """
        here = level.get()
        queue = self._queues[here]
        waited = False
        while self._closed is None and self._taken[here] >= self._places:
            called = anyio.Event()
            (queue.appendleft if waited else queue.append)(called)
            waited = True
            try:
                await called.wait()
            finally:
                if called.is_set():
                    # The caller may have been cancelled, or may not want the place any more.
                    asyncio.get_running_loop().call_soon(self._call, here)
                else:
                    queue.remove(called)
        if self._closed is not None:
            raise self._closed

    def take(self, at: int) -> None:
        self._taken[at] += 1

    def give_back(self, at: int) -> None:
        self._taken[at] -= 1
        self._call(at)

    def close(self, error: BaseException) -> None:
        """There will be no place any more."""
        self._closed = self._closed or error
        for queue in self._queues.values():
            while queue:
                queue.popleft().set()

    def _call(self, at: int) -> None:
        queue = self._queues[at]
        for _ in range(min(self._places - self._taken[at], len(queue))):
            queue.popleft().set()


class Desk:
    """Knows who waits for which result, who reads, and whether there is room for more.

    Args:
        max_in_flight: Runs that may be in flight at the same time.
    """

    def __init__(self, max_in_flight: int) -> None:
        self.room = Room(max_in_flight)
        self._recipients: dict[int, tuple[Recipient, int]] = {}  # with its level
        self._readers: set[Feed] = set()

    def expect(self, number: int, recipient: Recipient) -> None:
        """This one waits for this result, and its run takes a place."""
        self._recipients[number] = recipient, level.get()
        self.room.take(level.get())

    def join(self, reader: "Feed") -> None:
        """This feed reads, whether or not it waits for a result just now."""
        self._readers.add(reader)

    def leave(self, reader: "Feed") -> None:
        """This feed has read its source."""
        self._readers.discard(reader)

    def record(self, number: int, result: Result) -> None:
        """The driver's way to hand over a result."""
        recipient, at = self._recipients.pop(number)
        recipient.take(number, result)
        self.room.give_back(at)

    def stop_reading(self) -> None:
        """Nothing new will be created: a source that has nothing just now is not waited for."""
        for reader in list(self._readers):
            reader.stop_reading()

    def fail_all(self, error: BaseException) -> None:
        """The driver is broken or closed: everybody who waits must know."""
        waiting: set[Recipient] = {recipient for recipient, _ in self._recipients.values()}
        waiting |= self._readers
        self._recipients.clear()
        self._readers.clear()
        self.room.close(error)
        for recipient in waiting:
            recipient.fail(error)


class Waiter:
    """Waits for one result."""

    def __init__(self) -> None:
        self._done = anyio.Event()
        self._result: Result | None = None
        self._error: BaseException | None = None

    def take(self, number: int, result: Result) -> None:  # noqa: ARG002 - it waits for only one
        self._result = result
        self._done.set()

    def fail(self, error: BaseException) -> None:
        self._error = error
        self._done.set()

    async def result(self) -> Result:
        await self._done.wait()
        if self._result is None:
            raise self._error or AssertionError
        return self._result


class Feed:
    """Many requests in, their results out, in the order in which they end.

    At most `max_in_flight` results wait to be fetched; when nobody fetches them, nothing more is
    read. An error of the source is raised after the results of what was read before it.

    Args:
        driver: Takes the requests.
        desk: Told to hand the results to this feed.
        results_max: Results that may wait to be fetched.
    """

    def __init__(self, driver: Driver, desk: Desk, results_max: int) -> None:
        self._driver = driver
        self._desk = desk
        self._results_max = results_max
        self._results: deque[Result] = deque()
        self._outstanding: set[int] = set()
        self._changed = anyio.Event()
        self._reading = anyio.CancelScope()
        self._all_read = False
        self._error: BaseException | None = None
        self.source_ended = False

    def adopt(self, numbers: Iterable[int]) -> None:
        """Wait for the results of these too, which were in flight before."""
        for number in numbers:
            self._outstanding.add(number)
            self._desk.expect(number, self)

    async def read(
        self,
        source: Iterable[Given] | AsyncIterable[Given],
        as_request: Callable[[Given, int], Request],
    ) -> None:
        """Read the source to its end, or until nothing new may be created. Raises nothing."""
        self._desk.join(self)
        try:
            with self._reading:
                async with aclosing(_each(source)) as givens:
                    await self._admit_all(givens, as_request)
        except Exception as error:  # noqa: BLE001 - raised again where the results are fetched
            self._error = self._error or error
        except asyncio.CancelledError as error:
            # Awaiting something that was cancelled, a source may raise this by itself. From here
            # it would end the whole engine.
            if _is_being_cancelled():
                raise
            self._error = self._error or error
        finally:
            self._all_read = True
            self._desk.leave(self)
            self._tell()

    async def _admit_all(
        self, givens: AsyncIterable[Given], as_request: Callable[[Given, int], Request]
    ) -> None:
        if self._nothing_new():
            return
        await self._wait_for_room()
        async for given in givens:
            await self._wait_for_room()
            if self._nothing_new():
                return
            number = self._driver.next_number()
            request = as_request(given, number)
            self._outstanding.add(number)
            self._desk.expect(number, self)
            self._driver.admit(number, request)
            # Before the next one is read, not only before it is sent.
            await self._wait_for_room()
        self.source_ended = True

    def _nothing_new(self) -> bool:
        return self._driver.scheduler.creates_stopped is not None

    async def _wait_for_room(self) -> None:
        await self._desk.room.wait()
        while len(self._results) >= self._results_max:
            await self._changed.wait()
            await self._desk.room.wait()

    def stop_reading(self) -> None:
        """Read nothing more; what was read goes on."""
        self._reading.cancel()

    def take(self, number: int, result: Result) -> None:
        """A request has ended."""
        self._outstanding.discard(number)
        self._results.append(result)
        self._tell()

    def fail(self, error: BaseException) -> None:
        """No result will come any more."""
        self._outstanding.clear()
        self._error = self._error or error
        self._reading.cancel()
        self._all_read = True
        self._tell()

    async def results(self) -> AsyncGenerator[Result, None]:
        """The results as they come; then the error of the source, if it had one."""
        while True:
            while self._results:
                result = self._results.popleft()
                self._tell()
                yield result
            if self._all_read and not self._outstanding and not self._results:
                break
            await self._changed.wait()
        if self._error is not None:
            raise self._error

    def abandon(self, *, cancel_remote: bool) -> None:
        """Nobody fetches the results any more."""
        self._reading.cancel()
        for number in list(self._outstanding):
            self._driver.stop(
                number,
                "its results are not wanted any more",
                outcome=Outcome.STOPPED,
                cancel_remote=cancel_remote,
            )

    def _tell(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


async def _each(source: Iterable[Given] | AsyncIterable[Given]) -> AsyncGenerator[Given, None]:
    if isinstance(source, AsyncIterable):
        async for given in source:
            yield given
        return
    for given in source:
        yield given
        # A long list with room for all of it must not hold up the loop.
        await anyio.lowlevel.checkpoint()


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
