"""The Batch API: create, retrieve, list, cancel."""

from functools import partial
from typing import Any

import msgspec

from orchestrator.emulator.batch_input import InputFile
from orchestrator.emulator.batch_life import ENDS, Batch, Plan, Status
from orchestrator.emulator.batch_lines import HANDLERS, answerer
from orchestrator.emulator.calls import Reply, json_reply
from orchestrator.emulator.chance import draw
from orchestrator.emulator.conversation import check_metadata
from orchestrator.emulator.deviations import Deviation
from orchestrator.emulator.faults import Fault
from orchestrator.emulator.file_store import StoredFile
from orchestrator.emulator.files import EXPIRES_SECONDS_MAX, check_expiry
from orchestrator.emulator.pages import page_of
from orchestrator.emulator.refusals import (
    Refusal,
    refuse_invalid,
    refuse_missing,
    refuse_missing_run,
)
from orchestrator.emulator.state import Route, State, Visit

COMPLETION_WINDOW = "24h"  # "Currently only `24h` is supported."
LIST_LIMIT_DEFAULT = 20
LIST_LIMIT_MAX = 100

# A batch may have 50,000 lines, and what it ends as is known after the last: it is looked at no
# more often than this to tell endpoints of its end.
LOOK_SECONDS = 0.1


class OutputExpiresAfter(msgspec.Struct):
    """When the files that a batch leaves behind expire."""

    anchor: str | None = None
    seconds: int | None = None


class BatchRequest(msgspec.Struct):
    """The body of a create call."""

    input_file_id: str | None = None
    endpoint: str | None = None
    completion_window: str | None = None
    metadata: dict[str, str] | None = None
    output_expires_after: OutputExpiresAfter | None = None


def create(state: State, visit: Visit) -> Reply:
    """POST /batches."""
    request = visit.read(BatchRequest)
    visit.metadata = request.metadata
    endpoint = _endpoint(state, request)
    _check_window(request)
    check_metadata(request.metadata)
    file = _input_file(state, visit, request)
    expiry = request.output_expires_after
    kept_seconds = EXPIRES_SECONDS_MAX
    if expiry is not None:
        kept_seconds = check_expiry("output_expires_after", expiry.anchor, expiry.seconds)
    state.admit_control(visit)
    if not state.batches.room_for_one(visit.now):
        message = "Rate limit reached for batch creation: too many batches in the last hour."
        raise Refusal(429, message, "requests", "rate_limit_exceeded")
    batch_id = state.new_id("batch_", visit.key)
    batch = Batch(
        id=batch_id,
        endpoint=endpoint,
        input_file_id=file.id,
        metadata=request.metadata,
        created_at=visit.now,
        plan=_plan(state, visit, batch_id, kept_seconds),
        # The content goes along: deleting the file does not hurt a batch that has begun.
        read=lambda: InputFile(state.settings, batch_id, endpoint).read(file.content),
        answer=answerer(state, batch_id, endpoint),
    )
    state.batches.add(batch)
    state.batches.advance(visit.now)
    visit.run_id = batch.id
    state.created(visit, "batch", batch.id)
    watch_end(state, batch)
    return json_reply(_shown(state, batch, visit.now))


def retrieve(state: State, visit: Visit) -> Reply:
    """GET /batches/{id}."""
    state.admit_control(visit)
    batch = _find(state, visit)
    state.books.checked(batch.id, final=batch.status(visit.now) in ENDS)
    return json_reply(_shown(state, batch, visit.now))


def cancel(state: State, visit: Visit) -> Reply:
    """POST /batches/{id}/cancel."""
    state.admit_control(visit)
    batch = _find(state, visit)
    status = batch.status(visit.now)
    if status in ENDS:
        raise Refusal(409, f"Cannot cancel a batch with status '{status}'.")
    state.books.creates.cancelled(batch.id)
    batch.cancel(visit.now)
    state.watched.move(batch.id, visit.now)
    return json_reply(_shown(state, batch, visit.now))


def list_batches(state: State, visit: Visit) -> Reply:
    """GET /batches, newest first: what was to be seen `list_lag_seconds` ago."""
    state.admit_control(visit)
    lag = state.settings.list_lag_seconds
    batches = state.batches.newest_first(visit.now, lag)
    listed, has_more = page_of(visit.call, batches, default=LIST_LIMIT_DEFAULT, most=LIST_LIMIT_MAX)
    state.books.listed(visit.route, len(listed))
    for batch in listed:
        state.books.creates.listed(batch.id)
    page = {
        "object": "list",
        "data": [_shown(state, batch, visit.now - lag) for batch in listed],
        "first_id": listed[0].id if listed else None,
        "last_id": listed[-1].id if listed else None,
        "has_more": has_more,
    }
    return json_reply(page)


def watch_end(state: State, batch: Batch) -> None:
    """See to it that endpoints are told when the batch ends."""
    state.watch(batch.id, batch.next_step_at(), partial(_look, state, batch))


ROUTES = (
    Route("POST", "/batches", create),
    Route("GET", "/batches", list_batches),
    Route("GET", "/batches/{id}", retrieve),
    Route("POST", "/batches/{id}/cancel", cancel),
)


