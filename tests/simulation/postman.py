"""Carries the server's webhooks to the process that lives, in its own time, and judges the answers.

It calls the application that a process serves, as a web server would. A process that is not there,
or dies before its answer is out, has not answered: the server sends the webhook again later.
"""

import asyncio
import json
from collections import Counter
from contextlib import asynccontextmanager
from typing import NamedTuple

from simulation.canaries import patched
from support.webhooks import call

from orchestrator.adapters.webhook import Verdict
from orchestrator.adapters.webhook.receiver import KNOWN_TYPES
from orchestrator.apis.webhook_signature import TOLERANCE_SECONDS
from orchestrator.emulator.webhooks import Way
from orchestrator.execution import running

HEARD = "SELECT webhook_id FROM webhooks"


class Heard(NamedTuple):
    """A webhook that a process accepted."""

    process: int
    at: float
    number: int  # of the event, in the server's books


class Postman:
    """Asks the server for what is to be sent, whenever there may be something.

    Args:
        witness: Who is told when a webhook was not judged as it should be.
        latency_seconds: Of the network, one way.
    """

    def __init__(self, witness, latency_seconds):
        self._witness = witness
        self._emulator = witness.emulator
        self._machine = witness.machine
        self.latency_seconds = latency_seconds
        self._app = None
        self._timer = None
        self._under_way = {}
        self._known = set()  # ids that the process must know
        self._committed = set()  # ids
        self._accepted = set()  # ids, by the process that lives
        self.process = 0
        self.heard = []
        self.verdicts = Counter()

    def at_work(self):
        """Take the place of the web server, for processes that are started in this block."""
        return patched((running, "serve_webhooks", self._serve))

    @asynccontextmanager
    async def _serve(self, app, host, port):
        self._app = app
        self._known = {row[0] for row in self._witness.look().rows(HEARD)}
        notices = self._witness.notices
        found = {name for name in notices.answered_at if self._witness.knows(name)}
        notices.in_journal[self.process] = found
        forgotten = self._committed - self._known
        if forgotten:
            self._witness.complain(f"webhooks that were heard are forgotten: {forgotten}")
        self.look()
        try:
            yield f"http://{host}:{port}/"
        finally:
            self._app = None

    def begin(self):
        """A process starts; what was to be sent meanwhile was not answered."""
        self.process += 1
        self._accepted = set()
        while (at := self._emulator.next_delivery_at()) is not None and at <= self._machine.now():
            for delivery in self._emulator.deliveries(at):
                self._emulator.delivered(delivery, None, at)

    def end(self, *, is_well):
        """It has ended; is_well says that it had time to commit everything."""
        self._app = self._timer = None
        for delivery in self._under_way.values():
            self._emulator.delivered(delivery, None, self._machine.now())
        self._under_way.clear()
        if is_well:
            self.committed(self._accepted)

    def accepted(self):
        """The ids that the process that lives has accepted so far."""
        return self._accepted.copy()

    def committed(self, webhook_ids):
        """These are in the journal now."""
        self._committed |= webhook_ids

    def look(self):
        """Something happened on the server: see when there is something to be sent."""
        if self._app is None or not self._machine.lives:
            return
        at = self._emulator.next_delivery_at()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if at is not None:
            seconds = max(0.0, at - self._machine.now())
            self._timer = asyncio.get_running_loop().call_later(seconds, self._carry)

    def _carry(self):
        self._timer = None
        for delivery in self._emulator.deliveries(self._machine.now()):
            task = asyncio.get_running_loop().create_task(self._post(delivery))
            self._under_way[task] = delivery
        self.look()

    async def _post(self, delivery):
        await asyncio.sleep(self.latency_seconds)
        status = None
        if self._app is not None:
            status = await self._answer(delivery)
            self._machine.webhook_arrived()
            await asyncio.sleep(self.latency_seconds)
        del self._under_way[asyncio.current_task()]
        self._emulator.delivered(delivery, status, self._machine.now())
        self.look()

    async def _answer(self, delivery):
        expected = self._expected(delivery)
        status, _, said = await call(self._app, delivery.body, delivery.headers.items())
        verdict = Verdict(said.decode().strip())
        self.verdicts[verdict] += 1
        if verdict is not expected:
            self._witness.complain(f"{delivery} is {verdict}, it should be {expected}")
        if verdict in {Verdict.ACCEPTED, Verdict.UNKNOWN_TYPE}:
            self._known.add(delivery.webhook_id)
            self._accepted.add(delivery.webhook_id)
            self.heard.append(Heard(self.process, self._machine.now(), delivery.number))
        return status

    def _expected(self, delivery):
        """How it should be judged, by what the server knows of it and the clock on the wall."""
        headers = {name.lower(): value for name, value in delivery.headers.items()}
        if delivery.way is Way.FORGED:
            return Verdict.FORGED
        age_seconds = int(self._machine.unix()) - int(headers["webhook-timestamp"])
        if abs(age_seconds) > TOLERANCE_SECONDS:
            return Verdict.STALE
        if delivery.webhook_id in self._known:
            return Verdict.REPEATED
        kind = json.loads(delivery.body)["type"]
        return Verdict.ACCEPTED if kind.startswith(KNOWN_TYPES) else Verdict.UNKNOWN_TYPE
