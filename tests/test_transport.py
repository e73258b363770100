"""The way out: how failures are sorted, what is counted, and what exactly goes over the wire."""

import asyncio
import itertools
import json
import time

import anyio
import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.emulator_client import EmulatorTransport, ThreadlessOpenAI
from support.fake_server import FakeServer, answer_of, client_of

from orchestrator.adapters.clock import LoopClock
from orchestrator.adapters.request_file.given import BodyInMemory
from orchestrator.apis.transport import RETRY_AFTER_SECONDS_MAX, Transport
from orchestrator.core.failures import Cause
from orchestrator.core.model import Family, Outcome, Request
from orchestrator.emulator.emulator import Emulator
from orchestrator.emulator.settings import Settings
from orchestrator.ports import CallFailed, CallKind, LimitsTold
from orchestrator.service import Orchestrator


class Line:
    """A transport on a fake server, with what it was told and what it counted."""

    def __init__(self, answer, **options):
        self.server = answer if isinstance(answer, FakeServer) else FakeServer(answer)
        self.limits = []
        self.records = []
        self.transport = Transport(
            client_of(self.server, **options),
            LoopClock(),
            name="test",
            on_limits=lambda lane, told, _at: self.limits.append((lane, told)),
            on_call=self.records.append,
        )

    async def post(self, body=b"{}", path="/responses", **options):
        options = {"lane": "m", "timeout_seconds": 60.0, **options}
        return await self.transport.send(CallKind.CREATE, "POST", path, body, **options)

    async def failure(self, **options):
        with pytest.raises(CallFailed) as caught:
            await self.post(**options)
        return caught.value.failure


def refusing(status, body=b"", headers=()):
    return Line(lambda _: answer_of(body, status, headers))


# Sorting failures.

CAUSES = {
    400: Cause.BAD_REQUEST,
    401: Cause.AUTHENTICATION,
    402: Cause.QUOTA,
    403: Cause.PERMISSION,
    404: Cause.NOT_FOUND,
    408: Cause.SERVER_ERROR,
    409: Cause.CONFLICT,
    429: Cause.RATE_LIMITED,
}


@pytest.mark.parametrize("status", [*range(400, 432), 451, 499, *range(500, 512), 520, 529, 599])
async def test_every_status_has_its_cause(status):
    """The table for what has a meaning; else 4xx is the request's fault and 5xx the server's."""
    failure = await refusing(status, {"error": {"message": "no", "code": "x"}}).failure()

    otherwise = Cause.SERVER_ERROR if status >= 500 else Cause.BAD_REQUEST
    assert failure.cause is CAUSES.get(status, otherwise)
    assert (failure.status_code, failure.code) == (status, "x")
    assert failure.message == f"HTTP {status}: no"
    assert not failure.maybe_done


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (b"", "", "Bad Request"),
        (b"not today", "", "not today"),
        (b"<html>\n <h1>502</h1>\n</html>", "", "<html> <h1>502</h1> </html>"),
        (b"null", "", "Bad Request"),
        (b"[]", "", "Bad Request"),
        (b"7", "", "7"),
        (b'"words"', "", "words"),
        (b'["a", "b"]', "", "['a', 'b']"),
        (b'{"detail": "Not here"}', "", "Not here"),
        (b'{"detail": [{"loc": ["body"], "msg": "m"}]}', "", "[{'loc': ['body'], 'msg': 'm'}]"),
        (b'{"error": "text"}', "", "text"),
        (b'{"error": null}', "", "Bad Request"),
        (b'{"error": ["x"]}', "", "['x']"),
        (b'{"error": {"message": null, "type": "t", "code": null}}', "t", "{'message': None, "),
        (b'{"error": {"message": {"deep": 1}, "code": 1234}}', "1234", "{'deep': 1}"),
        (b'{"message": "m", "code": {"a": 1}}', "{'a': 1}", "m"),
        (b'{"error": {"message": "' + b"x" * 10**6 + b'"}}', "", "x" * 491),
        (b'{"error": {"message": "half \\ud83d"}}', "", "half"),
    ],
)
async def test_error_bodies_of_any_shape(body, code, message):
    """Whatever the server says, it is one line for a person, and a code where there is one."""
    failure = await refusing(400, body).failure()

    assert (failure.cause, failure.code) == (Cause.BAD_REQUEST, code)
    assert failure.message.startswith(f"HTTP 400: {message}")
    assert "\n" not in failure.message
    assert len(failure.message) <= 520


