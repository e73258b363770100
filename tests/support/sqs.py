"""A pretend SQS over HTTP, and a way to take events from a queue for as long as a test needs."""

import logging
import uuid
from dataclasses import dataclass
from functools import cache
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from orchestrator.adapters.webhook.queue import make_sqs_client


@dataclass
class PretendSqs:
    """A client, and the address of a queue."""

    client: Any
    url: str

    def left(self):
        """What is in the queue."""
        answer = self.client.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10)
        return [message["Body"] for message in answer.get("Messages", ())]


@cache
def server_address():
    """One server for all tests, in a thread that ends with the process."""
    from moto.server import ThreadedMotoServer  # noqa: PLC0415 - takes a second

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    return f"http://{host}:{port}"


def pretend_sqs(monkeypatch):
    """For a fixture: an empty queue, which whoever makes a client from the environment gets."""
    given = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_ENDPOINT_URL": server_address(),
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    client = make_sqs_client("any")
    name = f"webhooks-{uuid.uuid4()}"
    made = client.create_queue(QueueName=name, Attributes={"VisibilityTimeout": "0"})
    yield PretendSqs(client, made["QueueUrl"])
    client.close()


async def run_until(queue, done):
    """Take events until this is so."""
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(queue.run)
            while not done():
                await checkpoint()
            tasks.cancel_scope.cancel()
