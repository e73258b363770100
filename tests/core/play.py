"""Short words for the tests of the core: a scheduler, a clock that the test moves, events."""

from orchestrator.core import invariants
from orchestrator.core.actions import (
    Call,
    CallTool,
    CancelRun,
    CheckRuns,
    CreateRun,
    Deed,
    FetchResult,
    RecordOutcome,
    SubmitToolOutputs,
)
from orchestrator.core.events import (
    CheckFailed,
    CreateFailed,
    FetchFailed,
    OutputsAccepted,
    OutputsFailed,
    RequestAdmitted,
    ResultFetched,
    RunCreated,
    RunMissing,
    RunSeen,
    StopRequested,
    TimePassed,
    ToolFinished,
)
from orchestrator.core.failures import Cause, Failure
from orchestrator.core.model import (
    Family,
    Outcome,
    Request,
    Result,
    RunError,
    Seen,
    Status,
    ToolCall,
    ToolOutput,
    Usage,
)
from orchestrator.core.rules import Rules
from orchestrator.core.scheduler import Scheduler
from orchestrator.core.states import State

MODEL = "m"


class NoBody:
    def read(self):
        return b"{}"


def request(
    custom_id="r1", family=Family.RESPONSES, model=MODEL, tokens=10, thread="", url="/v1/x", **more
):
    return Request(custom_id, url, family, model, tokens, NoBody(), thread=thread, **more)


def pending(run_id="run_1", hint=None):
    return Seen(run_id, Status.PENDING, "in_progress", look_again_seconds=hint)


def asks(*call_ids, run_id="run_1", **more):
    """The model asks for these tool calls."""
    calls = tuple(ToolCall(call_id, "look_up", "{}") for call_id in call_ids)
    said = "requires_action"
    return Seen(run_id, Status.REQUIRES_ACTION, said, calls, continuation=b"[]", **more)


def ended(status=Status.COMPLETED, code=None, run_id="run_1", said=None):
    error = None if code is None else RunError(code, f"told as {code}")
    return Seen(run_id, status, said or status.value, error=error, usage=Usage(3, 4))


def failed(cause, **facts):
    return Failure(cause, f"failed: {cause}", **facts)


def ending(deeds) -> Result:
    """The result of the one request that ended."""
    (result,) = [deed.result for deed in deeds if isinstance(deed, RecordOutcome)]
    return result


def endings(deeds) -> dict[int, Outcome]:
    return {deed.number: deed.result.outcome for deed in deeds if isinstance(deed, RecordOutcome)}


def results_of(deeds) -> dict[int, Result]:
    return {deed.number: deed.result for deed in deeds if isinstance(deed, RecordOutcome)}


def tools(deeds) -> list[str]:
    """The ids of the tool calls that were started."""
    return [deed.call.call_id for deed in deeds if isinstance(deed, CallTool)]


def kinds(calls) -> list[type]:
    return [type(call) for call in calls]


class Play:
    """A scheduler on stage; its invariants are checked after everything that happens.

    Requests are of `family` unless a test says otherwise.
    """

    def __init__(self, *, family=Family.RESPONSES, **rules):
        self.family = family
        # Chance in the middle: gaps between checks are the planned ones, backoffs 3/4 of theirs.
        self.scheduler = Scheduler(Rules(**rules), chance=lambda: 0.5)
        self.now = 0.0
        self.checked = True

    def tell(self, event) -> list[Deed]:
        deeds = self.scheduler.handle(event, self.now)
        if self.checked:
            invariants.check(self.scheduler)
        return deeds

    def admit(self, *numbers, custom_id=None, **of) -> list[Deed]:
        deeds = []
        for number in numbers:
            of.setdefault("family", self.family)
            name = custom_id or f"r{number}"
            deeds += self.tell(RequestAdmitted(number, request(name, **of)))
        return deeds

    def call(self, lane=MODEL, tokens_free=float("inf")) -> Call | None:
        call = self.scheduler.next_call(lane, self.now, tokens_free)
        invariants.check(self.scheduler)
        return call

    def calls(self, lane=MODEL) -> list[Call]:
        """All calls that can go out now."""
        calls = []
        while (call := self.call(lane)) is not None:
            calls.append(call)
        return calls

    def wait(self, seconds) -> list[Deed]:
        self.now += seconds
        return self.tell(TimePassed())

    def wait_until_due(self) -> list[Deed]:
        self.now = max(self.now, self.scheduler.next_due())
        return self.tell(TimePassed())

    def state(self, number=1) -> State | None:
        run = self.scheduler.roster.runs.get(number)
        return None if run is None else run.state

    # Ways to a state; each expects the request to be the only one that waits for a permit.

    def creating(self, number=1, **of):
        self.admit(number, **of)
        assert isinstance(self.call(of.get("model", MODEL)), CreateRun)
        return self

    def running(self, number=1, **of):
        self.creating(number, **of)
        self.tell(RunCreated(number, pending(f"run_{number}")))
        return self

    def checking(self, number=1):
        self.running(number)
        self.check_again()
        return self

    def check_again(self) -> CheckRuns:
        """Wait until the next check is due, and take it."""
        while True:
            deeds = self.wait_until_due()
            assert not deeds, deeds
            if (call := self.call()) is not None:
                assert isinstance(call, CheckRuns)
                return call

    def at_tools(self, *call_ids, number=1):
        self.checking(number)
        self.tell(RunSeen(number, asks(*call_ids or ("a",), run_id=f"run_{number}")))
        return self

    def answered(self, *call_ids, number=1):
        self.at_tools(*call_ids, number=number)
        for call_id in call_ids or ("a",):
            self.tool_gives(call_id, number=number)
        return self

    def submitting(self, *call_ids, number=1):
        self.answered(*call_ids, number=number)
        assert isinstance(self.call(), SubmitToolOutputs)
        return self

    def finished(self, number=1):
        self.checking(number)
        self.tell(RunSeen(number, ended(run_id=f"run_{number}")))
        return self

    def fetching(self, number=1):
        self.finished(number)
        assert isinstance(self.call(), FetchResult)
        return self

    def stopping(self, number=1):
        self.running(number)
        self.stop(number)
        return self

    def cancelling(self, number=1):
        self.stopping(number)
        assert isinstance(self.call(), CancelRun)
        return self

    # What happens often.

    def stop(self, number=1, *, cancel_remote=True):
        return self.tell(StopRequested(number, Outcome.CANCELLED, "not wanted", cancel_remote))

    def tool_gives(self, call_id="a", output=None, number=1):
        return self.tell(ToolFinished(number, ToolOutput(call_id, output or f"out of {call_id}")))

    def seen(self, seen, number=1):
        return self.tell(RunSeen(number, seen))

    def create_fails(self, cause, number=1, **facts):
        return self.tell(CreateFailed(number, failed(cause, **facts)))

    def check_fails(self, cause, number=1, **facts):
        return self.tell(CheckFailed(number, failed(cause, **facts)))

    def outputs_fail(self, cause, number=1, **facts):
        return self.tell(OutputsFailed(number, failed(cause, **facts)))

    def missing(self, number=1):
        return self.tell(RunMissing(number))

    def fetched(self, seen, number=1):
        return self.tell(ResultFetched(number, seen))

    def fetch_fails(self, cause, number=1, **facts):
        return self.tell(FetchFailed(number, failed(cause, **facts)))

    def outputs_accepted(self, seen, number=1):
        return self.tell(OutputsAccepted(number, seen))


LOST, BROKEN = Cause.CONNECTION_LOST, Cause.SERVER_ERROR
