"""What servers with deviations do to a finished reply, whatever the call was about."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import msgspec

from orchestrator.emulator.calls import JSON_HEADERS, Reply, json_reply
from orchestrator.emulator.chance import draw
from orchestrator.emulator.deviations import Deviation
from orchestrator.emulator.refusals import Refusal
from orchestrator.emulator.state import Visit

# Seldom enough that asking again helps, often enough that a hundred checks meet it.
BROKEN_SHARE = 0.05

HTTP_OK = 200
HTTP_BAD_REQUEST = 400
HTTP_SERVER_ERROR = 500

# Routes that a server has not got.
LACKING: Mapping[Deviation, Collection[str]] = {
    Deviation.RESPONSES_NO_BACKGROUND: (
        "GET /v1/responses/{id}",
        "POST /v1/responses/{id}/cancel",
    ),
    Deviation.ASSISTANTS_NO_CREATE_AND_RUN: ("POST /v1/threads/runs",),
    Deviation.WEBHOOKS_NO_ENDPOINTS: (
        "POST /v1/webhook_endpoints",
        "GET /v1/webhook_endpoints",
        "GET /v1/webhook_endpoints/{id}",
        "POST /v1/webhook_endpoints/{id}",
        "DELETE /v1/webhook_endpoints/{id}",
        "POST /v1/webhook_endpoints/{id}/rotate_secret",
        "POST /v1/webhook_endpoints/{id}/test",
        "GET /v1/webhook_event_types",
    ),
}

# Where Assistants are spoken, and what is null there.
_ASSISTANTS_PLACES = ("/v1/assistants", "/v1/threads")
_NULLS = ("usage", "expires_at", "metadata")


def lacking_routes(deviations: Collection[Deviation]) -> frozenset[str]:
    """The names of the routes that a server with these deviations has not got."""
    return frozenset(name for one, names in LACKING.items() if one in deviations for name in names)


def deviant_refusal(refusal: Refusal, deviations: Collection[Deviation]) -> Refusal:
    """The refusal with the status that it has elsewhere."""
    if refusal.about_missing_run:
        if Deviation.ANY_MISSING_IS_500 in deviations:
            return replace(refusal, status=HTTP_SERVER_ERROR, type="server_error")
        if Deviation.ANY_MISSING_IS_400 in deviations:
            return replace(refusal, status=HTTP_BAD_REQUEST)
    return refusal


def deviant_reply(
    visit: Visit, reply: Reply, deviations: Collection[Deviation], seed: int
) -> Reply:
    """The reply as it comes from a server with these deviations."""
    if not deviations:
        return reply
    if reply.status >= HTTP_BAD_REQUEST:
        if Deviation.ANY_PLAIN_ERRORS in deviations:
            reply = _without_envelope(reply)
        resets = Deviation.ANY_RESET_AFTER_400 in deviations and reply.status == HTTP_BAD_REQUEST
        return replace(reply, reset=True) if resets else reply
    if reply.status != HTTP_OK or reply.headers != JSON_HEADERS:
        return reply
    _, place = visit.route.split(" ")
    if Deviation.ASSISTANTS_NULLS in deviations and place.startswith(_ASSISTANTS_PLACES):
        reply = replace(reply, body=_with_nulls(reply.body))
    if Deviation.ANY_BROKEN_JSON in deviations and visit.call.method == "GET":
        chance = draw(seed, Deviation.ANY_BROKEN_JSON, visit.key)
        if chance < BROKEN_SHARE:
            return replace(reply, body=reply.body[: len(reply.body) // 2])
    return reply


def _without_envelope(reply: Reply) -> Reply:
    message = msgspec.json.decode(reply.body)["error"]["message"]
    plain = json_reply({"detail": message})
    return replace(reply, body=plain.body)


def _with_nulls(body: bytes) -> bytes:
    """The object, or the objects of a list, with nulls."""
    value = msgspec.json.decode(body)
    things: list[dict[str, Any]] = value["data"] if value.get("object") == "list" else [value]
    for thing in things:
        thing.update({name: None for name in _NULLS if name in thing})
    return msgspec.json.encode(value)
