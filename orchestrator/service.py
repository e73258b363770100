"""The class that a program embeds: it wires everything and owns the only task group."""

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import AsyncExitStack, aclosing
from dataclasses import fields
from types import TracebackType
from typing import Any, Self

import anyio
from openai import AsyncOpenAI
from structlog.typing import FilteringBoundLogger

from orchestrator.adapters.log import quiet_log
from orchestrator.adapters.prices import require_price
from orchestrator.adapters.request_file import RequestDefaults, request_from
from orchestrator.adapters.tools import Tool, Toolbox
from orchestrator.apis.client import make_client
from orchestrator.apis.transport import CallRecord
from orchestrator.core.events import WebhookArrived
from orchestrator.core.model import Outcome, Request, Result
from orchestrator.core.rules import Rules
from orchestrator.core.settings import Settings
from orchestrator.driver import Driver
from orchestrator.errors import (
    DriverBroken,
    ExecutionStopped,
    OrchestratorClosed,
    OrchestratorError,
    cure_for,
)
from orchestrator.feed import Desk, Feed, Waiter
from orchestrator.figures import Figures
from orchestrator.wiring import Keeping, wire, wire_webhooks

# After the block is left, remote runs that are to be cancelled get this long.
CANCEL_SECONDS_MAX = 40.0

Given = Mapping[str, Any] | Request


