"""Webhook endpoints are managed through OpenAI's client, whatever the server answers."""

import httpx2
import pytest
from support.emulator_client import emulator_client
from support.fake_server import FakeServer, answer_of, client_of
from support.webhook_carrier import URL

from orchestrator.apis.asking import count_models
from orchestrator.apis.webhook_endpoints import EVENTS_USED, WebhookEndpoints, check_url
from orchestrator.emulator.emulator import Emulator
from orchestrator.emulator.settings import Settings
from orchestrator.emulator.webhook_endpoint import EVENT_TYPES
from orchestrator.errors import (
    KeyRefused,
    ServerRefused,
    ServerUnclear,
    ServerUnreachable,
    WebhookEndpointsMissing,
    WebhookEndpointUnknown,
    WebhookUrlUnusable,
)

KEY = "sk-canary-of-the-key"


def on_emulator(**settings):
    client = emulator_client(Emulator(Settings(**settings)))
    return WebhookEndpoints(client), client


def on_server(answer):
    """Endpoints of a server that answers every call so, and the server."""
    server = FakeServer(lambda request: answer)
    return WebhookEndpoints(client_of(server, api_key=KEY)), server


async def made_on(endpoints, name="one"):
    return await endpoints.create(URL, name=name, event_types=EVENTS_USED)


async def test_all_that_can_be_done_with_an_endpoint():
    """Made, listed, tested, given a new secret and deleted; the secret is in no repr."""
    endpoints, client = on_emulator()
    made, other = await made_on(endpoints), await made_on(endpoints, "two")
    listed = await endpoints.list()
    status = await endpoints.test(made.id, "response.completed")
    client._client._transport.on_webhook = lambda _: 503
    refused = await endpoints.test(made.id, "batch.failed")
    rotated = await endpoints.rotate(made.id, keep_old=True)
    await endpoints.delete(other.id)

    assert (made.name, made.url, made.event_types) == ("one", URL, EVENTS_USED)
    assert made.secret.startswith("whsec_")
    assert made.secret not in repr(made)
    assert [(one.id, one.secret) for one in listed] == [(other.id, ""), (made.id, "")]
    assert (status, refused) == (200, 503)
    assert rotated.secret not in {"", made.secret}
    assert [one.id for one in await endpoints.list()] == [made.id]


def test_only_events_that_are_used_are_asked_for():
    """What the engine does nothing about is not sent, and all of it exists."""
    assert set(EVENTS_USED) <= set(EVENT_TYPES)
    assert not set(EVENTS_USED) & {"agent.session.created", "agent.session.in_progress"}


async def test_many_endpoints_are_listed_page_by_page():
    """All are listed, also those of the second page."""
    one = {"name": "", "url": "", "event_types": [], "created_at": 1, "object": ""}

    def page(request):
        after = int(request.url.params.get("after", "0"))
        data = [{**one, "id": str(after + number)} for number in range(1, 101)]
        return {"object": "list", "data": data, "has_more": after < 200}

    server = FakeServer(page)
    listed = await WebhookEndpoints(client_of(server)).list()

    assert [endpoint.id for endpoint in listed] == [str(number) for number in range(1, 301)]
    assert len(server.requests) == 3


async def test_a_list_without_end_is_cut():
    """A server that always has more is asked no more after a thousand."""
    endpoints, server = on_server(
        {"object": "list", "data": [{"id": "we_1"}] * 100, "has_more": True}
    )

    assert len(await endpoints.list()) == 1000
    assert len(server.requests) == 10


async def every_call(endpoints, endpoint_id="we_1"):
    """What each call about one endpoint raises."""
    raised = []
    for call in (
        endpoints.test(endpoint_id, "batch.failed"),
        endpoints.rotate(endpoint_id, keep_old=False),
        endpoints.delete(endpoint_id),
    ):
        with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is what is asked
            await call
        raised.append(type(caught.value))
    return set(raised)


@pytest.mark.parametrize("deviations", [[], ["any_plain_errors"]])
async def test_an_endpoint_that_is_not_there(deviations):
    """Told apart from a server that has none at all; blank names are not sent."""
    endpoints, _ = on_emulator(deviations=deviations)

    assert await every_call(endpoints) == {WebhookEndpointUnknown}
    assert await every_call(endpoints, " ") == {WebhookEndpointUnknown}


