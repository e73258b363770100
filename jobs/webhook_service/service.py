"""A web service that starts runs, answers at once, and is told by webhooks when they end.

    pip install fastapi uvicorn run-orchestrator
    export OPENAI_API_KEY=sk-... OPENAI_WEBHOOK_SECRET=whsec_...
    uvicorn --factory service:create_app

`POST /runs` begins a run, `GET /runs/{id}` tells how it stands, and `POST /webhooks` takes events.
With QUEUE_URL in the environment they are taken from that SQS queue as well (lambda_handler.py).
All runs share one engine, so they keep within its limits together: serve it by one process. What is
known here is lost with that; put it into your database instead. Who may call `/runs` is yours to
decide.
"""

import json
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
from anyio.abc import TaskGroup
from fastapi import FastAPI, HTTPException, Response
from pydantic import BaseModel, Field
from starlette.routing import Route

from orchestrator import Orchestrator, OrchestratorError, Result
from orchestrator.adapters.webhook import WebhookQueue

# Runs that are remembered, ended ones included; the oldest that have ended make room.
RUNS_MAX = 10_000


class NewRun(BaseModel):
    """What a caller gives."""

    prompt: str = Field(min_length=1, max_length=100_000)
    model: str = "gpt-5-mini"


@dataclass
class Record:
    """A run of this service; `told` is what a caller is told of it."""

    told: dict[str, Any]

    @property
    def has_ended(self) -> bool:
        return bool(self.told["state"] != "running")


class Runs:
    """The runs of this service and how they stand."""

    def __init__(self, orchestrator: Orchestrator, queue: WebhookQueue | None) -> None:
        self._orchestrator = orchestrator
        self._queue = queue
        self._records: dict[str, Record] = {}
        self._tasks: TaskGroup

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Take runs until the block is left."""
        async with self._orchestrator, anyio.create_task_group() as self._tasks:
            if self._queue is not None:
                self._tasks.start_soon(self._queue.run)
            yield
            # Nobody could ask for what is still at work: it is cancelled, on the server too.
            self._tasks.cancel_scope.cancel()

    def begin(self, new: NewRun) -> str | None:
        """Begin a run; its id, or None when there is no room for it."""
        if len(self._records) >= RUNS_MAX:
            ended = next((name for name, each in self._records.items() if each.has_ended), None)
            if ended is None:
                return None
            del self._records[ended]
        name = str(uuid.uuid4())
        self._records[name] = Record({"id": name, "state": "running"})
        self._tasks.start_soon(self._run, name, new)
        return name

    def told(self, name: str) -> dict[str, Any] | None:
        """What there is to tell of a run; None when it is not known, or not any more."""
        record = self._records.get(name)
        return None if record is None else record.told

    async def _run(self, name: str, new: NewRun) -> None:
        told = self._records[name].told
        try:
            result = await self._orchestrator.run({"prompt": new.prompt, "model": new.model})
        except OrchestratorError as error:  # it could not even be sent, and says why
            told |= {"state": "refused", "error": str(error)}
        else:
            told |= _told_of(result)


def _told_of(result: Result) -> dict[str, Any]:
    told: dict[str, Any] = {"state": str(result.outcome), "run_id": result.run_id}
    if result.answer is not None:
        told["answer"] = json.loads(result.answer.body)
    if result.error is not None:
        told["error"] = f"{result.error.code}: {result.error.message}"
    return told


def create_app(orchestrator: Orchestrator | None = None) -> FastAPI:
    """The service; without an orchestrator of yours (with `webhook_secrets`), one of its own."""
    secrets = os.environ.get("OPENAI_WEBHOOK_SECRET", "").split()
    engine = orchestrator or Orchestrator(webhook_secrets=secrets)
    url = os.environ.get("QUEUE_URL")
    runs = Runs(engine, WebhookQueue(engine.webhooks, url) if url else None)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with runs.open():
            yield

    app = FastAPI(lifespan=lifespan)
    # A Mount would redirect what has no slash at its end, which senders count as a failure.
    app.router.routes.append(Route("/webhooks", endpoint=engine.webhook_app))

    @app.post("/runs", status_code=202)
    async def begin(new: NewRun, response: Response) -> dict[str, str]:
        name = runs.begin(new)
        if name is None:
            raise HTTPException(503, "too many runs are at work; come again")
        response.headers["location"] = f"/runs/{name}"
        return {"id": name}

    @app.get("/runs/{name}")
    async def told(name: str) -> dict[str, Any]:
        found = runs.told(name)
        if found is None:
            raise HTTPException(404, "there is no such run")
        return found

    return app
