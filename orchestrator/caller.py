"""Has a call sent by its family's api, and tells the core what came of it.

Rules: whatever comes of a call, good or bad, is one event for each of its runs. Foreign errors do
not get out of here; our own about the input or the output do.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

from structlog.typing import FilteringBoundLogger

from orchestrator.core import events
from orchestrator.core.actions import (
    Call,
    CancelRun,
    CheckRuns,
    CreateRun,
    FetchResult,
    SubmitToolOutputs,
)
from orchestrator.core.failures import Cause, Failure
from orchestrator.core.model import Family, Prepared, Seen
from orchestrator.errors import OrchestratorError
from orchestrator.ports import Api, CallFailed, Limiter


@dataclass(frozen=True, slots=True)
class Sent:
    """A call on its way through a connection, with what it took from the limiter."""

    call: Call
    lane: str
    tokens: int
    at: float


# What a failed call is to each of its runs.
FAILED: Mapping[type[Call], Callable[[int, Failure], events.RunEvent]] = {
    CreateRun: events.CreateFailed,
    CheckRuns: events.CheckFailed,
    SubmitToolOutputs: events.OutputsFailed,
    CancelRun: events.CancelFailed,
    FetchResult: events.FetchFailed,
}


class Caller:
    """Performs calls.

    Args:
        apis: One for each family.
        limiter: Told of refusals and of the tokens that were really used.
        log: Gets `call.failed`, `call.broken` and `batch.created`; never a prompt or a key.
    """

    def __init__(
        self, apis: Mapping[Family, Api], limiter: Limiter, log: FilteringBoundLogger
    ) -> None:
        self._apis = apis
        self._limiter = limiter
        self._log = log

    async def perform(self, sent: Sent) -> Iterable[events.Event]:
        """Send one call. What came of a batch is read while the events are."""
        try:
            return await self._answered(sent)
        except CallFailed as failed:
            failure = failed.failure
        except OrchestratorError:
            raise
        except Exception as error:  # noqa: BLE001 - a bug with one answer must not end the night
            self._log.exception("call.broken", kind=type(sent.call).__name__)
            failure = Failure(Cause.INTERNAL, f"{type(error).__name__}: {error}")
        self._note_failure(sent, failure)
        return [FAILED[type(sent.call)](number, failure) for number in numbers_of(sent.call)]

    async def _answered(self, sent: Sent) -> Iterable[events.Event]:
        call = sent.call
        match call:
            case CreateRun():
                answer = await self._apis[call.request.family].create(call)
                if isinstance(answer, Prepared) or answer.found:
                    self._limiter.spent(sent.lane, sent.tokens, 0, sent.at)  # only creates cost
                if isinstance(answer, Prepared):
                    return [events.RunPrepared(call.number, answer.continuation)]
                self._correct(sent, answer)
                if call.request.family is Family.BATCH:
                    self._log.info("batch.created", batch_id=answer.run_id, name=_custom_ids(call))
                return [events.RunCreated(call.number, answer)]
            case SubmitToolOutputs():
                seen = await self._apis[call.request.family].submit(call)
                self._correct(sent, seen)
                return [events.OutputsAccepted(call.number, seen)]
            case CancelRun():
                seen = await self._apis[call.request.family].cancel(call)
                return [events.CancelAccepted(call.number, seen)]
            case FetchResult():
                seen = await self._apis[call.request.family].fetch(call)
                return _fetched(call.number, seen)
            case CheckRuns():
                answers = await self._apis[call.runs[0].request.family].check(call)
                return [self._checked(sent, run.number, answers) for run in call.runs]
            case _:
                assert_never(call)

    def _checked(
        self, sent: Sent, number: int, answers: Mapping[int, Seen | Failure]
    ) -> events.RunEvent:
        answer = answers.get(number)
        if answer is None:
            return events.RunMissing(number)
        if isinstance(answer, Failure):
            self._note_failure(sent, answer)
            return events.CheckFailed(number, answer)
        return events.RunSeen(number, answer)

    def _correct(self, sent: Sent, seen: Seen) -> None:
        if seen.usage.total_tokens:
            self._limiter.spent(sent.lane, sent.tokens, seen.usage.total_tokens, sent.at)

    def _note_failure(self, sent: Sent, failure: Failure) -> None:
        if failure.cause is Cause.RATE_LIMITED:
            self._limiter.refused(sent.lane, failure.retry_after_seconds)
        self._log.info(
            "call.failed",
            kind=type(sent.call).__name__,
            custom_id=_custom_ids(sent.call),
            cause=failure.cause.value,
            status_code=failure.status_code,
            code=failure.code,
            request_id=failure.request_id,
        )


def _fetched(number: int, seen: Seen) -> Iterator[events.Event]:
    """The lines of a batch first: with the result itself it may be over."""
    lines = seen.batch.lines if seen.batch is not None else ()
    try:
        for line, answer in lines:
            yield events.LineAnswered(number, line, answer)
    finally:
        if isinstance(lines, Generator):
            lines.close()
    yield events.ResultFetched(number, seen)


def never_sent(call: Call) -> Iterable[events.Event]:
    """What is told of a call that was given up while its intent was being written."""
    failure = Failure(Cause.NOT_SENT, "it was not wanted any more")
    match call:
        case CreateRun(number=number):
            return (events.CreateFailed(number, failure),)
        case SubmitToolOutputs(number=number):
            return (events.OutputsFailed(number, failure),)
        case _:
            return ()


def numbers_of(call: Call) -> Sequence[int]:
    """The runs that a call is about."""
    return [run.number for run in call.runs] if isinstance(call, CheckRuns) else [call.number]


def _custom_ids(call: Call) -> str:
    if isinstance(call, CheckRuns):
        return ", ".join(run.request.custom_id for run in call.runs)
    return call.request.custom_id
