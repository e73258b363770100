"""GET /models: what there is to ask."""

from typing import Any

from orchestrator.emulator.calls import Reply, json_reply
from orchestrator.emulator.state import Route, State, Visit

# Shown where the settings name no models; every other name exists as well.
MODELS_SHOWN = ("emulator-small", "emulator-large")


def list_models(state: State, visit: Visit) -> Reply:
    """GET /models."""
    names = MODELS_SHOWN if state.settings.models is None else state.settings.models
    models = [_model(state, name) for name in names]
    delay = state.short_seconds(visit.key)
    return json_reply({"object": "list", "data": models}, delay_seconds=delay)


def retrieve_model(state: State, visit: Visit) -> Reply:
    """GET /models/{id}."""
    name = state.check_model(visit.run_id)
    visit.run_id = None  # the id in the path is no run's
    return json_reply(_model(state, name), delay_seconds=state.short_seconds(visit.key))


ROUTES = (
    Route("GET", "/models", list_models),
    Route("GET", "/models/{id}", retrieve_model),
)


def _model(state: State, name: str) -> dict[str, Any]:
    created = int(state.settings.epoch)
    return {"id": name, "object": "model", "created": created, "owned_by": "emulator"}
