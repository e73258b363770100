"""Webhook endpoints managed with OpenAI's own client, validating strictly."""

import asyncio
from math import inf

import openai
import pytest
from support.emulator_client import EmulatorTransport, content, emulator_client, post
from support.webhook_carrier import URL, carry

from orchestrator.emulator.durations import Fixed
from orchestrator.emulator.emulator import Emulator
from orchestrator.emulator.server import unix_now
from orchestrator.emulator.settings import Settings
from orchestrator.emulator.webhook_endpoint import EVENT_TYPES

ENDS = ["response.completed", "response.cancelled"]


def emulator_with(**settings):
    return Emulator(Settings(epoch=unix_now(), queue_seconds=Fixed(0), **settings))


def strict(emulator):
    return emulator_client(emulator, _strict_response_validation=True)


async def created(client, name="one", url=URL, event_types=ENDS):
    return await client.webhooks.create(name=name, url=url, event_types=event_types)


async def run_one(client, text="x"):
    return await client.responses.create(model="m", input=text, background=True)


def begin_session(emulator):
    body = {"agent": {"model": "m"}, "environment": {"type": "none"}, "input": "x"}
    now = asyncio.get_running_loop().time()
    beta = {"openai-beta": "agents=v1"}
    return content(post(emulator, "/agents/sessions", body, now=now, headers=beta))["id"]


async def test_create_retrieve_update_list_and_delete():
    """All that can be done with an endpoint; its secret is told once."""
    emulator = emulator_with()
    client = strict(emulator)
    one, two = await created(client), await created(client, "two")
    updated = await client.webhooks.update(one.id, name="uno", event_types=["batch.failed"])
    retrieved = await client.webhooks.retrieve(one.id)
    listed = [endpoint.name async for endpoint in client.webhooks.list(limit=1)]
    deleted = await client.webhooks.delete(two.id)
    with pytest.raises(openai.NotFoundError):
        await client.webhooks.retrieve(two.id)

    assert (one.url, one.event_types, one.object) == (URL, ENDS, "webhook_endpoint")
    assert one.signing_secret.startswith("whsec_")
    assert one.signing_secret != two.signing_secret
    assert retrieved == updated
    assert (updated.name, updated.url, updated.event_types) == ("uno", URL, ["batch.failed"])
    assert "signing_secret" not in retrieved.to_dict()
    assert retrieved.signing_secret_hint.endswith(one.signing_secret[-4:])
    assert listed == ["two", "uno"]
    assert deleted.deleted


async def test_event_types():
    """The types that there are, all of which can be asked for."""
    client = strict(emulator_with())
    types = (await client.webhooks.event_types.list()).data

    assert types == list(EVENT_TYPES)
    assert (await created(client, event_types=types)).event_types == types


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"url": "https://example.org/hook"}, "sends webhooks to this machine only"),
        ({"url": "no address"}, "is no address"),
        ({"url": "http://[::1"}, "is no address"),
        ({"event_types": ["response.dreamt"]}, "Invalid value: 'response.dreamt'"),
        ({"event_types": []}, "Missing required parameter: 'event_types'"),
        ({"name": ""}, "Missing required parameter: 'name'"),
    ],
)
async def test_what_can_not_be_an_endpoint(given, told):
    """A 400 that says what is wrong."""
    with pytest.raises(openai.BadRequestError, match=told):
        await created(strict(emulator_with()), **given)


async def test_only_what_is_subscribed_is_sent_to_each():
    """Two endpoints hear of what they asked for; a delivery of each has an id of its own."""
    emulator = emulator_with(run_seconds=Fixed(2))
    client = strict(emulator)
    await created(client, url=URL + "/both")
    await created(client, url=URL + "/cancelled", event_types=["response.cancelled"])
    await run_one(client)
    cancelled = await run_one(client, "y")
    await client.responses.cancel(cancelled.id)
    carried = [delivery for _, delivery in carry(emulator, inf)]

    assert sorted(one.url.rpartition("/")[2] for one in carried) == ["both", "both", "cancelled"]
    assert len({one.webhook_id for one in carried}) == 3


async def test_runs_that_were_there_before_the_first_endpoint_are_told():
    """What ends after an endpoint is made is told to it; what ended before is not."""
    emulator = emulator_with(run_seconds=Fixed(5))
    client = strict(emulator)
    await run_one(client)
    begin_session(emulator)
    await asyncio.sleep(7)
    later = await run_one(client, "later")
    session_id = begin_session(emulator)
    await asyncio.sleep(1)
    endpoint = await created(client, event_types=[*ENDS, "agent.session.idle"])
    secret = endpoint.signing_secret
    events = [
        client.webhooks.unwrap(one.body, one.headers, secret=secret)
        for _, one in carry(emulator, inf)
    ]

    assert sorted((event.type, event.data.id) for event in events) == [
        ("agent.session.idle", session_id),
        ("response.completed", later.id),
    ]