@given(body=st.binary(max_size=60) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["error", "code", "type", "message", "detail"]), inner),
    max_leaves=8,
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
async def test_no_error_body_breaks_the_sorting(body):
    """Any bytes at all: a failure with a cause, and never another exception."""
    failure = await refusing(418, body).failure()

    assert failure.cause in {Cause.BAD_REQUEST, Cause.QUOTA}


@pytest.mark.parametrize("status", [400, 402, 403, 429])
@pytest.mark.parametrize(
    "error", [{"code": "insufficient_quota"}, {"code": 1, "type": "billing_not_active"}]
)
async def test_an_empty_account_is_told_by_code_or_type(status, error):
    """No waiting helps, whatever the status and wherever the word stands."""
    assert (await refusing(status, {"error": error}).failure()).cause is Cause.QUOTA


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "56"}, 56),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after": "0"}, 0),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e300"}, None),
        ({"retry-after": "99999"}, RETRY_AFTER_SECONDS_MAX),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0),
        ({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}, RETRY_AFTER_SECONDS_MAX),
        ({"retry-after": "Mon, 99 Jan 99999 00:00:00 GMT"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 +99999999"}, None),
    ],
)
async def test_retry_after_in_every_form(headers, seconds):
    """Seconds, milliseconds or a date; what is no time is not there; never more than an hour."""
    assert (await refusing(429, b"", headers).failure()).retry_after_seconds == seconds


@pytest.fixture
def tokyo():
    """A machine whose clock is set to Japan."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize("zone", ["GMT", "+0000", "-0000", ""])
async def test_a_date_without_a_zone_is_in_utc(zone, tokyo, monkeypatch):
    """HTTP knows only UTC: the machine's own zone must not add hours."""
    line = refusing(429, b"", {"retry-after": f"Wed, 21 Oct 2015 07:28:00 {zone}".strip()})
    monkeypatch.setattr(LoopClock, "unix", lambda self: 1_445_412_480.0 - 90)

    assert (await line.failure()).retry_after_seconds == 90


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (httpx2.ConnectError("refused"), Cause.NOT_SENT),
        (httpx2.ConnectTimeout("slow"), Cause.NOT_SENT),
        (httpx2.PoolTimeout("full"), Cause.NOT_SENT),
        (httpx2.ProxyError("407"), Cause.NOT_SENT),
        (httpx2.WriteError("reset"), Cause.NOT_SENT),
        (httpx2.WriteTimeout("slow"), Cause.NOT_SENT),
        (httpx2.ReadError("reset"), Cause.CONNECTION_LOST),
        (httpx2.RemoteProtocolError("gone"), Cause.CONNECTION_LOST),
        (httpx2.DecodingError("gzip"), Cause.CONNECTION_LOST),
        (httpx2.TooManyRedirects("20"), Cause.CONNECTION_LOST),
        (ConnectionResetError(104, "reset"), Cause.CONNECTION_LOST),
        (httpx2.ReadTimeout("slow"), Cause.TIMED_OUT),
        (openai.OpenAIError("no key today"), Cause.NOT_SENT),
    ],
)
async def test_calls_without_an_answer(error, cause):
    """What never left is told apart from what may have been done, and so paid."""
    line = Line(lambda _: error)

    failure = await line.failure()

    assert (failure.cause, failure.status_code) == (cause, 0)
    assert failure.maybe_done == (cause is not Cause.NOT_SENT)
    assert line.transport.counts == {(CallKind.CREATE, cause.value): 1}