class Orchestrator(Figures):
    """Runs OpenAI-style requests, any number at a time, from one event loop.

    Use it as an asynchronous context manager, and keep one for a process rather than one for each
    request: the limits are shared by everything that one orchestrator runs.

    Args:
        client: The official client, configured as you like (Azure, another base url, a custom http
            client). Without one, it is made from OPENAI_API_KEY, OPENAI_BASE_URL and OPENAI_ORG_ID
            when the block is entered. Its retries are not used.
        tools: Functions that answer the model's tool calls: asynchronous ones run beside the loop,
            others in threads. Name, description and parameters come from name, docstring and
            signature. They are offered to every request that names no tools itself. They may run
            requests on this orchestrator themselves; those have places of their own, as many again
            as `max_in_flight` and `tools_at_once`.
        rpm: Requests per minute of each model. None: what the server's headers say.
        tpm: Tokens per minute of each model. None: what the server's headers say.
        checks_rpm: Status checks per minute, when they have a limit of their own.
        check_price_seconds: The seconds of delay that one check is worth: higher for fewer checks.
        connections: Calls that may be out at the same time; each is one task and one connection.
        max_in_flight: Requests that may be in flight at the same time; 1,000 unless given, and
            250,000 by batch.
        tools_at_once: Tool handlers that may be at work at the same time.
        tool_timeout_seconds: For one call of a tool; the model is told when it is over.
        turns_max: Times that one request may ask for tools before it counts as failed.
        attempts_max: Failures of one call in a row, and runs of one request, before it counts as
            failed. Being turned away by a rate limit is not a failure.
        deadline_seconds: From the first call for a request to its end, retries and tools included;
            then its run is cancelled on the server and its outcome is `timed_out`. An hour unless
            given; for what goes by batch 72 hours, from the first batch.
        run_deadline_seconds: For one run or turn, from its call to its end, tools not counted; then
            it is cancelled, and the request gets another while its deadline and attempts allow.
        execution_deadline_seconds: From entering the block; then everything is cancelled.
        max_cost_usd: Nothing is created that might cost more than this in all.
        max_tokens: Likewise, in tokens of all models together.
        same_failures_max: Requests in a row refused for one reason before all stops; 0: go on.
        lost_creates: "retry" sends again what may be paid and got no answer, "give-up" does not.
        via: "batch" sends what the Batch API takes there: at half the price, within a day. All
            else goes as usual.
        enqueued_tokens: Prompt tokens that all batches of a model may hold at a time. None: what
            the server says when it refuses one.
        batch_lines: Requests in one batch, at most.
        direct_below: When fewer requests than this are left for a batch, each is sent by itself.
        delete_files: Whether the uploaded file of a batch that is over is removed.
        cancel_on_exit: Whether runs still at work when the block is left are cancelled on the
            server. Otherwise they go on there, and cost what they cost.
        url: For requests that name none.
        model: For requests that name none.
        body: Fields for the bodies of requests that lack them.
        seed: For the jitter, to repeat an execution exactly.
        log: A structlog logger; the default writes warnings only.
        on_call: Called after every HTTP call; what it raises is logged and costs nothing.
        webhook_secrets: Of the endpoint whose webhooks come to `webhook_app`; several while they
            are changed. Runs are then looked at when an event says so, and otherwise far apart, as
            long as events arrive.
        webhook_gap_seconds: Between two checks of such a run, for events that are lost.
        keeping: How what is done outlives the process; unless given, nothing does. The first
            `run_many` yields the results of what earlier processes left in flight, too.

    Raises:
        SettingUnusable: A number is out of range.
        ToolUnusable: A function can't be a tool.
        WebhookSecretUnusable: A secret can't be one.
    """

    def __init__(
        self,
        client: AsyncOpenAI | None = None,
        *,
        tools: Iterable[Callable[..., Any] | Tool] = (),
        rpm: float | None = None,
        tpm: float | None = None,
        checks_rpm: float | None = None,
        check_price_seconds: float = Rules.check_price_seconds,
        connections: int = Settings.connections,
        max_in_flight: int | None = None,
        tools_at_once: int = Settings.tools_at_once,
        tool_timeout_seconds: float = Settings.tool_timeout_seconds,
        turns_max: int = Rules.turns_max,
        attempts_max: int = Rules.attempts_max,
        deadline_seconds: float | None = None,
        run_deadline_seconds: float | None = None,
        execution_deadline_seconds: float | None = None,
        max_cost_usd: float | None = None,
        max_tokens: int | None = None,
        same_failures_max: int = Settings.same_failures_max,
        lost_creates: str = Settings.lost_creates,
        via: str | None = None,
        enqueued_tokens: int | None = None,
        batch_lines: int = Settings.batch_lines,
        direct_below: int = Settings.direct_below,
        delete_files: bool = False,
        cancel_on_exit: bool = False,
        url: str | None = None,
        model: str | None = None,
        body: Mapping[str, Any] | None = None,
        seed: int | None = None,
        log: FilteringBoundLogger | None = None,
        on_call: Callable[[CallRecord], None] | None = None,
        webhook_secrets: Sequence[str] = (),
        webhook_gap_seconds: float = Settings.webhook_gap_seconds,
        keeping: Keeping | None = None,
    ) -> None:
        given = locals()  # each setting is an argument of the same name
        self.settings = Settings(**{field.name: given[field.name] for field in fields(Settings)})
        self._given_client = client
        self._tools = Toolbox(tools, tool_timeout_seconds=tool_timeout_seconds)
        self._defaults = RequestDefaults(
            url=url, model=model, body=body or {}, via_batch=self.settings.via_batch
        )
        self._log = log or quiet_log()
        self._on_call = on_call
        self._keeping = keeping or Keeping()
        self._past = self._keeping.past
        self._stack: AsyncExitStack | None = None
        if webhook_secrets:
            self._receiver = wire_webhooks(
                webhook_secrets, self._webhook_arrived, self._keeping, self._log
            )

    async def __aenter__(self) -> Self:
        """Make the client and start the engine.

        Raises:
            KeyMissing: No client was given and OPENAI_API_KEY is missing or blank.
        """
        if self._stack is not None:
            raise OrchestratorClosed
        self._desk = Desk(self.settings.places)
        self._broken: BaseException | None = None
        self._stopped_by_us = False
        async with AsyncExitStack() as stack:
            client = self._given_client
            if client is None:
                client = make_client()
                stack.push_async_callback(_close, client)
            self._driver = self._wire(client)
            # Whatever cancels the block must not cancel the engine with it: there may be runs to be
            # cancelled on the server first. `__aexit__` ends it.
            self._engine = anyio.CancelScope(shield=True)
            self._tasks = await stack.enter_async_context(anyio.create_task_group())
            self._tasks.start_soon(self._drive, self._driver)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End every task; remote runs are cancelled first when `cancel_on_exit` is set."""
        stack, self._stack = self._stack, None
        if stack is None or self._driver is None:
            return
        try:
            with anyio.CancelScope(shield=True), anyio.move_on_after(CANCEL_SECONDS_MAX):
                self.stop("the orchestrator was closed", cancel_remote=self.settings.cancel_on_exit)
                await self._driver.wait_until_empty()
        finally:
            self._engine.cancel()
            self._tasks.cancel_scope.cancel()
            try:
                await stack.aclose()
            finally:
                # Whoever still waits, in a task that outlives the block, waits for nothing.
                self._driver.close()
                self._desk.fail_all(OrchestratorClosed())

    def _wire(self, client: AsyncOpenAI) -> Driver:
        wired = wire(
            client,
            self.settings,
            tools=self._tools,
            results=self._desk,
            keeping=self._keeping,
            log=self._log,
            on_call=self._tell_of_call,
            on_stopped=self._desk.stop_reading,
            hears=self._receiver is not None,
        )
        self._limiter, self._transport = wired.limiter, wired.transport
        return wired.driver

    async def _drive(self, driver: Driver) -> None:
        """Keep the engine going; when it breaks, everybody who waits is told why."""
        try:
            with self._engine:
                await driver.run()
        except* OrchestratorError as group:
            self._break(driver, _first(group))
        except* Exception as group:  # noqa: BLE001 - told to everybody who waits
            error = _first(group)
            self._log.error("driver.broken", exc_info=error)
            problem = f"{type(error).__name__}: {error}"
            self._break(driver, DriverBroken(problem=problem, story="driver.broken in the log"))

    def _break(self, driver: Driver, error: BaseException) -> None:
        self._broken = self._broken or error
        driver.close()
        self._desk.fail_all(self._broken)

    def _tell_of_call(self, record: CallRecord) -> None:
        """Tell the user's callback; its mistake must not cost the answer of a paid call."""
        if self._on_call is None:
            return
        try:
            self._on_call(record)
        except Exception:  # noqa: BLE001 - it may raise anything
            self._log.exception("on_call.failed")

    def _webhook_arrived(self, event: WebhookArrived) -> None:
        """Outside of the block there is no run that could be looked at."""
        if self._stack is not None and self._driver is not None:
            self._driver.tell(event)

    # What a program asks.

    async def run(self, request: Given) -> Result:
        """Run one request and return its result, whatever the outcome.

        Args:
            request: A mapping in one of the forms of a request file: `custom_id`, `url` and `body`;
                a bare body; or `{"prompt": ...}`. It needs no `custom_id` here.

        Raises:
            RequestUnusable: It can't be sent as it is; nothing was sent.
            OrchestratorClosed: Called outside the block.
            DriverBroken: The engine stopped because of an error of its own.

        When the caller is cancelled, the run is cancelled on the server too.
        """
        driver = self._open_driver()
        number = driver.next_number()
        ready = self._as_request(request, number)
        await self._desk.room.wait()
        waiter = Waiter()
        self._desk.expect(number, waiter)
        driver.admit(number, ready)
        try:
            return await waiter.result()
        except anyio.get_cancelled_exc_class():
            reason = "the caller was cancelled"
            driver.stop(number, reason, outcome=Outcome.CANCELLED, cancel_remote=True)
            raise

    async def run_many(
        self, requests: Iterable[Given] | AsyncIterable[Given]
    ) -> AsyncGenerator[Result, None]:
        """Run requests and yield their results as they end, in that order.

        Requests are read only when there is room in flight, so the source may be endless and
        larger than memory; when the results are not fetched, nothing more is read.

        Args:
            requests: Mappings as for `run`, from any iterable, asynchronous or not.

        Raises:
            RequestUnusable: A request can't be sent as it is; raised after the results of those
                before it.
            ExecutionStopped: No request will work (a refused key, an empty account); raised after
                the results of those that were read, what was not read was not sent.
            OrchestratorClosed: Called outside the block, or the block was left before all was read.
            DriverBroken: The engine stopped because of an error of its own.

        To stop early, `break` is enough; what was sent ends as `cancel_on_exit` says. A loop that
        goes on after it does better to wrap the call in `contextlib.aclosing`, which does not wait
        for the garbage collector.
        """
        driver = self._open_driver()
        feed = Feed(driver, self._desk, self.settings.places)
        if (past := self._past) is not None:
            self._past = None
            feed.adopt(number for number, _ in past.in_flight)
            driver.resume(past)
        self._tasks.start_soon(feed.read, requests, self._as_request)
        try:
            async with aclosing(feed.results()) as results:
                async for result in results:
                    yield result
        finally:
            feed.abandon(cancel_remote=self.settings.cancel_on_exit)
        self._raise_if_stopped()
        if self._stack is None and not feed.source_ended:
            raise OrchestratorClosed

    def stop(
        self, reason: str, *, cancel_remote: bool = False, patience_seconds: float = 0.0
    ) -> None:
        """End everything in flight with the outcome `stopped`, and create nothing more.

        Args:
            reason: For the results' error message.
            cancel_remote: Whether the runs are cancelled on the server; their results come when
                that is done, or half a minute later.
            patience_seconds: How long calls that are out, and are the whole of a request, may take
                to be answered.

        Raises:
            OrchestratorClosed: The block was not entered yet; after it there is nothing to stop.
        """
        driver = self._wired()
        self._stopped_by_us = True
        driver.stop_all(reason, cancel_remote=cancel_remote, patience_seconds=patience_seconds)

    def _open_driver(self) -> Driver:
        driver = self._wired()
        if self._broken is not None:
            raise self._broken
        if self._stack is None:
            raise OrchestratorClosed
        return driver

    def _as_request(self, given: Given, number: int) -> Request:
        request = request_from(given, self._defaults, number)
        if self.settings.max_cost_usd is not None:
            require_price(request)
        return request

    def _raise_if_stopped(self) -> None:
        error = self.stopped
        if error is not None and not self._stopped_by_us:
            raise ExecutionStopped(reason=error.message, cure=cure_for(error.code))


async def _close(client: AsyncOpenAI) -> None:
    # Also when the block is left because its task was cancelled.
    with anyio.CancelScope(shield=True):
        await client.close()


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