async def test_a_deleted_endpoint_hears_nothing_more():
    """What was on its way is dropped, and nothing is watched any more."""
    emulator = emulator_with()
    client = strict(emulator)
    endpoint = await created(client)
    await run_one(client)
    await client.webhooks.delete(endpoint.id)

    assert carry(emulator, inf) == []
    await run_one(client, "y")
    assert emulator.next_delivery_at() is None


@pytest.mark.parametrize(("keep_old", "signatures"), [(True, 2), (False, 1)])
async def test_rotating_the_secret(keep_old, signatures):
    """The new secret signs at once; the old one only where it was kept, and for 24 hours."""
    emulator = emulator_with(run_seconds=Fixed(1))
    client = strict(emulator)
    old = await created(client)
    new = await client.webhooks.rotate_secret(old.id, keep_old_secret_active_for_24_hours=keep_old)
    await run_one(client)
    ((_, delivery),) = carry(emulator, inf)
    taken = [
        secret
        for secret in (old.signing_secret, new.signing_secret)
        if is_let_in(client, delivery, secret)
    ]

    assert new.signing_secret != old.signing_secret
    assert len(delivery.headers["webhook-signature"].split()) == signatures
    assert taken == ([old.signing_secret] if keep_old else []) + [new.signing_secret]
    await asyncio.sleep(86_400)
    await run_one(client, "y")
    ((_, delivery),) = carry(emulator, inf)
    assert len(delivery.headers["webhook-signature"].split()) == 1


def is_let_in(client, delivery, secret):
    try:
        client.webhooks.unwrap(delivery.body, delivery.headers, secret=secret)
    except openai.InvalidWebhookSignatureError:
        return False
    return True


def heard(emulator, on_webhook):
    """A strict client whose test events are answered so."""
    client = strict(emulator)
    transport = client._client._transport
    assert isinstance(transport, EmulatorTransport)
    transport.on_webhook = on_webhook
    return client


@pytest.mark.parametrize("status", [200, 400, 503])
async def test_a_test_event_tells_what_the_endpoint_answered(status):
    """A sample of any type comes signed, once and without faults; its status is the answer."""
    arrived = []

    def on_webhook(delivery):
        arrived.append(delivery)
        return status

    emulator = emulator_with(faults={"webhook_lost": 1.0, "webhook_doubled": 1.0})
    client = heard(emulator, on_webhook)
    endpoint = await created(client)
    result = await client.webhooks.test(endpoint.id, event_type="batch.completed")

    assert (result.status_code, result.success, result.event_type) == (
        status,
        True,
        "batch.completed",
    )
    (sample,) = arrived
    event = client.webhooks.unwrap(sample.body, sample.headers, secret=endpoint.signing_secret)
    assert (event.type, event.data.id[:6]) == ("batch.completed", "batch_")
    assert carry(emulator, inf) == []


async def test_a_test_event_that_nobody_answers_is_an_error():
    """An endpoint that can't be reached is a 400 that says so."""
    client = heard(emulator_with(), lambda _: None)
    endpoint = await created(client)

    with pytest.raises(openai.BadRequestError, match="could not be delivered"):
        await client.webhooks.test(endpoint.id, event_type="response.completed")
    with pytest.raises(openai.BadRequestError, match="Invalid value"):
        await client.webhooks.test(endpoint.id, event_type="nothing")
    with pytest.raises(openai.NotFoundError, match="No webhook endpoint"):
        await client.webhooks.test("we_none", event_type="response.completed")


async def test_a_server_without_endpoints():
    """Some servers have none of it: every place is a 404, and the key is looked at all the same."""
    client = strict(emulator_with(deviations=["webhooks_no_endpoints"]))

    with pytest.raises(openai.NotFoundError, match="Invalid URL"):
        await created(client)
    with pytest.raises(openai.NotFoundError):
        await client.webhooks.list()
    with pytest.raises(openai.NotFoundError):
        await client.webhooks.event_types.list()


async def test_the_key_is_asked_for():
    """No stranger makes an endpoint."""
    client = strict(emulator_with(api_key="right"))

    with pytest.raises(openai.AuthenticationError):
        await created(client)