async def test_a_server_that_drips_is_cut_off_in_time():
    """The limit is for the whole answer: a byte now and then does not extend it."""

    class Drip(httpx2.AsyncByteStream):
        async def __aiter__(self):
            while True:
                await asyncio.sleep(1)
                yield b" "

    line = Line(lambda _: httpx2.Response(200, stream=Drip()))
    loop = asyncio.get_running_loop()

    failure = await line.failure(timeout_seconds=20.0)

    assert failure.cause is Cause.TIMED_OUT
    assert loop.time() == pytest.approx(20, abs=0.1)
    assert "20 s" in failure.message


@pytest.mark.parametrize(("own", "seconds"), [({}, 900), ({"timeout": 30.0}, 30)])
async def test_the_sdks_default_timeout_does_not_cut_a_long_answer(own, seconds):
    """Ten minutes of silence are no reason to pay twice; a timeout that the user set is one."""
    line = Line(EmulatorLike(1_000), **own)

    failure = await line.failure(timeout_seconds=900.0)

    assert failure.cause is Cause.TIMED_OUT
    assert asyncio.get_running_loop().time() == pytest.approx(seconds, abs=0.1)


class EmulatorLike(FakeServer):
    """Silent for some seconds, and as httpx2 does, gives up at the request's read timeout."""

    def __init__(self, seconds):
        super().__init__(self._silent)
        self._seconds = seconds

    def _silent(self, request):
        limit = request.extensions["timeout"]["read"]
        if limit is not None and limit < self._seconds:
            return limit, httpx2.ReadTimeout("too slow")
        return self._seconds, {}


@pytest.mark.parametrize("status", [301, 302, 303, 304, 307, 308])
async def test_a_redirect_to_nowhere_is_the_requests_fault(status):
    """Without an address to go to there is nothing to try again."""
    failure = await refusing(status).failure()

    assert (failure.cause, failure.status_code) == (Cause.BAD_REQUEST, status)


async def test_a_stream_is_no_answer_and_is_not_paid_for_again():
    """A server that streams unless told not to would do it ten times more."""
    body = b'event: response.completed\ndata: {"type": "response.completed"}\n\n'
    headers = {"content-type": "text/event-stream; charset=utf-8"}
    line = Line(lambda _: answer_of(body, headers=headers))

    failure = await line.failure()

    assert failure.cause is Cause.BAD_REQUEST
    assert '"stream": false' in failure.message
    assert line.transport.counts == {(CallKind.CREATE, "200"): 1}


async def test_a_large_answer_comes_through():
    """50 MB are one answer."""
    body = b'{"output":"' + b"x" * 50_000_000 + b'"}'

    reply = await Line(lambda _: answer_of(body)).post()

    assert len(reply.body) == len(body)


# Headers.


@pytest.mark.parametrize(
    ("text", "number"),
    [("60", 60), ("6e1", 60), ("59.9", 59), ("", None), ("many", None), ("-1", None), ("nan", None),
     ("inf", None), ("1e999", None), ("6m0s", None)],
)  # fmt: skip
async def test_limits_that_are_no_numbers_are_not_told(text, number):
    """A malformed header is no header."""
    line = Line(lambda _: answer_of({}, headers={"x-ratelimit-limit-requests": text}))

    await line.post(lane="gpt")

    assert line.limits == ([] if number is None else [("gpt", LimitsTold(requests_limit=number))])


async def test_limits_are_told_by_refusals_too():
    """A 429 knows the limit best."""
    line = refusing(429, b"", {"x-ratelimit-remaining-tokens": "0"})

    await line.failure()

    assert line.limits == [("m", LimitsTold(tokens_remaining=0))]


@pytest.mark.parametrize(("text", "seconds"), [("1500", 1.5), ("x", None), ("-1", None)])
async def test_the_hint_when_to_look_again(text, seconds):
    """openai-poll-after-ms, where it is a time."""
    reply = await Line(lambda _: answer_of({}, headers={"openai-poll-after-ms": text})).post()

    assert reply.look_again_seconds == seconds