def _look(state: State, batch: Batch, at: float) -> float | None:
    state.batches.advance(at)
    status = batch.status(at)
    if status not in ENDS:
        return max(batch.next_step_at(), at + LOOK_SECONDS)
    ended_at = min(batch.failed_at, batch.over_at)
    state.webhooks.happened(f"batch.{status.value}", batch.id, ended_at)
    return None


def _endpoint(state: State, request: BatchRequest) -> str:
    served = list(HANDLERS)
    if Deviation.BATCH_NO_RESPONSES in state.deviations:
        served.remove("/v1/responses")
    if request.endpoint is None:
        refuse_missing("endpoint")
    if request.endpoint not in served:
        known = ", ".join(f"'{name}'" for name in served)
        message = f"Invalid value: '{request.endpoint}'. Supported values are: {known}."
        refuse_invalid(message, param="endpoint", code="invalid_value")
    return request.endpoint


def _check_window(request: BatchRequest) -> None:
    window = request.completion_window
    if window is None:
        refuse_missing("completion_window")
    if window != COMPLETION_WINDOW:
        message = f"Invalid value: '{window}'. Supported values are: '{COMPLETION_WINDOW}'."
        refuse_invalid(message, param="completion_window", code="invalid_value")


def _input_file(state: State, visit: Visit, request: BatchRequest) -> StoredFile:
    param = "input_file_id"
    if request.input_file_id is None:
        refuse_missing(param)
    file = state.files.find(request.input_file_id, visit.now)
    if file is None:
        message = f"Invalid '{param}': no such File object: {request.input_file_id}."
        refuse_invalid(message, param=param)
    if file.purpose != "batch":
        message = f"Invalid '{param}': the file's purpose is '{file.purpose}', not 'batch'."
        refuse_invalid(message, param=param)
    return file


def _plan(state: State, visit: Visit, batch_id: str, kept_seconds: float) -> Plan:
    settings = state.settings
    stuck_in = settings.batch_stuck_in
    if state.hangs(visit):
        stuck_in = Status.FINALIZING  # where real ones have been seen to stay
    share = None
    if Fault.BATCH_EXPIRES in visit.faults:
        state.play(visit, Fault.BATCH_EXPIRES)
        share = draw(settings.seed, "expire", batch_id)
    work = settings.batch_seconds
    return Plan(
        validated_at=visit.now
        + state.seconds(settings.batch_validating_seconds, "validate", batch_id),
        expires_at=visit.now + settings.batch_expires_seconds,
        work_seconds=None if work is None else state.seconds(work, "work", batch_id),
        lines_at_once=settings.batch_lines_at_once,
        expire_after_lines=settings.batch_expire_after_lines,
        expire_after_share=share,
        finalizing_seconds=state.seconds(settings.batch_finalizing_seconds, "finalize", batch_id),
        cancelling_seconds=state.seconds(settings.batch_cancelling_seconds, "cancel", batch_id),
        output_expires_seconds=kept_seconds,
        stuck_in=stuck_in,
        deviations=state.deviations,
    )


def _find(state: State, visit: Visit) -> Batch:
    batch = state.batches.find(visit.run_id or "", visit.now)
    if batch is None:
        refuse_missing_run(f"No batch found with id '{visit.run_id}'.")
    return batch


def _shown(state: State, batch: Batch, at: float) -> dict[str, Any]:
    """The batch as JSON, as it looked `at` a time up to which it is caught up."""
    status = batch.status(at)

    def when(time: float, *, shown: bool = True) -> int | None:
        return int(state.unix(time)) if shown and time <= at else None

    over = batch.over_at <= at
    no_counts = (
        status is Status.FAILED and Deviation.BATCH_NO_COUNTS_ON_FAILURE in batch.plan.deviations
    )
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "model": batch.model,
        "errors": _errors(batch) if status is Status.FAILED else None,
        "input_file_id": batch.input_file_id,
        "completion_window": COMPLETION_WINDOW,
        "status": status.value,
        "output_file_id": batch.output_file_id if over else None,
        "error_file_id": batch.error_file_id if over else None,
        "created_at": int(state.unix(batch.created_at)),
        "in_progress_at": when(batch.in_progress_at),
        "expires_at": int(state.unix(batch.plan.expires_at)),
        "finalizing_at": when(batch.ended_at, shown=batch.ended_at != batch.cancelling_at),
        "completed_at": when(batch.over_at, shown=status is Status.COMPLETED),
        "failed_at": when(batch.failed_at),
        "expired_at": when(batch.over_at, shown=status is Status.EXPIRED),
        "cancelling_at": when(batch.cancelling_at),
        "cancelled_at": when(batch.over_at, shown=status is Status.CANCELLED),
        "request_counts": None
        if no_counts
        else {"total": batch.total, "completed": batch.worked, "failed": batch.refused},
        "usage": {
            "input_tokens": batch.input_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": batch.output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": batch.input_tokens + batch.output_tokens,
        },
        "metadata": batch.metadata,
    }


def _errors(batch: Batch) -> dict[str, Any]:
    data = [
        {"code": one.code, "line": one.line, "message": one.message, "param": one.param}
        for one in batch.errors
    ]
    return {"object": "list", "data": data}
