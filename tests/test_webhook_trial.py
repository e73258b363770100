"""What the doctor finds out about webhooks, by what really arrives at its socket."""

import anyio
import httpx2
import pytest
from support.webhooks import OTHER_SECRET, SECRET, body_of, headers_of, now

from orchestrator.apis.webhook_endpoints import Endpoint
from orchestrator.cli.webhook_trial import Trial, try_webhooks
from orchestrator.errors import KeyRefused, ServerRefused, ServerUnreachable
from orchestrator.jobfile.address import Address

pytestmark = [pytest.mark.real_time, pytest.mark.slow]

BODY = body_of()
MISSING = {"webhook-id": "wh_1"}


class Server:
    """Endpoints of a pretend server: its sample is what `send(client, url)` does."""

    def __init__(self, send, problem=None, secret=SECRET, delete_problem=None):
        self.send = send
        self.problem = problem
        self.secret = secret
        self.delete_problem = delete_problem
        self.url = ""
        self.left = []

    async def create(self, url, *, name, event_types):
        self.left.append("we_1")
        return Endpoint("we_1", name, url, tuple(event_types), None, "", self.secret)

    async def test(self, endpoint_id, event_type):
        status = 0
        if self.send is not None:
            async with httpx2.AsyncClient() as client:
                status = (await self.send(client, self.url)).status_code
        if self.problem is not None:
            raise self.problem
        return status

    async def delete(self, endpoint_id):
        if self.delete_problem is not None:
            raise self.delete_problem
        self.left.remove(endpoint_id)


def posting(body=BODY, headers=None, method="POST"):
    async def send(client, url):
        given = headers_of(body) if headers is None else headers
        return await client.request(method, url, content=body, headers=given)

    return send


async def tried(server, wait_seconds=0.03):
    told = []

    def tell(line):
        told.append(line)
        if line.startswith("waits: at "):
            server.url = line.split()[2]

    trial = Trial(Address("127.0.0.1", 0), "https://example.org/", "", (), wait_seconds)
    finding = await try_webhooks(server, trial, tell)
    return finding, told


@pytest.mark.parametrize(
    ("send", "told"),
    [
        (posting(headers=headers_of(BODY, timestamp=now() - 3600)), "Set the clock"),
        (posting(headers=headers_of(BODY, timestamp=now() + 3600)), "Set the clock"),
        (posting(headers=headers_of(BODY, key=b"wrong")), "its signature is not by the secret"),
        (posting(headers=MISSING), "without the three webhook headers"),
        (posting(method="GET", body=b""), "Is there a redirect on the way?"),
        (posting(body=b"x" * 300_000), "something arrived that is no event: too_large"),
        (None, "nothing arrived within 0.03 s"),
    ],
)
async def test_the_likeliest_cause(send, told):
    """What arrives says what is wrong; nothing is left on the server."""
    server = Server(send)
    finding, _ = await tried(server)

    assert not finding.works
    assert told in finding.told
    assert server.left == []


@pytest.mark.parametrize(
    "body", [BODY, body_of(kind="weather.changed"), body_of(run_id=""), b'"a text"']
)
async def test_a_sample_of_any_kind_will_do(body):
    """What counts is the signature: servers may send what they like as a sample."""
    finding, _ = await tried(Server(posting(body=body)))

    assert finding.works


async def test_a_sample_that_comes_after_the_answer():
    """A server may say that it has sent before it has."""
    async with anyio.create_task_group() as others:

        async def late(client, url):
            async def post():
                async with httpx2.AsyncClient() as another:
                    await posting()(another, url)

            others.start_soon(post)
            return httpx2.Response(202)

        finding, _ = await tried(Server(late), wait_seconds=5)

    assert finding.works


async def test_a_sample_counts_although_the_server_says_otherwise():
    """What has arrived has arrived; what has not is told in the server's words."""
    problem = ServerRefused(server="S", what="send a test event", problem="HTTP 400: no answer")
    arrived, _ = await tried(Server(posting(), problem))
    lost, _ = await tried(Server(None, problem))
    unreachable, _ = await tried(Server(None, ServerUnreachable(server="S", problem="gone")))

    assert arrived.works
    assert "S refused to send a test event: HTTP 400: no answer. Can https://exam" in lost.told
    assert "S gave no answer: gone" in unreachable.told


async def test_what_can_not_be_removed_is_named():
    """An endpoint that stays is told with the command that deletes it."""
    refused = KeyRefused(server="S", problem="HTTP 403")
    finding, told = await tried(Server(posting(), delete_problem=refused))

    assert finding.works
    assert "orchestrator webhooks delete we_1" in told[-1]


async def test_an_interrupt_removes_what_was_made():
    """Cancelled while it waits, the endpoint is deleted all the same."""
    server = Server(None)
    with anyio.move_on_after(0.03) as scope:
        await tried(server, wait_seconds=60)

    assert scope.cancelled_caught
    assert server.left == []


async def test_a_secret_of_another_endpoint_is_not_taken():
    """The endpoint's own secret is what counts, not the one that events come with."""
    server = Server(posting(), secret=OTHER_SECRET)
    finding, _ = await tried(server)

    assert "its signature is not by the secret" in finding.told