async def test_every_call_has_an_id_of_its_own():
    """X-Client-Request-Id, by which both books are compared, also of another orchestrator."""
    line = Line(lambda _: {})
    for _ in range(20):
        await line.post()

    ids = [request.headers["x-client-request-id"] for request in line.server.requests]
    assert len(set(ids)) == 20
    assert ids == [record.call_id for record in line.records]


# Counting.


async def test_every_call_is_counted_once_also_when_it_is_cancelled():
    """Answered, refused, lost, cancelled or broken: one count and one record each."""
    answers = itertools.chain(
        [{}, answer_of(b"", 503), httpx2.ReadError("x"), RuntimeError("a bug"), None]
    )
    line = Line(lambda _: next(answers))

    await line.post()
    await line.failure()
    await line.failure()
    with pytest.raises(RuntimeError):
        await line.post()
    with anyio.move_on_after(5):
        await line.post()

    statuses = ["200", "503", "connection_lost", "internal_error", "cancelled"]
    assert line.transport.counts == {(CallKind.CREATE, status): 1 for status in statuses}
    assert [record.status for record in line.records] == statuses
    assert line.records[-1].seconds == pytest.approx(5, abs=0.01)


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
async def test_the_sdk_retries_nothing(status):
    """Retries take a permit of ours, whatever the client was told and the server suggests."""
    headers = {"x-should-retry": "true", "retry-after": "0"}
    line = Line(lambda _: answer_of(b"", status, headers), max_retries=5)

    await line.failure()

    assert len(line.server.requests) == 1


# What goes out.

NUMBERS = ["1.0", "1e5", "1E+5", "0.10", "-0", "-0.0", "123456789012345678901234567890", "1e400",
           "3.141592653589793238462643383279"]  # fmt: skip

json_text = st.recursive(
    st.sampled_from(
        [*NUMBERS, "true", "null", '"\\u00e9"', '"\\ud83d\\ude00"', '"\\/"', '"é\\n"', "[ 1 , 2]"]
    ),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda values: f"[{', '.join(values)}]")
        | st.lists(st.tuples(st.sampled_from("abc"), inner), max_size=3).map(
            lambda pairs: "{" + " ,".join(f'"{key}" : {value}' for key, value in pairs) + "}"
        )
    ),
    max_leaves=6,
)


@pytest.mark.parametrize("kind", [openai.AsyncOpenAI, ThreadlessOpenAI])
async def test_the_body_goes_out_byte_for_byte(kind):
    """Bytes in, the same bytes out: nothing between us and the wire reads them."""
    server = FakeServer(lambda _: {})
    client = client_of(server, kind)
    client._platform = "Unknown"
    transport = Transport(client, LoopClock(), name="t", on_limits=lambda *_: None)
    body = b'{"b":1.0,"a":1e5,"c":0.10,"d":123456789012345678901234567890,"e":"\\u00e9","b ":[ ]}'

    await transport.send(CallKind.CREATE, "POST", "/responses", body, lane="m", timeout_seconds=9)

    assert server.requests[0].content == body
    assert server.requests[0].headers["content-type"] == "application/json"


async def test_the_clients_own_configuration_is_kept():
    """Default headers, default query, organisation, key, and a base url with a path."""
    line = Line(
        lambda _: {},
        base_url="http://gateway.test/team/7/v1/",
        default_headers={"X-Team": "seven"},
        default_query={"route": "blue"},
        organization="org-1",
        api_key="sk-mine",
    )

    await line.post()

    request = line.server.requests[0]
    assert str(request.url) == "http://gateway.test/team/7/v1/responses?route=blue"
    assert request.headers["x-team"] == "seven"
    assert request.headers["openai-organization"] == "org-1"
    assert request.headers["authorization"] == "Bearer sk-mine"


