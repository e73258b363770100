"""Between whoever has requests and the driver: reads while there is room, hands results back."""

from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from typing import Protocol, TypeVar

import anyio
import anyio.lowlevel

from orchestrator.core.model import Outcome, Request, Result
from orchestrator.driver import Driver

Given = TypeVar("Given")


class Recipient(Protocol):
    """Whoever waits for the result of a request."""

    def take(self, number: int, result: Result) -> None:
        """The request has ended."""
        ...

    def fail(self, error: BaseException) -> None:
        """No result will come any more."""
        ...


class Desk:
    """Knows who waits for which result."""

    def __init__(self) -> None:
        self._recipients: dict[int, Recipient] = {}

    def expect(self, number: int, recipient: Recipient) -> None:
        self._recipients[number] = recipient

    def record(self, number: int, result: Result) -> None:
        """The driver's way to hand over a result."""
        recipient = self._recipients.pop(number, None)
        if recipient is not None:
            recipient.take(number, result)

    def fail_all(self, error: BaseException) -> None:
        """The driver is broken: everybody who waits must know."""
        waiting, self._recipients = set(self._recipients.values()), {}
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
        self.admitted = 0

    async def read(
        self,
        source: Iterable[Given] | AsyncIterable[Given],
        as_request: Callable[[Given, int], Request],
    ) -> None:
        """Read the source to its end, or until nothing new may be created. Raises nothing."""
        with self._reading:
            try:
                async for given in _each(source):
                    await self._wait_for_room()
                    if self._driver.scheduler.creates_stopped is not None:
                        break
                    number = self._driver.next_number()
                    request = as_request(given, number)
                    self._outstanding.add(number)
                    self._desk.expect(number, self)
                    self.admitted += 1
                    self._driver.admit(number, request)
            except Exception as error:  # noqa: BLE001 - raised again where the results are fetched
                self._error = self._error or error
        self._all_read = True
        self._tell()

    async def _wait_for_room(self) -> None:
        while not self._driver.has_room or len(self._results) >= self._results_max:
            if len(self._results) >= self._results_max:
                await self._changed.wait()
            else:
                await self._driver.wait_for_room()

    def take(self, number: int, result: Result) -> None:
        """A request has ended."""
        self._outstanding.discard(number)
        self._results.append(result)
        self._tell()

    def fail(self, error: BaseException) -> None:
        """No result will come any more."""
        self._outstanding.clear()
        self._error = error
        self._reading.cancel()
        self._all_read = True
        self._tell()

    async def results(self) -> AsyncIterator[Result]:
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


async def _each(source: Iterable[Given] | AsyncIterable[Given]) -> AsyncIterator[Given]:
    if isinstance(source, AsyncIterable):
        async for given in source:
            yield given
        return
    for given in source:
        yield given
        # A long list with room for all of it must not hold up the loop.
        await anyio.lowlevel.checkpoint()
