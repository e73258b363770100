"""Entries as text, and back: equal to what they were, but for what no replay needs.

Of what was seen of a run the answer and the server's times are left out, and of a batch its lines,
which are read once and are entries of their own. What is at its default is left out, too.
"""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar, get_args

import msgspec

from orchestrator.core import events
from orchestrator.core.entries import BatchOver, CancelSent, CreateSent, Entry, OutputsSent
from orchestrator.core.failures import Cause, Failure
from orchestrator.core.model import (
    NO_USAGE,
    BatchSeen,
    RunError,
    Seen,
    Status,
    ToolCall,
    ToolOutput,
    Usage,
)

T = TypeVar("T")

KIND_OF: Mapping[type[Entry], str] = MappingProxyType(
    {
        CreateSent: "create_sent",
        OutputsSent: "outputs_sent",
        CancelSent: "cancel_sent",
        BatchOver: "batch_over",
        events.RunCreated: "run_created",
        events.RunPrepared: "run_prepared",
        events.CreateFailed: "create_failed",
        events.RunSeen: "run_seen",
        events.CheckFailed: "check_failed",
        events.RunMissing: "run_missing",
        events.ResultFetched: "result_fetched",
        events.FetchFailed: "fetch_failed",
        events.ToolFinished: "tool_finished",
        events.OutputsAccepted: "outputs_accepted",
        events.OutputsFailed: "outputs_failed",
        events.CancelAccepted: "cancel_accepted",
        events.CancelFailed: "cancel_failed",
        events.LineAnswered: "line_answered",
    }
)

Seeing = (
    events.RunCreated
    | events.RunSeen
    | events.ResultFetched
    | events.OutputsAccepted
    | events.CancelAccepted
)
Failing = (
    events.CreateFailed
    | events.CheckFailed
    | events.FetchFailed
    | events.OutputsFailed
    | events.CancelFailed
)
Bare = OutputsSent | CancelSent | events.RunMissing

_SEEING = {KIND_OF[kind]: kind for kind in get_args(Seeing)}
_FAILING = {KIND_OF[kind]: kind for kind in get_args(Failing)}
_BARE = {KIND_OF[kind]: kind for kind in get_args(Bare)}


class _Batch(msgspec.Struct, omit_defaults=True):
    answered: int = 0
    line_errors: dict[int, RunError] = {}
    output_missing: bool = False
    queue_tokens_max: int | None = None


class _Seen(msgspec.Struct, omit_defaults=True):
    run_id: str
    status: Status
    said: str
    tool_calls: tuple[ToolCall, ...] = ()
    usage: tuple[int, int, int, int] | None = None
    error: RunError | None = None
    look_again_seconds: float | None = None
    finished_seconds_ago: float | None = None
    continuation: bytes | None = None
    unanswerable: RunError | None = None
    lives_seconds: float | None = None
    batch: _Batch | None = None
    found: bool = False


class _Failure(msgspec.Struct, omit_defaults=True):
    cause: Cause
    message: str
    code: str = ""
    status_code: int = 0
    retry_after_seconds: float | None = None
    request_id: str = ""


class _Sent(msgspec.Struct, omit_defaults=True):
    group: int = 0
    lines: tuple[int, ...] = ()


class _Over(msgspec.Struct, omit_defaults=True):
    lost: tuple[int, ...] = ()


class _Prepared(msgspec.Struct):
    continuation: bytes


class _Output(msgspec.Struct, omit_defaults=True):
    call_id: str
    output: str
    failed: bool = False


class _Line(msgspec.Struct, omit_defaults=True):
    batch: int
    seen: _Seen | None = None
    failure: _Failure | None = None


_encode = msgspec.json.Encoder().encode


def encoded(entry: Entry) -> tuple[str, str]:
    """The kind of an entry, and its data as JSON text; its number is kept apart."""
    return KIND_OF[type(entry)], text_of_json(_data(entry))