class ThreadlessAzure(openai.AsyncAzureOpenAI):
    """Azure's client without the worker thread, as ThreadlessOpenAI."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self._platform = "Unknown"


def azure_client(server, **options):
    return ThreadlessAzure(
        api_key="k",
        azure_endpoint="http://azure.test",
        api_version="2026-01-01",
        http_client=httpx2.AsyncClient(transport=server),
        **options,
    )


AZURE_PATHS = {
    "/v1/chat/completions": "/openai/deployments/gpt-5-mini/chat/completions",
    "/v1/embeddings": "/openai/deployments/text-embedding-3-small/embeddings",
    "/v1/responses": "/openai/responses",
}
AZURE_BODIES = {
    "/v1/chat/completions": {
        "model": "gpt-5-mini",
        "messages": [{"role": "user", "content": "é"}],
        "temperature": 1.0,
        "seed": 2**40,
    },
    "/v1/embeddings": {"model": "text-embedding-3-small", "input": "hi"},
    "/v1/responses": {"model": "gpt-5-mini", "input": "hi"},
}


async def test_azure_finds_its_deployments():
    """The deployment comes from the body's model, the version goes into the query, and all ends."""
    served = EmulatorTransport(Emulator(Settings()))
    seen = []

    class Watching(httpx2.AsyncBaseTransport):
        async def handle_async_request(self, request):
            seen.append((request.method, request.url.path, request.url.query, request.content))
            return await served.handle_async_request(request)

    requests = [{"url": url, "body": body} for url, body in AZURE_BODIES.items()]
    async with Orchestrator(azure_client(Watching())) as orchestrator:
        outcomes = [result.outcome async for result in orchestrator.run_many(requests)]

    assert outcomes == [Outcome.COMPLETED] * 3
    posted = {path: json.loads(body) for method, path, _, body in seen if method == "POST"}
    assert set(posted) == set(AZURE_PATHS.values())
    assert {query for _, _, query, _ in seen} == {b"api-version=2026-01-01"}
    chat = "/v1/chat/completions"
    assert posted[AZURE_PATHS[chat]] == AZURE_BODIES[chat]


async def test_azure_with_a_deployment_of_its_own():
    """A client made for one deployment uses it, whatever the body's model is."""
    emulator = Emulator(Settings())
    client = azure_client(EmulatorTransport(emulator), azure_deployment="mine")

    async with Orchestrator(client) as orchestrator:
        result = await orchestrator.run({"prompt": "hi", "model": "gpt-5-mini"})

    assert result.outcome is Outcome.COMPLETED


# Only what is ours is added; the rest as it was written.


@given(fields=st.dictionaries(st.text("xyz", min_size=1, max_size=3), json_text, max_size=4))
async def test_our_fields_change_no_others(fields):
    """Through the whole engine: numbers, escapes, order and spaces inside of values stay."""
    text = ", ".join(f'"{name}" : {value}' for name, value in fields.items())
    body = '{"model": "m", "input": "hi"' + (", " + text if text else "") + ', "background": null}'
    sent = await _sent(body)

    expected = {"model": '"m"', "input": '"hi"', **fields}
    rest = sent
    for name, value in expected.items():
        before, found, rest = rest.partition(f'"{name}":{value}')
        assert found, f"{name} is not in {sent} as {value}"
        assert before in {"{", ","}
    assert rest.startswith(',"background":true,"metadata":{"orchestrator_run":"')


async def _sent(body):
    server = FakeServer(lambda _: {"id": "r", "status": "completed", "output": []})
    request = Request("a", "/v1/responses", Family.RESPONSES, "m", 1, BodyInMemory(body.encode()))
    async with Orchestrator(client_of(server), seed=1) as orchestrator:
        await orchestrator.run(request)
    return server.requests[0].content.decode()


async def test_a_key_that_the_server_quotes_goes_no_further():
    """Some servers repeat the key that they refuse; it is masked before anybody can read it."""
    body = {"error": {"message": "Incorrect API key provided: sk-very-secret-1234."}}
    line = Line(lambda _: answer_of(body, 401), api_key="sk-very-secret-1234")

    failure = await line.failure()

    assert failure.message == "HTTP 401: Incorrect API key provided: ***."