@pytest.mark.parametrize("status", [404, 405, 501])
async def test_a_server_without_endpoints(status):
    """Whatever it says to what it doesn't know: there are none, and what to do instead."""
    endpoints, _ = on_server(answer_of({"detail": "Not Found"}, status))

    assert await every_call(endpoints) == {WebhookEndpointsMissing}
    with pytest.raises(WebhookEndpointsMissing, match=r"Not Found.*runs are checked all the same"):
        await made_on(endpoints)
    with pytest.raises(WebhookEndpointsMissing):
        await endpoints.list()


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_key(status):
    """The server's words, without the key that it may quote."""
    body = {"error": {"message": f"Incorrect key {KEY}.", "code": "invalid_api_key"}}
    endpoints, server = on_server(answer_of(body, status))

    assert await every_call(endpoints) == {KeyRefused}
    with pytest.raises(KeyRefused, match=rf"HTTP {status}: Incorrect key \*\*\*\. Look") as caught:
        await made_on(endpoints)
    assert KEY not in str(caught.value)
    with pytest.raises(KeyRefused):
        await count_models(client_of(server, api_key=KEY))


async def test_other_refusals_and_no_answer():
    """An error of the server, a lost connection: what was asked, and what came of it."""
    body = {"error": {"message": "Too many endpoints"}}
    refusing, _ = on_server(answer_of(body, 400))
    silent, _ = on_server(httpx2.ConnectError("nobody there"))

    with pytest.raises(ServerRefused, match="refused to make a webhook endpoint: HTTP 400: Too"):
        await made_on(refusing)
    assert await every_call(refusing) == {ServerRefused}
    with pytest.raises(ServerUnreachable, match="ConnectError: nobody there"):
        await silent.list()


@pytest.mark.parametrize(
    "answer",
    [
        b"{",
        b"<html>",
        {},
        {"id": 3, "signing_secret": "whsec_x"},
        {"id": "we_1", "signing_secret": None},
        {"id": "we_1", "signing_secret": ""},
    ],
)
async def test_an_answer_that_can_not_be_read(answer):
    """Anything but an endpoint with its secret is told as such, without a traceback."""
    endpoints, _ = on_server(answer)

    with pytest.raises(ServerUnclear, match="can't be read"):
        await made_on(endpoints)


@pytest.mark.parametrize("data", [None, [], 3, [{}], [{"id": None}], ["x"]])
async def test_a_list_of_nonsense(data):
    """A list without endpoints is empty; one of things without an id can't be read."""
    endpoints, _ = on_server({"object": "list", "data": data, "has_more": False})

    try:
        assert await endpoints.list() == []
    except ServerUnclear:
        assert data not in (None, [])


async def test_fields_of_wrong_types_are_left_out():
    """An endpoint is shown as far as it can be."""
    one = {"id": "we_1", "name": 3, "url": None, "event_types": "all", "created_at": "now"}
    endpoints, _ = on_server({"object": "list", "data": [one], "has_more": False})
    (told,) = await endpoints.list()

    assert (told.id, told.name, told.url, told.event_types) == ("we_1", "", "", ())
    assert told.created_at_unix is None


@pytest.mark.parametrize(
    "url",
    ["https://example.org/hook?a=b", "http://127.0.0.1:80/", "http://[::1]/", "http://localhost"],
)
def test_where_webhooks_can_be_sent(url):
    """Encrypted to anywhere; in the clear to this machine."""
    check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/",
        "http://127.0.0.1.example.org/",
        "http://0x7f000001/",
        "ftp://example.org",
        "https://",
        "example.org",
        "",
        "https://example.org:port/",
        "https://[::1",
        "https://name:word@example.org/",
        "https://example.org/a b",
        "https://example.org/\n",
    ],
)
def test_where_nothing_is_sent(url):
    """What is no address, or what anybody on the way could read."""
    with pytest.raises(WebhookUrlUnusable, match="Nothing was sent"):
        check_url(url)
