"""The pretend OpenAI itself: one call in, one reply out, time given as an argument.

There is no clock, no chance and no waiting in here. Each API family has a file that registers its
routes; what holds for all of them (keys, limits, faults, books) is in state.py.
"""

from dataclasses import replace
from itertools import chain
from math import inf
from typing import NoReturn

from orchestrator.emulator import (
    assistants,
    at_once,
    batches,
    chat,
    files,
    models,
    responses,
    session_events,
    sessions,
    threads,
    webhook_routes,
)
from orchestrator.emulator.books import Books, Record
from orchestrator.emulator.calls import Call, Reply, json_reply, plain_path
from orchestrator.emulator.chance import digest
from orchestrator.emulator.deviant_replies import deviant_refusal, deviant_reply, lacking_routes
from orchestrator.emulator.faults import Fault
from orchestrator.emulator.refusals import Refusal, refuse_invalid, refuse_not_found
from orchestrator.emulator.settings import Settings
from orchestrator.emulator.state import Route, State, Visit
from orchestrator.emulator.webhooks import Delivery

OWN_PAGES = "emulator"
SHOWN_DEFAULT = 1000  # calls or creates on a page
SHOWN_MAX = 100_000

# How long after the webhook about its run a create's answer comes that waits for it.
EARLY_SECONDS = 0.2

HTTP_REFUSED = 400  # and above

FAMILIES = (
    responses,
    assistants,
    threads,
    sessions,
    session_events,
    chat,
    at_once,
    files,
    batches,
    models,
    webhook_routes,
)


