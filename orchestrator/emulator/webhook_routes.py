"""The API of webhook endpoints: create, retrieve, update, list, delete, rotate the secret, test."""

from collections.abc import Sequence
from math import inf
from typing import Any

import msgspec

from orchestrator.emulator import batches, responses
from orchestrator.emulator.calls import Reply, json_reply
from orchestrator.emulator.pages import page_of
from orchestrator.emulator.refusals import (
    Refusal,
    refuse_invalid,
    refuse_missing,
    refuse_not_found,
)
from orchestrator.emulator.session_life import Sessions
from orchestrator.emulator.session_story import settle, watch_steps
from orchestrator.emulator.state import Route, State, Visit
from orchestrator.emulator.webhook_endpoint import (
    EVENT_TYPES,
    HINT_LETTERS,
    Endpoint,
    problem_with_url,
    secret_for,
)
from orchestrator.emulator.webhooks import Sending

# A delivery is given up after 5 s; a test that nobody carries out has to end as well.
TEST_SECONDS_MAX = 10.0

# What a sample is about, by the first word of its type.
SAMPLE_PREFIXES = {"response": "resp_", "batch": "batch_", "agent": "session_"}


class EndpointRequest(msgspec.Struct):
    """The body of a create or update call."""

    event_types: list[str] | None = None
    name: str | None = None
    url: str | None = None


class RotateRequest(msgspec.Struct):
    """The body of .../rotate_secret."""

    keep_old_secret_active_for_24_hours: bool | None = None


class SampleRequest(msgspec.Struct):
    """The body of .../test."""

    event_type: str | None = None


class SampleAnswer:
    """What a test call is answered: what the endpoint said to the sample."""

    def __init__(self, endpoint: Endpoint, sending: Sending, now: float) -> None:
        self._endpoint = endpoint
        self._sending = sending
        self._until = now + TEST_SECONDS_MAX

    def take(self, now: float) -> Reply | None:
        """The answer, as soon as the sample was delivered or could not be."""
        sending = self._sending
        if sending.over and sending.status is not None:
            return json_reply(
                {
                    "object": "webhook_endpoint.test",
                    "webhook_endpoint_id": self._endpoint.id,
                    "event_type": sending.type,
                    "status_code": sending.status,
                    "success": True,
                }
            )
        if sending.over or now >= self._until:
            # Which words OpenAI has for this is not known; success is "always true".
            message = "The test event could not be delivered: the endpoint gave no answer."
            return Refusal(400, message, code="webhook_delivery_failed").reply()
        return None

    def next_at(self) -> float:
        """When it is given up."""
        return self._until


def create(state: State, visit: Visit) -> Reply:
    """POST /webhook_endpoints; the secret is told here and never again."""
    request = visit.read(EndpointRequest)
    for name in ("name", "url", "event_types"):
        if not getattr(request, name):
            refuse_missing(name)
    _check(request)
    state.admit_control(visit)
    endpoint_id = state.new_id("we_", visit.key)
    endpoint = Endpoint(
        id=endpoint_id,
        name=request.name or "",
        url=request.url or "",
        event_types=tuple(request.event_types or ()),
        created_at=visit.now,
        updated_at=visit.now,
        secrets=[(secret_for(state.settings.seed, endpoint_id, 0), inf)],
    )
    others = bool(state.webhooks.endpoints)
    if not others:
        # What happened before is told to nobody.
        for session in state.memory(Sessions).by_id.values():
            settle(state, session, visit.now)
    state.webhooks.endpoints[endpoint_id] = endpoint
    if not others:
        _watch_all(state, visit.now)
    return json_reply({**_shown(state, endpoint), "signing_secret": endpoint.secrets[0][0]})


def retrieve(state: State, visit: Visit) -> Reply:
    """GET /webhook_endpoints/{id}."""
    state.admit_control(visit)
    return json_reply(_shown(state, _find(state, visit)))


def update(state: State, visit: Visit) -> Reply:
    """POST /webhook_endpoints/{id}; what is left out stays."""
    request = visit.read(EndpointRequest)
    _check(request)
    state.admit_control(visit)
    endpoint = _find(state, visit)
    before = (endpoint.name, endpoint.url, endpoint.event_types)
    endpoint.name = request.name or endpoint.name
    endpoint.url = request.url or endpoint.url
    endpoint.event_types = tuple(request.event_types or endpoint.event_types)
    if before != (endpoint.name, endpoint.url, endpoint.event_types):
        endpoint.updated_at = visit.now
    return json_reply(_shown(state, endpoint))


