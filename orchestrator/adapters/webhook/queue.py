"""Takes webhook events from an SQS queue, where a function that nobody has to serve has put them.

A message is JSON: `{"headers": {...}, "body": "<raw body>"}`, or `body_base64` for the body. The
signature is verified here, on the same raw body, whatever the function has verified.

An event may have waited for hours, and its signature is good for minutes. Its age is judged by the
time at which it came into the queue (`SentTimestamp`). SQS sets that itself and no sender can, so
who has copied an old event and may even send to the queue can't make it young again. What an
operator moves back from a dead-letter queue gets a new time, counts as stale, and is dropped:
checks have long found what it was about.

A message is deleted only after it was judged, so one that was received by a process that died
comes again, and is a repeat if it had been handled. One that isn't a webhook message at all is
left alone: were this the wrong queue, others would lose it. The queue's own redrive policy takes
it away.
"""

import asyncio
import base64
import binascii
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from threading import Thread
from typing import Any, Protocol, TypeVar, cast

import anyio
import msgspec
from structlog.typing import FilteringBoundLogger

from orchestrator.adapters.webhook.receiver import Receiver, Verdict
from orchestrator.errors import ExtraMissing, QueueUnusable

MESSAGES_MAX = 10  # in one answer; the most that SQS gives
WAIT_SECONDS = 20  # of long polling; the most that SQS allows

EMPTY_SECONDS_MIN = 1.0  # between two polls that bring nothing

# After an error of AWS: a second, doubled up to a minute.
PAUSE_SECONDS_MIN = 1.0
PAUSE_SECONDS_MAX = 60.0


T = TypeVar("T")


class Sqs(Protocol):
    """What is used of boto3's client."""

    def receive_message(self, **arguments: Any) -> Mapping[str, Any]: ...

    def delete_message_batch(self, **arguments: Any) -> Mapping[str, Any]: ...


class _Message(msgspec.Struct):
    headers: dict[str, str]
    body: str | None = None
    body_base64: str | None = None


_decoder = msgspec.json.Decoder(_Message)


class WebhookQueue:
    """A queue of webhook events, and the receiver that they go to.

    Args:
        receiver: Judges the events, in the event loop's thread.
        url: The address of the queue.
        client: boto3's, for a region, credentials or an endpoint of your own. Without one it is
            made from the environment when `run` begins.
        polls_at_once: Long polls that wait for messages at the same time, each with a thread and
            at most ten messages.
        log: Where errors of AWS are told: the first in a row, the tenth, the hundredth, ... The
            receiver's unless given.

    `counts` has, besides the receiver's own: `received`, `deleted`, `foreign` (messages that are no
    webhook messages, each time that they come), `errors`.
    """

    def __init__(
        self,
        receiver: Receiver,
        url: str,
        *,
        client: Sqs | None = None,
        polls_at_once: int = 1,
        log: FilteringBoundLogger | None = None,
    ) -> None:
        self._receiver = receiver
        self._url = url
        self._client = client
        self._polls_at_once = polls_at_once
        self._log = log or receiver.log
        self.counts: Counter[str] = Counter()

    async def run(self) -> None:
        """Take events until cancelled. Errors of AWS are waited out.

        Raises:
            ExtraMissing: boto3 is not installed.
            QueueUnusable: The client can't be made, for example for want of a region.
        """
        client = self._client
        if client is None:
            client = await _in_thread(partial(make_sqs_client, self._url))
        async with anyio.create_task_group() as polls:
            for _ in range(self._polls_at_once):
                polls.start_soon(self._poll, client)

    async def _poll(self, client: Sqs) -> None:
        errors = 0
        while True:
            try:
                await self._take_some(client)
            except Exception as error:  # noqa: BLE001 - boto3 raises many kinds; none ends the engine
                errors += 1
                self._tell_of(error, errors)
                pause = PAUSE_SECONDS_MIN * 2.0 ** min(errors - 1, 10)
                await anyio.sleep(min(pause, PAUSE_SECONDS_MAX))
            else:
                errors = 0

    async def _take_some(self, client: Sqs) -> None:
        receive = partial(
            client.receive_message,
            QueueUrl=self._url,
            MaxNumberOfMessages=MESSAGES_MAX,
            WaitTimeSeconds=WAIT_SECONDS,
            MessageSystemAttributeNames=["SentTimestamp"],
        )
        began = asyncio.get_running_loop().time()
        answer = await _in_thread(receive)
        messages = answer.get("Messages") or ()
        if not messages:  # long polls take their time; one that does not must not be a busy loop
            passed = asyncio.get_running_loop().time() - began
            await anyio.sleep(max(0.0, EMPTY_SECONDS_MIN - passed))
        self.counts["received"] += len(messages)
        settled = [message["ReceiptHandle"] for message in messages if self._settles(message)]
        if settled:
            await self._delete(client, settled)

    def _settles(self, message: Mapping[str, Any]) -> bool:
        """Judge a message; whether it needs to come again never."""
        try:
            headers, body = _event_of(message.get("Body", ""))
        except (msgspec.DecodeError, binascii.Error, ValueError, RecursionError):
            self.counts["foreign"] += 1
            if self.counts["foreign"] == 1:
                self._log.warning("webhook_queue.foreign_message", queue=self._url)
            return False
        verdict = self._receiver.take(body, headers, _arrived_at(message))
        return verdict is not Verdict.FAILED

    async def _delete(self, client: Sqs, handles: Sequence[str]) -> None:
        entries = [
            {"Id": str(number), "ReceiptHandle": handle} for number, handle in enumerate(handles)
        ]
        delete = partial(client.delete_message_batch, QueueUrl=self._url, Entries=entries)
        answer = await _in_thread(delete)
        # What could not be deleted comes again, as a repeat.
        self.counts["deleted"] += len(answer.get("Successful") or ())

    def _tell_of(self, error: Exception, in_a_row: int) -> None:
        self.counts["errors"] += 1
        if str(in_a_row).rstrip("0") == "1":
            problem = f"{type(error).__name__}: {error}"
            self._log.warning(
                "webhook_queue.error", queue=self._url, problem=problem, in_a_row=in_a_row
            )