class Emulator:
    """A pretend OpenAI: `handle` serves a call; the books tell what it did.

    Whoever carries its webhooks asks for `deliveries`.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._state = State(settings or Settings())
        self._sequence = 0
        self._places: dict[tuple[str, ...], dict[str, Route]] = {}
        self._patterns: dict[tuple[str, int], list[tuple[str, ...]]] = {}
        lacking = lacking_routes(self._state.deviations)
        for route in chain.from_iterable(family.ROUTES for family in FAMILIES):
            place = tuple(route.path.strip("/").split("/"))
            if place not in self._places and any(_is_id(segment) for segment in place):
                self._patterns.setdefault((place[0], len(place)), []).append(place)
            routes = self._places.setdefault(place, {})
            if route.name not in lacking:
                routes[route.method] = route

    @property
    def settings(self) -> Settings:
        """What it was made with."""
        return self._state.settings

    @property
    def books(self) -> Books:
        """What it has served."""
        return self._state.books

    def handle(self, call: Call, now: float) -> Reply:
        """Serve one call that arrives `now`, in seconds that never run backwards."""
        self._state.watched.advance(now)
        segments = plain_path(call.path)
        if segments[:1] == (OWN_PAGES,):
            return self._own_page(call, segments[1:], now)
        routes, ids = self._find(segments)
        route = routes.get(call.method)
        name, run_id = route.name if route else "unknown", ids[-1] if ids else None
        visit = self._state.receive(call, name, run_id, now, ids)
        self._sequence += 1
        if Fault.DROP_BEFORE in visit.faults:
            self._state.play(visit, Fault.DROP_BEFORE)
            return self._record(visit, Reply(0, drop=True))
        try:
            self._state.check_key(call)
            if route is None:
                _refuse_place(call, known=bool(routes))
            reply = route.handler(self._state, visit)
        except Refusal as refusal:
            reply = deviant_refusal(refusal, self._state.deviations).reply()
            worked = False
        else:
            worked = True
            if call.method == "GET":
                for named in ids:
                    self.books.creates.looked_at(named)
        reply = deviant_reply(visit, reply, self._state.deviations, self.settings.seed)
        return self._record(visit, self._spoilt(visit, reply, worked=worked))

    def deliveries(self, now: float, count_max: int | None = None) -> list[Delivery]:
        """The webhooks that are to be sent by now; tell `delivered` what comes of each."""
        self._state.watched.advance(now)
        return self._state.webhooks.deliveries(now, count_max)

    def next_delivery_at(self) -> float | None:
        """When to ask for deliveries again, unless a call comes first; None for only then.

        It may be too early, as not every end is known beforehand, but never too late; batches are
        looked at ten times a second.
        """
        at = min(self._state.watched.next_at(), self._state.webhooks.next_at())
        return None if at == inf else at

    def delivered(self, delivery: Delivery, status: int | None, now: float) -> None:
        """Note what a webhook was answered; None for no answer. It may be sent again later."""
        self._state.webhooks.delivered(delivery, status, now)

    def _find(self, segments: tuple[str, ...]) -> tuple[dict[str, Route], tuple[str, ...]]:
        """The routes at this place by method, and the ids in the path."""
        if segments in self._places:
            return self._places[segments], ()
        for pattern in self._patterns.get((segments[0] if segments else "", len(segments)), ()):
            pairs = list(zip(pattern, segments, strict=True))
            ids = tuple(given for named, given in pairs if _is_id(named))
            if all(named == given or _is_id(named) for named, given in pairs):
                return self._places[pattern], ids
        return {}, ()

    def _spoilt(self, visit: Visit, reply: Reply, *, worked: bool) -> Reply:
        """The reply after the faults that strike when the work is done."""
        if Fault.SLOW in visit.faults:
            self._state.play(visit, Fault.SLOW)
            slow = self._state.settings.slow_seconds
            reply = replace(reply, delay_seconds=reply.delay_seconds + slow)
        if worked and Fault.WEBHOOK_EARLY in visit.faults:
            reply = self._after_webhook(visit, reply)
        if worked and Fault.DROP_AFTER in visit.faults:
            self._state.play(visit, Fault.DROP_AFTER)
            if reply.feed is not None:
                reply.feed.close()
            return replace(reply, drop=True, feed=None, later=None)
        if worked and Fault.MALFORMED in visit.faults:
            self._state.play(visit, Fault.MALFORMED)
            return replace(reply, body=reply.body[: len(reply.body) // 2])
        return reply

    def _after_webhook(self, visit: Visit, reply: Reply) -> Reply:
        """The reply to a create after the webhook about its run, where that comes soon enough."""
        at = self._state.watched.at(visit.run_id or "") if visit.created is not None else inf
        seconds = at + EARLY_SECONDS - visit.now
        if not reply.delay_seconds < seconds <= self.settings.slow_seconds:
            return reply
        self._state.play(visit, Fault.WEBHOOK_EARLY)
        return replace(reply, delay_seconds=seconds)

    def _record(self, visit: Visit, reply: Reply) -> Reply:
        """Write the call into the books and give its reply the headers that every reply has."""
        request_id = "req_" + digest(self.settings.seed, "request", self._sequence)
        status = str(reply.status)
        if reply.drop:
            status = "dropped_before" if Fault.DROP_BEFORE in visit.played else "dropped_after"
        self.books.write(
            Record(
                sequence=self._sequence,
                at_seconds=visit.now,
                route=visit.route,
                status=status,
                model=visit.model,
                run_id=visit.run_id,
                client_request_id=visit.call.headers.get("x-client-request-id"),
                request_id=request_id,
                fault=",".join(visit.played) or None,
                metadata=visit.metadata,
                body_digest=visit.body_digest or None,
            )
        )
        # An answer that is cut or says something else does not tell of what was created.
        is_whole = reply.status < HTTP_REFUSED and Fault.MALFORMED not in visit.played
        headers = {
            **reply.headers,
            **visit.headers,
            "x-request-id": request_id,
            "openai-processing-ms": str(round(reply.delay_seconds * 1000) or 1),
            "openai-version": "2020-10-01",
            "openai-organization": "org-emulator",
        }
        return replace(reply, headers=headers, created=visit.created if is_whole else None)

    def _own_page(self, call: Call, page: tuple[str, ...], now: float) -> Reply:
        """The emulator's own pages: free of keys, limits, faults and books."""
        try:
            if call.method != "GET":
                _refuse_place(call, known=True)
            if page == ("health",):
                return json_reply({"status": "ok"})
            if page == ("books",):
                return json_reply(self.books.snapshot(now))
            after = _whole(call, "after", 0)
            limit = min(_whole(call, "limit", SHOWN_DEFAULT), SHOWN_MAX)
            if page == ("creates",):
                return json_reply({"creates": self.books.creates.page(after, limit)})
            if page == ("webhooks",):
                webhooks = self.books.webhooks
                some = webhooks.page(after, limit, call.query.get("run_id", ""))
                return json_reply({"counts": webhooks.summary(), "webhooks": some})
            if page == ("calls",):
                records = self.books.calls(after, limit)
                return json_reply({"calls": [record._asdict() for record in records]})
            _refuse_place(call, known=False)
        except Refusal as refusal:
            return refusal.reply()


def _is_id(segment: str) -> bool:
    return segment.startswith("{")


def _refuse_place(call: Call, *, known: bool) -> NoReturn:
    if known:
        message = f"Not allowed to {call.method} on {call.path}."
        raise Refusal(405, message, code="method_not_allowed")
    refuse_not_found(f"Invalid URL ({call.method} {call.path})", code="unknown_url")


def _whole(call: Call, name: str, default: int) -> int:
    given = call.query.get(name, "")
    if not given:
        return default
    if not (given.isascii() and given.isdecimal()):
        refuse_invalid(f"{name} must be a whole number, got {given!r}.", param=name)
    return int(given)