def delete(state: State, visit: Visit) -> Reply:
    """DELETE /webhook_endpoints/{id}; what is on its way to it is dropped."""
    state.admit_control(visit)
    endpoint = _find(state, visit)
    del state.webhooks.endpoints[endpoint.id]
    if not state.webhooks.endpoints:
        state.watched.clear()
    return json_reply({"id": endpoint.id, "object": "webhook_endpoint.deleted", "deleted": True})


def list_endpoints(state: State, visit: Visit) -> Reply:
    """GET /webhook_endpoints, newest first."""
    state.admit_control(visit)
    page, has_more = page_of(visit.call, list(reversed(state.webhooks.endpoints.values())))
    listed = {
        "object": "list",
        "data": [_shown(state, endpoint) for endpoint in page],
        "first_id": page[0].id if page else None,
        "last_id": page[-1].id if page else None,
        "has_more": has_more,
    }
    return json_reply(listed)


def rotate(state: State, visit: Visit) -> Reply:
    """POST /webhook_endpoints/{id}/rotate_secret."""
    request = visit.read(RotateRequest) if visit.call.body else RotateRequest()
    state.admit_control(visit)
    endpoint = _find(state, visit)
    secret = secret_for(state.settings.seed, endpoint.id, endpoint.rotations + 1)
    keep_old = bool(request.keep_old_secret_active_for_24_hours)
    endpoint.rotate(secret, visit.now, keep_old=keep_old)
    return json_reply({**_shown(state, endpoint), "signing_secret": secret})


def send_sample(state: State, visit: Visit) -> Reply:
    """POST /webhook_endpoints/{id}/test; answered when the endpoint has answered."""
    request = visit.read(SampleRequest)
    if request.event_type is None:
        refuse_missing("event_type")
    _check_types([request.event_type], "event_type")
    state.admit_control(visit)
    endpoint = _find(state, visit)
    prefix = SAMPLE_PREFIXES.get(request.event_type.partition(".")[0], "sample_")
    sample_id = state.new_id(prefix, "sample", visit.key)
    sending = state.webhooks.test(endpoint, request.event_type, sample_id, visit.now)
    return Reply(200, later=SampleAnswer(endpoint, sending, visit.now))


def list_event_types(state: State, visit: Visit) -> Reply:
    """GET /webhook_event_types."""
    state.admit_control(visit)
    return json_reply({"object": "list", "data": list(EVENT_TYPES)})


ROUTES = (
    Route("POST", "/webhook_endpoints", create),
    Route("GET", "/webhook_endpoints", list_endpoints),
    Route("GET", "/webhook_endpoints/{id}", retrieve),
    Route("POST", "/webhook_endpoints/{id}", update),
    Route("DELETE", "/webhook_endpoints/{id}", delete),
    Route("POST", "/webhook_endpoints/{id}/rotate_secret", rotate),
    Route("POST", "/webhook_endpoints/{id}/test", send_sample),
    Route("GET", "/webhook_event_types", list_event_types),
)


def _watch_all(state: State, now: float) -> None:
    """Watch what was created before anybody wanted to be told of it."""
    for run in state.runs:
        if isinstance(run, responses.ResponseRun) and not run.is_over(now):
            responses.watch_end(state, run)
    for batch in state.batches.unfinished(now):
        batches.watch_end(state, batch)
    for session in state.memory(Sessions).by_id.values():
        watch_steps(state, session)


def _check(request: EndpointRequest) -> None:
    if request.url is not None and (problem := problem_with_url(request.url)):
        refuse_invalid(f"Invalid 'url': {problem}.", param="url", code="invalid_value")
    _check_types(request.event_types or (), "event_types")


def _check_types(given: Sequence[str], param: str) -> None:
    for name in given:
        if name not in EVENT_TYPES:
            message = f"Invalid value: '{name}'. Supported values are: {', '.join(EVENT_TYPES)}."
            refuse_invalid(message, param=param, code="invalid_value")


def _find(state: State, visit: Visit) -> Endpoint:
    endpoint_id = visit.ids[0]
    visit.run_id = None  # the id in the path is no run's
    endpoint = state.webhooks.endpoints.get(endpoint_id)
    if endpoint is None:
        refuse_not_found(f"No webhook endpoint found with id '{endpoint_id}'.", code="not_found")
    return endpoint


def _shown(state: State, endpoint: Endpoint) -> dict[str, Any]:
    return {
        "id": endpoint.id,
        "object": "webhook_endpoint",
        "created_at": int(state.unix(endpoint.created_at)),
        "updated_at": int(state.unix(endpoint.updated_at)),
        "event_types": list(endpoint.event_types),
        "name": endpoint.name,
        "url": endpoint.url,
        "signing_secret_hint": "whsec_..." + endpoint.secrets[0][0][-HINT_LETTERS:],
    }
