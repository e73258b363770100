"""The web service and the Lambda function of jobs/webhook_service, executed."""

import base64
import importlib.util
import sys
from pathlib import Path

import anyio
import httpx2
import pytest
from anyio.lowlevel import checkpoint
from support.emulator_client import emulator_client
from support.sqs import pretend_sqs, run_until
from support.webhooks import OTHER_SECRET, SECRET, Log, body_of, headers_of, now

from orchestrator.adapters.webhook.queue import WebhookQueue
from orchestrator.adapters.webhook.receiver import Receiver
from orchestrator.apis.webhook_signature import verifier
from orchestrator.emulator.durations import Fixed
from orchestrator.emulator.emulator import Emulator
from orchestrator.emulator.settings import Settings
from orchestrator.errors import WebhooksOff
from orchestrator.service import Orchestrator

pytestmark = pytest.mark.slow  # FastAPI, boto3 and moto take seconds to import

JOB = Path(__file__).parents[1] / "jobs" / "webhook_service"

sqs = pytest.fixture(pretend_sqs)


def loaded(name):
    """A file of the job, as a module."""
    spec = importlib.util.spec_from_file_location(f"webhook_service_{name}", JOB / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # FastAPI looks annotations up there
    spec.loader.exec_module(module)
    return module


def function_url_event(body, headers):
    """What a function URL or an HTTP API hands to the function."""
    http = {"requestContext": {"http": {"method": "POST"}}, "isBase64Encoded": False}
    return {"version": "2.0", **http, "headers": headers, "body": body.decode()}


def rest_event(body, headers):
    """What a REST API hands to it."""
    title = {name.title(): value for name, value in headers.items()}
    return {"httpMethod": "POST", "headers": title, "body": body.decode()}


def balancer_event(body, headers):
    """What a load balancer hands to it."""
    several = {name: ["first", value] for name, value in headers.items()}
    encoded = {"isBase64Encoded": True, "body": base64.b64encode(body).decode()}
    return {"httpMethod": "POST", "multiValueHeaders": several, **encoded}


@pytest.mark.real_time
class TestLambda:
    @pytest.fixture
    def function(self, sqs, monkeypatch):
        """The function, its queue in the environment."""
        monkeypatch.setenv("QUEUE_URL", sqs.url)
        return loaded("lambda_handler").handler

    async def test_events_arrive_through_the_queue(self, function, sqs):
        """From whatever stands before the function to the engine, each verified on its raw body."""
        events = []
        for number, made in enumerate((function_url_event, rest_event, balancer_event)):
            body = body_of(f"resp_{number} \u00e9")
            answer = function(made(body, headers_of(body, f"wh_{number}")), None)
            assert answer["statusCode"] == 200
        receiver = Receiver(verify=verifier([SECRET]), on_event=events.append, log=Log())
        queue = WebhookQueue(receiver, sqs.url, log=Log())
        await run_until(queue, lambda: queue.counts["deleted"] == 3)
        assert {event.webhook_id for event in events} == {"wh_0", "wh_1", "wh_2"}
        assert sqs.left() == []

    def test_cookies_and_the_like_are_not_passed_on(self, function, sqs):
        """The queue gets what the signature needs and no more."""
        headers = headers_of(body_of()) | {"cookie": "private", "authorization": "private"}
        function(function_url_event(body_of(), headers), None)
        (message,) = sqs.left()
        assert "private" not in message

    @pytest.mark.parametrize(
        ("status", "other"),
        [
            (405, {"requestContext": {"http": {"method": "GET"}}}),
            (400, {"headers": {}}),
            (400, {"headers": None}),
            (400, {"body": "no base64", "isBase64Encoded": True}),
            (400, {"body": "\ud800"}),
            (413, {"body": "x" * (256 * 1024 + 1)}),
        ],
    )
    def test_what_can_be_no_event_is_refused(self, function, sqs, status, other):
        """It never reaches the queue."""
        event = function_url_event(body_of(), headers_of(body_of())) | other
        assert function(event, None)["statusCode"] == status
        assert sqs.left() == []

    def test_with_the_secret_forged_events_are_refused(self, function, sqs, monkeypatch):
        """Before they cost a message; several secrets may be given."""
        monkeypatch.setenv("OPENAI_WEBHOOK_SECRET", f"{OTHER_SECRET} {SECRET}")
        body = body_of()
        forged = [
            headers_of(body, key=b"wrong"),
            headers_of(body, timestamp=now() - 1000),
            headers_of(body) | {"webhook-timestamp": "soon"},
            headers_of(body) | {"webhook-signature": "v1,\u00e9"},
            headers_of(body) | {"webhook-id": "\ud800"},
        ]
        for headers in forged:
            assert function(function_url_event(body, headers), None)["statusCode"] == 403
        assert sqs.left() == []
        assert function(function_url_event(body, headers_of(body)), None)["statusCode"] == 200

    def test_a_queue_that_does_not_answer_is_an_error(self, function, sqs, monkeypatch):
        """So that the sender tries again: no event is lost."""
        monkeypatch.setenv("QUEUE_URL", sqs.url + "-not")
        event = function_url_event(body_of(), headers_of(body_of()))
        with pytest.raises(Exception, match="does not exist"):
            function(event, None)


class Service:
    """The service over an emulated server, without sockets, in virtual time."""

    def __init__(self, **settings):
        self.emulator = Emulator(Settings(**settings))
        client = emulator_client(self.emulator)
        self.orchestrator = Orchestrator(client, webhook_secrets=[SECRET])
        self.module = loaded("service")
        self.app = self.module.create_app(self.orchestrator)
        transport = httpx2.ASGITransport(app=self.app)
        self.client = httpx2.AsyncClient(transport=transport, base_url="http://service.test")

    def open(self):
        return self.app.router.lifespan_context(self.app)

    async def ended(self, name):
        """A run's last word."""
        with anyio.fail_after(600):
            # Callers of a service have nothing but its answers.
            while (told := (await self.client.get(f"/runs/{name}")).json())["state"] == "running":  # noqa: ASYNC110 - see above
                await anyio.sleep(1)
        return told


class TestService:
    async def test_runs(self):
        """A run is begun at once, and told about when it has ended."""
        service = Service()
        async with service.open():
            begun = await service.client.post("/runs", json={"prompt": "Name a river."})
            assert begun.status_code == 202
            name = begun.json()["id"]
            assert begun.headers["location"] == f"/runs/{name}"
            running = await service.client.get(f"/runs/{name}")
            assert running.json() == {"id": name, "state": "running"}
            told = await service.ended(name)
            assert told["state"] == "completed"
            assert told["answer"]["id"] == told["run_id"]
            assert (await service.client.get("/runs/other")).status_code == 404

    @pytest.mark.parametrize(
        "given", [{}, {"prompt": ""}, {"prompt": 7}, [], {"prompt": "x" * 10**6}]
    )
    async def test_what_is_no_prompt_is_refused(self, given):
        """Before anything is begun."""
        service = Service()
        async with service.open():
            assert (await service.client.post("/runs", json=given)).status_code == 422
        assert service.emulator.books.calls_served == 0

    async def test_room_is_bounded(self, monkeypatch):
        """The oldest that has ended makes room; without one, a caller is told to come again."""
        service = Service()
        monkeypatch.setattr(service.module, "RUNS_MAX", 2)
        async with service.open():
            names = []
            for _ in range(2):
                begun = await service.client.post("/runs", json={"prompt": "Name a river."})
                names.append(begun.json()["id"])
            full = await service.client.post("/runs", json={"prompt": "Name a river."})
            assert full.status_code == 503
            for name in names:
                await service.ended(name)
            begun = await service.client.post("/runs", json={"prompt": "Name a lake."})
            assert begun.status_code == 202
            assert (await service.client.get(f"/runs/{names[0]}")).status_code == 404

    async def test_webhooks(self):
        """An event about a run brings its end long before a check would."""
        service = Service(run_seconds=Fixed(100.0), queue_seconds=Fixed(0.0))
        async with service.open():
            begun = await service.client.post("/runs", json={"prompt": "Name a river."})
            name = begun.json()["id"]
            await anyio.sleep(100.01)
            run_id = next(iter(service.emulator._state.runs)).id
            body = body_of(run_id)
            for said in ("accepted\n", "repeated\n"):
                posted = await service.client.post(
                    "/webhooks", content=body, headers=headers_of(body)
                )
                assert (posted.status_code, posted.text) == (200, said)
            await anyio.sleep(0.5)
            told = (await service.client.get(f"/runs/{name}")).json()
            assert (told["state"], told["run_id"]) == ("completed", run_id)
            forged = headers_of(body, key=b"wrong")
            posted = await service.client.post("/webhooks", content=body, headers=forged)
            assert posted.status_code == 403
            assert (await service.client.get("/webhooks")).status_code == 405

    def test_no_secret(self, monkeypatch):
        """Without one it does not begin, and says why."""
        monkeypatch.delenv("OPENAI_WEBHOOK_SECRET", raising=False)
        with pytest.raises(WebhooksOff):
            loaded("service").create_app()

    @pytest.mark.real_time
    async def test_webhooks_from_a_queue(self, sqs, monkeypatch):
        """With the address of a queue, events are taken from there as well."""
        monkeypatch.setenv("QUEUE_URL", sqs.url)
        loaded("lambda_handler").handler(rest_event(body_of(), headers_of(body_of())), None)
        service = Service()
        async with service.open():
            with anyio.fail_after(30):
                while not service.orchestrator.webhooks.counts["accepted"]:
                    await checkpoint()

    async def test_the_end_of_the_service_ends_its_runs(self):
        """What nobody can ask for any more is cancelled on the server."""
        service = Service()
        async with service.open():
            await service.client.post("/runs", json={"prompt": "Name a river."})
            await anyio.sleep(0.5)
        assert service.orchestrator.totals.outcomes == {"cancelled": 1}
