"""The one way out to the network: every call holds a permit when it comes here, and is counted.

The official client is the source of truth for base url, authentication, headers and options; any
subclass or configuration of it is used as given, but for retries, which are off: a retry is the
core's affair and takes a permit like everything else. Foreign errors are translated here and
nowhere else.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC
from email.utils import parsedate_to_datetime
from itertools import count
from typing import Any, BinaryIO

import anyio
import httpx2
import msgspec
import openai
from openai import AsyncOpenAI

from orchestrator.apis.event_stream import response_in
from orchestrator.apis.refusals import MESSAGE_CHARACTERS_MAX, refusal
from orchestrator.core.failures import Cause, Failure
from orchestrator.ports import CallFailed, CallKind, Clock, LimitsTold

# Raised while the request was on its way out: the server has nothing, or half a body, and has not
# acted upon it. By name: who uses another HTTP library (httpx, aiohttp) gets other classes.
NOT_SENT = frozenset(
    {"ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "WriteError", "WriteTimeout"}
)

# A server that says "come back tomorrow" is asked again after an hour; a mistake in its clock must
# not cost the night.
RETRY_AFTER_SECONDS_MAX = 3_600.0

CALL_ID_HEADER = "X-Client-Request-Id"

# How the SDK is told not to read an answer by itself.
STREAM_HEADER = {"X-Stainless-Raw-Response": "stream"}

# Calls that only look or start something are answered within seconds; a minute is a dead server.
CALL_TIMEOUT_SECONDS = 60.0

# A file has up to 200 MB, which takes half an hour at 1 Mbit/s.
FILE_TIMEOUT_SECONDS = 1_800.0


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer with status 2xx."""

    status_code: int
    request_id: str
    body: bytes
    look_again_seconds: float | None


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One call as it went, for the log and for comparing books with the server."""

    call_id: str  # sent as X-Client-Request-Id
    kind: CallKind
    status: str  # "200", "429", ... or the cause when there was no answer
    seconds: float


class Transport:
    """Sends calls through the official client.

    Args:
        client: As the user configured it.
        clock: For time limits and durations.
        name: Begins the id of every call; unique for an execution.
        on_limits: Told of `x-ratelimit-*` headers: lane, what they say, when the call was sent.
        on_call: Told of every call that ended, also of those without an answer.
    """

    def __init__(
        self,
        client: AsyncOpenAI,
        clock: Clock,
        *,
        name: str,
        on_limits: Callable[[str, LimitsTold, float], None],
        on_call: Callable[[CallRecord], None] | None = None,
    ) -> None:
        self._client = client
        self._clock = clock
        self._name = name
        self._on_limits = on_limits
        self._on_call = on_call
        self._sequence = count(1)
        # A subclass may look into the body (Azure takes the deployment from its model); one that
        # builds requests as the plain client does is given bytes.
        kind = type(client)
        self._takes_bytes = all(
            getattr(kind, name) is getattr(AsyncOpenAI, name)
            for name in ("request", "_build_request", "_prepare_options")
        )
        # The client's own default would cut a long answer after ten minutes of silence, and the
        # next try would pay for it again. A timeout that the user has set is respected.
        self._has_own_timeout = client.timeout != openai.DEFAULT_TIMEOUT
        self.counts: Counter[tuple[CallKind, str]] = Counter()

    @property
    def clock(self) -> Clock:
        return self._clock

    async def send(
        self,
        kind: CallKind,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        lane: str,
        timeout_seconds: float,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send one call and bring back its answer.

        Args:
            kind: What it is counted as.
            method: GET, POST or DELETE.
            path: Below the client's base url, for example /responses.
            body: JSON text; goes out as it is.
            lane: Whose limits the answer's headers tell.
            timeout_seconds: From the first byte out to the last byte in.
            headers: Beside those of the client.

        Raises:
            CallFailed: Anything else than an answer with status 2xx.
        """

        async def exchange(ours: Mapping[str, str]) -> httpx2.Response:
            return await self._exchange(method, path, body, {**ours, **(headers or {})})

        return await self._perform(kind, exchange, lane, timeout_seconds)

    async def upload(
        self,
        kind: CallKind,
        path: str,
        fields: Mapping[str, str],
        name: str,
        file: BinaryIO,
        *,
        lane: str,
    ) -> Reply:
        """Send a form with a file in it, which is read as it goes out. Raises CallFailed."""

        async def exchange(ours: Mapping[str, str]) -> httpx2.Response:
            file.seek(0)
            options = self._options({**ours, "Content-Type": "multipart/form-data"})
            return await self._client.post(
                path,
                cast_to=httpx2.Response,
                body=fields,
                files={"file": (name, file, "application/jsonl")},
                options=options,
            )

        return await self._perform(kind, exchange, lane, FILE_TIMEOUT_SECONDS)

    async def download(self, kind: CallKind, path: str, into: BinaryIO, *, lane: str) -> None:
        """Fetch what may be too large for memory. Raises CallFailed."""

        async def exchange(ours: Mapping[str, str]) -> httpx2.Response:
            options = self._options({**ours, **STREAM_HEADER})
            response = await self._client.get(path, cast_to=httpx2.Response, options=options)
            try:
                async for part in response.aiter_bytes():
                    into.write(part)
            finally:
                await response.aclose()
            return httpx2.Response(response.status_code, headers=_about(response))

        await self._perform(kind, exchange, lane, FILE_TIMEOUT_SECONDS)

    async def _perform(
        self,
        kind: CallKind,
        exchange: Callable[[Mapping[str, str]], Awaitable[httpx2.Response]],
        lane: str,
        timeout_seconds: float,
    ) -> Reply:
        """Count a call, bound its time, and sort out what goes wrong with it."""
        call_id = f"{self._name}-{next(self._sequence)}"
        sent_at = self._clock.now()
        status = "cancelled"
        try:
            with anyio.fail_after(timeout_seconds):
                response = await exchange({CALL_ID_HEADER: call_id})
            status = str(response.status_code)
            self._tell_limits(lane, response, sent_at)
            return _reply(response)
        except openai.APIStatusError as error:
            status = str(error.status_code)
            self._tell_limits(lane, error.response, sent_at)
            raise CallFailed(self._masked(_refusal(error, self._clock))) from error
        except (openai.OpenAIError, httpx2.HTTPError, TimeoutError, OSError) as error:
            failure = _no_answer(error, timeout_seconds)
            status = failure.cause.value
            raise CallFailed(failure) from error
        except CallFailed:
            raise  # an answer with a status, and yet of no use
        except Exception:
            status = Cause.INTERNAL.value
            raise
        finally:
            self.counts[kind, status] += 1
            if self._on_call is not None:
                seconds = self._clock.now() - sent_at
                self._on_call(CallRecord(call_id, kind, status, seconds))

    def _masked(self, failure: Failure) -> Failure:
        """Some servers quote the key that they refuse; it must not get into results and logs."""
        return replace(failure, message=self.masked(failure.message))

    def masked(self, text: str) -> str:
        """What a server says, without our key."""
        key = self._client.api_key
        return text.replace(key, "***") if key else text

    async def _exchange(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> httpx2.Response:
        options = self._options(headers)
        if method == "GET":
            return await self._client.get(path, cast_to=httpx2.Response, options=options)
        if method == "DELETE":
            return await self._client.delete(path, cast_to=httpx2.Response, options=options)
        if body is None or self._takes_bytes:
            return await self._client.post(
                path, cast_to=httpx2.Response, content=body, options=options
            )
        decoded = msgspec.json.decode(body)
        return await self._client.post(path, cast_to=httpx2.Response, body=decoded, options=options)

    def _options(self, headers: Mapping[str, str]) -> Any:
        options: dict[str, Any] = {"max_retries": 0, "headers": headers}
        if not self._has_own_timeout:
            options["timeout"] = httpx2.Timeout(None, connect=openai.DEFAULT_TIMEOUT.connect)
        return options

    def _tell_limits(self, lane: str, response: httpx2.Response, sent_at: float) -> None:
        headers = response.headers
        told = LimitsTold(
            _whole(headers.get("x-ratelimit-limit-requests")),
            _whole(headers.get("x-ratelimit-remaining-requests")),
            _whole(headers.get("x-ratelimit-limit-tokens")),
            _whole(headers.get("x-ratelimit-remaining-tokens")),
        )
        if told != _NOTHING_TOLD:
            self._on_limits(lane, told, sent_at)


_NOTHING_TOLD = LimitsTold()


def _about(response: httpx2.Response) -> dict[str, str]:
    """What the headers say beside the size and the form of what was read already."""
    said = ("x-request-id", "openai-poll-after-ms")
    return {
        name: value
        for name, value in response.headers.items()
        if name in said or name.startswith("x-ratelimit-")
    }


def _reply(response: httpx2.Response) -> Reply:
    body: bytes | None = response.content
    if response.headers.get("content-type", "").startswith("text/event-stream"):
        body = response_in(response.content)
    if body is None:
        # The next answer would be of the same kind, and each is paid.
        message = 'the server streams its answer; add "stream": false to the body'
        failure = Failure(Cause.BAD_REQUEST, message, status_code=response.status_code)
        raise CallFailed(failure)
    hint = _number(response.headers.get("openai-poll-after-ms"))
    return Reply(
        status_code=response.status_code,
        request_id=response.headers.get("x-request-id", ""),
        body=body,
        look_again_seconds=None if hint is None else hint / 1000,
    )


def _refusal(error: openai.APIStatusError, clock: Clock) -> Failure:
    response = error.response
    failure = refusal(error.status_code, error.body or response.reason_phrase)
    return replace(
        failure,
        retry_after_seconds=_retry_after(response, clock),
        request_id=response.headers.get("x-request-id", ""),
    )


def _no_answer(error: BaseException, timeout_seconds: float) -> Failure:
    """Sort out what happened when no answer came, by the innermost reason."""
    reason = error.__cause__ or error
    what = f"{type(reason).__name__}: {reason}".rstrip(": ")[:MESSAGE_CHARACTERS_MAX]
    if any(kind.__name__ in NOT_SENT for kind in type(reason).__mro__):
        return Failure(Cause.NOT_SENT, f"no connection ({what})")
    if isinstance(error, TimeoutError):
        return Failure(Cause.TIMED_OUT, f"no answer within {timeout_seconds:g} s")
    if isinstance(error, openai.APITimeoutError):
        return Failure(Cause.TIMED_OUT, f"no answer within the client's own time limit ({what})")
    if isinstance(error, openai.OpenAIError) and not isinstance(error, openai.APIError):
        # The client itself refused, for example because it got no key from its provider of keys.
        return Failure(Cause.NOT_SENT, f"the client did not send it ({what})")
    return Failure(Cause.CONNECTION_LOST, f"the connection broke before the answer came ({what})")


def _retry_after(response: httpx2.Response, clock: Clock) -> float | None:
    """Seconds from `retry-after-ms` or `Retry-After`, which may be a date."""
    milliseconds = _number(response.headers.get("retry-after-ms"))
    text = response.headers.get("retry-after")
    seconds = _number(text) if milliseconds is None else milliseconds / 1000
    if seconds is None and text is not None:
        try:
            at = parsedate_to_datetime(text)
        except (ValueError, OverflowError):
            return None
        # HTTP's dates are in UTC; one that does not say so is no local time.
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        seconds = max(at.timestamp() - clock.unix(), 0.0)
    return None if seconds is None else min(seconds, RETRY_AFTER_SECONDS_MAX)


def _number(text: str | None) -> float | None:
    try:
        number = float(text) if text else None
    except ValueError:
        return None
    # NaN, infinity and negative numbers are no times.
    return number if number is not None and 0 <= number < 1e12 else None  # noqa: PLR2004 - as said


def _whole(text: str | None) -> int | None:
    number = _number(text)
    return None if number is None else int(number)