def make_sqs_client(url: str) -> Sqs:
    """boto3's client for SQS, from the environment.

    Raises:
        ExtraMissing: boto3 is not installed.
        QueueUnusable: There is no region, or what is in the environment can't be used.
    """
    try:
        import boto3  # noqa: PLC0415 - an extra: most programs have no queue
        import botocore.config  # noqa: PLC0415 - comes with it
        import botocore.exceptions  # noqa: PLC0415 - comes with it
    except ImportError:
        what = "Taking webhook events from an SQS queue"
        raise ExtraMissing(what=what, package="boto3", extra="sqs") from None
    # Longer than a long poll takes; errors are waited out here, where they are counted.
    config = botocore.config.Config(
        connect_timeout=10, read_timeout=WAIT_SECONDS + 10, retries={"total_max_attempts": 1}
    )
    try:
        return cast("Sqs", boto3.client("sqs", config=config))
    except (botocore.exceptions.BotoCoreError, ValueError) as error:
        raise QueueUnusable(url=url, problem=str(error)) from None


async def _in_thread(call: Callable[[], T]) -> T:
    """Call in a daemon thread: a long poll must hold up neither tools and files nor the exit.

    Cancelled, the thread is left to itself, and what it may receive comes again by itself.
    """
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[T] = loop.create_future()

    def tell(settle: Callable[[], None]) -> None:
        if not answered.done():  # else it was cancelled
            settle()

    def work() -> None:
        try:
            settle = partial(answered.set_result, call())
        except Exception as error:  # noqa: BLE001 - raised again where it is awaited
            settle = partial(answered.set_exception, error)
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(tell, settle)

    Thread(target=work, name="webhook queue", daemon=True).start()
    return await answered


def _event_of(text: str) -> tuple[dict[str, str], bytes]:
    """Headers and raw body of a message; raises ValueError, or msgspec's, when it is none."""
    message = _decoder.decode(text)
    if message.body_base64 is not None:
        return message.headers, base64.b64decode(message.body_base64, validate=True)
    if message.body is None:
        problem = "no body"
        raise ValueError(problem)
    return message.headers, message.body.encode()


def _arrived_at(message: Mapping[str, Any]) -> float | None:
    """When the message came into the queue; None, which means now, where the queue is silent."""
    told = (message.get("Attributes") or {}).get("SentTimestamp", "")
    return int(told) / 1000 if told.isdecimal() and len(told) < 16 else None  # noqa: PLR2004 - ms
