"""Webhooks on their way: what happened, whom it is told, when, how often, and what goes wrong.

Nothing here knows a clock or a socket. `happened` notes an event, `deliveries` gives what is to be
sent by now, and `delivered` is told what came of it.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from heapq import heappop, heappush
from itertools import islice
from math import inf
from typing import Any

import msgspec

from orchestrator.emulator.chance import digest, draw
from orchestrator.emulator.deviations import Deviation
from orchestrator.emulator.faults import Fault, Faults
from orchestrator.emulator.settings import Settings
from orchestrator.emulator.webhook_endpoint import EVENT_TYPES, Endpoint, signature

# "retried with exponential backoff for up to 72 hours"; the gaps are not told. Each is twice the
# one before.
RETRIED_SECONDS_MAX = 72 * 3600.0
ATTEMPTS_MAX = 20

# How long after the event that overtook it one arrives, and how old a replayed one is: clients
# take what is up to 300 s old.
OVERTAKEN_SECONDS = 0.05
REPLAYED_AGE_SECONDS = 3600

# Of the forged ones this share is an old one sent again; the others have a wrong signature.
REPLAYED_SHARE = 0.5

# As OpenAI signs its posts.
USER_AGENT = "OpenAI/1.0 (+https://platform.openai.com/docs/webhooks)"

# No client knows it, and it is about no run that anybody made.
UNKNOWN_TYPE = "weather.changed"


class Way(StrEnum):
    """What a delivery is; all but the true one are extras that are not tried again."""

    TRUE = "true"
    DOUBLED = "doubled"
    FORGED = "forged"  # with a signature that only looks like one
    REPLAYED = "replayed"  # signed rightly, long ago


@dataclass(slots=True, kw_only=True)
class Sending:
    """One event on its way to one endpoint; times in seconds, inf for not (yet).

    `status` is what the last attempt was answered, None for nothing. It is `over` when it was
    answered with 2xx, lost or given up. `extras` counts what was sent beside it, by what it was
    and whether it was answered with 2xx, which a forged one never should be.
    """

    number: int
    endpoint_id: str
    webhook_id: str
    type: str
    run_id: str
    happened_at: float
    due_at: float
    body: bytes
    attempts: int = 0
    status: int | None = None
    answered_at: float = inf
    lost: bool = False
    over: bool = False
    tells_only: bool = False
    faults: tuple[Fault, ...] = ()
    extras: Counter[str] = field(default_factory=Counter)

    def summary(self) -> dict[str, Any]:
        """All of it as one JSON-ready value."""
        return {
            "number": self.number,
            "endpoint_id": self.endpoint_id,
            "webhook_id": self.webhook_id,
            "type": self.type,
            "run_id": self.run_id,
            "happened_at_seconds": self.happened_at,
            "attempts": self.attempts,
            "status": self.status,
            "answered_at_seconds": None if self.answered_at == inf else self.answered_at,
            "lost": self.lost,
            "over": self.over,
            "faults": list(self.faults),
            "extras": dict(self.extras),
        }


@dataclass(frozen=True, slots=True)
class Delivery:
    """One POST that is to be sent now. `attempt` counts from 1."""

    url: str
    headers: Mapping[str, str]
    body: bytes
    webhook_id: str
    attempt: int
    number: int
    way: Way


class Webhooks:
    """All endpoints, and everything that is on its way to them."""

    def __init__(
        self, settings: Settings, faults: Faults, deviations: Collection[Deviation] = ()
    ) -> None:
        self._settings = settings
        self._faults = faults
        self._deviations = deviations
        self.endpoints: dict[str, Endpoint] = {}
        self.counts: Counter[str] = Counter()
        self.played: Counter[str] = Counter()
        self._sendings: list[Sending] = []
        self._heap: list[tuple[float, int, Sending, Way]] = []
        self._tickets = 0
        self._held: dict[str, list[Sending]] = {}
        if settings.webhook_url is not None:
            endpoint_id = "we_" + digest(settings.seed, "endpoint")
            secrets = [(settings.webhook_secret or "", inf)]
            self.endpoints[endpoint_id] = Endpoint(
                endpoint_id, "given at start", settings.webhook_url, EVENT_TYPES, 0.0, 0.0, secrets
            )

    def happened(
        self,
        kind: str,
        run_id: str,
        at: float,
        data: Mapping[str, Any] | None = None,
        *,
        key: str = "",
    ) -> None:
        """Tell every endpoint that wants to hear of it.

        `data` is what the event says beside the run's id; `key` tells apart what happens to a run
        at the same time.
        """
        event_id = "evt_" + digest(self._settings.seed, "event", kind, run_id, at, key)
        body = self._body(event_id, kind, at, {"id": run_id, **(data or {})})
        for endpoint in self.endpoints.values():
            if kind in endpoint.event_types:
                self._trouble(self._add(endpoint, event_id, kind, run_id, at, body))
            if Deviation.WEBHOOKS_UNKNOWN_TYPE in self._deviations:
                other_id = "evt_" + digest(event_id, UNKNOWN_TYPE)
                other = self._body(other_id, UNKNOWN_TYPE, at, {"id": run_id})
                self._push(self._add(endpoint, other_id, UNKNOWN_TYPE, run_id, at, other))

    def test(self, endpoint: Endpoint, kind: str, run_id: str, now: float) -> Sending:
        """Send a sample of this type, whether it is subscribed or not: once, without faults."""
        event_id = "evt_" + digest(self._settings.seed, "test", kind, run_id)
        body = self._body(event_id, kind, now, {"id": run_id})
        sending = self._add(endpoint, event_id, kind, run_id, now, body)
        sending.tells_only = True
        self._push(sending)
        return sending

    def next_at(self) -> float:
        """When something is to be sent; inf for never."""
        while self._heap and self._is_stale(self._heap[0]):
            heappop(self._heap)
        return self._heap[0][0] if self._heap else inf

    def deliveries(self, now: float, count_max: int | None = None) -> list[Delivery]:
        """What is to be sent by now, in its order; each once."""
        found: list[Delivery] = []
        while (count_max is None or len(found) < count_max) and self.next_at() <= now:
            due_at, _, sending, way = heappop(self._heap)
            endpoint = self.endpoints[sending.endpoint_id]
            if self._is_outage(due_at):
                if way is Way.TRUE:
                    self._lose(sending)
                continue
            self.counts["sent"] += 1
            if way is Way.TRUE:
                sending.attempts += 1
                sending.due_at = inf
                self._let_go_of_held(endpoint, sending, due_at)
            found.append(self._delivery(endpoint, sending, way, now))
        return found

    def delivered(self, delivery: Delivery, status: int | None, now: float) -> None:
        """Note what a delivery was answered, None for nothing; it is tried again where that helps.

        Only 2xx is an answer. The gaps grow up to the end, 72 hours after the event.
        """
        worked = status is not None and 200 <= status <= 299  # noqa: PLR2004 - HTTP
        sending = self._sendings[delivery.number - 1]
        if delivery.way is not Way.TRUE:
            name = f"{delivery.way}_{'accepted' if worked else 'refused'}"
            self.counts[name] += 1
            sending.extras[name] += 1
            return
        sending.status = status
        name = "answered" if worked else "unanswered" if status is None else "refused"
        self.counts[name] += 1
        if worked:
            sending.answered_at = now
            sending.over = True
            if not sending.faults:  # or it may be sent once more
                sending.body = b""
            return
        gap = self._settings.webhook_retry_seconds * 2.0 ** (sending.attempts - 1)
        too_late = now + gap > sending.happened_at + RETRIED_SECONDS_MAX
        is_last = sending.tells_only or too_late or sending.attempts >= ATTEMPTS_MAX
        if is_last or sending.endpoint_id not in self.endpoints:
            self.counts["given_up"] += 1
            sending.over = True
            return
        self.counts["retried"] += 1
        sending.due_at = now + gap
        self._push(sending)

    def page(self, after: int, limit: int, run_id: str = "") -> list[dict[str, Any]]:
        """Events to endpoints in order, from the one that follows number `after`.

        With `run_id`, only those about this run.
        """
        rest = islice(self._sendings, after, None)
        some = (sending for sending in rest if run_id in {"", sending.run_id})
        return [sending.summary() for sending in islice(some, limit)]

    def summary(self) -> dict[str, Any]:
        """How many of what there were."""
        return {"events": len(self._sendings), **self.counts}

    def _add(
        self, endpoint: Endpoint, event_id: str, kind: str, run_id: str, at: float, body: bytes
    ) -> Sending:
        sending = Sending(
            number=len(self._sendings) + 1,
            endpoint_id=endpoint.id,
            webhook_id="wh_" + digest(event_id, endpoint.id),
            type=kind,
            run_id=run_id,
            happened_at=at,
            due_at=at,
            body=body,
        )
        self._sendings.append(sending)
        return sending

    def _body(self, event_id: str, kind: str, at: float, data: Mapping[str, Any]) -> bytes:
        created_at = int(self._settings.epoch + at)
        event = {"id": event_id, "object": "event", "created_at": created_at, "type": kind}
        return msgspec.json.encode({**event, "data": data})

    def _trouble(self, sending: Sending) -> None:
        """Plan the event's way with the faults that it meets."""
        met = self._faults.of_webhook(sending.webhook_id)
        sending.faults = tuple(sorted(met))
        for fault in sending.faults:
            self.played[fault.value] += 1
        if Fault.WEBHOOK_FORGED in met:
            chance = draw(self._settings.seed, "replayed", sending.webhook_id)
            self._push(sending, Way.REPLAYED if chance < REPLAYED_SHARE else Way.FORGED)
        if Fault.WEBHOOK_LOST in met:
            self._lose(sending)
            return
        if Fault.WEBHOOK_LATE in met:
            sending.due_at += self._settings.webhook_late_seconds
        elif Fault.WEBHOOK_OVERTAKEN in met:
            sending.due_at += self._settings.webhook_late_seconds
            self._held.setdefault(sending.endpoint_id, []).append(sending)
        self._push(sending)
        if Fault.WEBHOOK_DOUBLED in met:
            self._push(sending, Way.DOUBLED)

    def _push(self, sending: Sending, way: Way = Way.TRUE) -> None:
        self._tickets += 1
        heappush(self._heap, (sending.due_at, self._tickets, sending, way))

    def _is_stale(self, entry: tuple[float, int, Sending, Way]) -> bool:
        due_at, _, sending, way = entry
        if sending.endpoint_id not in self.endpoints:
            return True
        return way is Way.TRUE and (sending.over or sending.due_at != due_at)

    def _let_go_of_held(self, endpoint: Endpoint, sent: Sending, due_at: float) -> None:
        """Those that this one has overtaken follow it."""
        held = self._held.get(endpoint.id)
        if not held or sent.attempts > 1:
            return
        del self._held[endpoint.id]
        for sending in held:
            if sending is not sent and sending.attempts == 0:
                sending.due_at = min(sending.due_at, due_at + OVERTAKEN_SECONDS)
                self._push(sending)

    def _is_outage(self, at: float) -> bool:
        begins = self._settings.webhook_outage_from_seconds
        ends = self._settings.webhook_outage_until_seconds
        return begins is not None and begins <= at and (ends is None or at < ends)

    def _lose(self, sending: Sending) -> None:
        sending.lost = True
        sending.over = True
        self.counts["lost"] += 1

    def _delivery(self, endpoint: Endpoint, sending: Sending, way: Way, now: float) -> Delivery:
        age = REPLAYED_AGE_SECONDS if way is Way.REPLAYED else 0
        timestamp = str(int(self._settings.epoch + now) - age)
        body, webhook_id = sending.body, sending.webhook_id
        secrets = endpoint.valid_secrets(now)
        if way is Way.FORGED:
            secrets = [digest(self._settings.seed, "not the secret", endpoint.id)]
        signatures = [signature(secret, webhook_id, timestamp, body) for secret in secrets]
        if Deviation.WEBHOOKS_V1A_FIRST in self._deviations:
            # An asymmetric signature of another version; who knows only v1 passes it over.
            other = signature(webhook_id, webhook_id, timestamp, body)
            signatures.insert(0, "v1a" + other.removeprefix("v1"))
        headers = {
            "webhook-id": webhook_id,
            "webhook-timestamp": timestamp,
            "webhook-signature": " ".join(signatures),
            "content-type": "application/json",
            "user-agent": USER_AGENT,
        }
        if Deviation.WEBHOOKS_TITLE_CASE in self._deviations:
            headers = {name.title(): value for name, value in headers.items()}
        return Delivery(
            endpoint.url, headers, body, webhook_id, max(1, sending.attempts), sending.number, way
        )