def decoded(number: int, kind: str, data: str) -> Entry:
    """The entry.

    Raises:
        ValueError: There is no such kind, or its data are not as this version writes them.
    """
    entry: Entry
    if kind in _SEEING:
        entry = _SEEING[kind](number, _seen(from_json(data, _Seen)))
    elif kind in _FAILING:
        entry = _FAILING[kind](number, _failure(from_json(data, _Failure)))
    elif kind in _BARE:
        entry = _BARE[kind](number)
    elif kind == KIND_OF[CreateSent]:
        sent = from_json(data, _Sent)
        entry = CreateSent(number, sent.group, sent.lines)
    elif kind == KIND_OF[BatchOver]:
        entry = BatchOver(number, from_json(data, _Over).lost)
    elif kind == KIND_OF[events.RunPrepared]:
        entry = events.RunPrepared(number, from_json(data, _Prepared).continuation)
    elif kind == KIND_OF[events.ToolFinished]:
        told = from_json(data, _Output)
        entry = events.ToolFinished(number, ToolOutput(told.call_id, told.output, told.failed))
    elif kind == KIND_OF[events.LineAnswered]:
        line = from_json(data, _Line)
        entry = events.LineAnswered(line.batch, number, _line_answer(line))
    else:
        message = f"there is no kind {kind!r}"
        raise ValueError(message)
    return entry


def text_of_json(value: Any) -> str:
    """A value as JSON text, whatever is in its texts and however large its numbers are."""
    try:
        return _encode(value).decode()
    except (UnicodeEncodeError, OverflowError):
        # Half of a surrogate pair, which JSON can escape, or more than 64 bits.
        return json.dumps(msgspec.to_builtins(value, str_keys=True), separators=(",", ":"))


def from_json(data: str | bytes, kind: type[T]) -> T:
    """A value from what `text_of_json` made of it; raises ValueError."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.DecodeError:
        return msgspec.convert(json.loads(data), kind, str_keys=True)


def _data(entry: Entry) -> msgspec.Struct | dict[str, Any]:
    data: msgspec.Struct | dict[str, Any]
    match entry:
        case CreateSent():
            data = _Sent(entry.group, entry.lines)
        case BatchOver():
            data = _Over(entry.lost)
        case events.RunPrepared():
            data = _Prepared(entry.continuation)
        case events.ToolFinished(output=told):
            data = _Output(told.call_id, told.output, told.failed)
        case events.LineAnswered(answer=answer):
            if isinstance(answer, Failure):
                data = _Line(entry.batch, failure=_kept_failure(answer))
            else:
                data = _Line(entry.batch, seen=_kept_seen(answer))
        case OutputsSent() | CancelSent() | events.RunMissing():
            data = {}
        case events.StopRequested():
            raise AssertionError(entry)  # who keeps entries has sorted it out
        case _:
            data = _kept_seen(entry.seen) if isinstance(entry, Seeing) else _failed(entry)
    return data


def _failed(entry: Failing) -> _Failure:
    return _kept_failure(entry.failure)


def _kept_seen(seen: Seen) -> _Seen:
    usage = seen.usage
    return _Seen(
        seen.run_id,
        seen.status,
        seen.said,
        seen.tool_calls,
        None
        if usage == NO_USAGE
        else (
            usage.input_tokens,
            usage.output_tokens,
            usage.cached_tokens,
            usage.reasoning_tokens,
        ),
        seen.error,
        seen.look_again_seconds,
        seen.finished_seconds_ago,
        seen.continuation,
        seen.unanswerable,
        seen.lives_seconds,
        None if seen.batch is None else _kept_batch(seen.batch),
        seen.found,
    )


def _kept_batch(batch: BatchSeen) -> _Batch:
    return _Batch(
        batch.answered, dict(batch.line_errors), batch.output_missing, batch.queue_tokens_max
    )


def _kept_failure(failure: Failure) -> _Failure:
    return _Failure(
        failure.cause,
        failure.message,
        failure.code,
        failure.status_code,
        failure.retry_after_seconds,
        failure.request_id,
    )


def _seen(kept: _Seen) -> Seen:
    about = kept.batch
    return Seen(
        run_id=kept.run_id,
        status=kept.status,
        said=kept.said,
        tool_calls=kept.tool_calls,
        usage=NO_USAGE if kept.usage is None else Usage(*kept.usage),
        error=kept.error,
        look_again_seconds=kept.look_again_seconds,
        finished_seconds_ago=kept.finished_seconds_ago,
        continuation=kept.continuation,
        unanswerable=kept.unanswerable,
        lives_seconds=kept.lives_seconds,
        batch=None
        if about is None
        else BatchSeen(
            about.answered, about.line_errors, about.output_missing, about.queue_tokens_max
        ),
        found=kept.found,
    )


def _failure(kept: _Failure) -> Failure:
    return Failure(
        kept.cause,
        kept.message,
        kept.code,
        kept.status_code,
        kept.retry_after_seconds,
        kept.request_id,
    )


def _line_answer(line: _Line) -> Seen | Failure:
    if line.seen is not None:
        return _seen(line.seen)
    if line.failure is not None:
        return _failure(line.failure)
    message = "a line that was answered by nothing"
    raise ValueError(message)
