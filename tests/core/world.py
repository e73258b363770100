"""A driver in virtual time between the scheduler and the pretend server, and a referee.

The referee keeps books of its own: it knows nothing of how the scheduler works, only what must
never happen.
"""

import heapq
import random
from itertools import count

from orchestrator.core import actions, events, invariants
from orchestrator.core.failures import Failure
from orchestrator.core.learned import GAP_SECONDS_MIN as LEARNED_GAP_SECONDS_MIN
from orchestrator.core.learned import RUNS_MIN
from orchestrator.core.model import Family, Outcome, Prepared, Request, Seen, Status, ToolOutput
from orchestrator.core.rules import Rules
from orchestrator.core.scheduler import Scheduler

from .play import NoBody
from .pretend_server import FAILURES, WAIT_FOR_OUTPUTS, Server, Trouble

PERMIT_SECONDS = 0.2
STEPS_MAX = 20_000
# The first gap of the polling, less its jitter: no check may follow a look sooner. When so many
# ends were found that lifetimes may be known, the first gap is what is best.
GAP_SECONDS_MIN = 0.45
LEARNED_FROM = RUNS_MIN
BODY = NoBody()  # the same for all: requests are told apart by their number
RULES = Rules(deadline_seconds=600.0, cancel_grace_seconds=20.0)


class Referee:
    """Cries foul."""

    def __init__(self):
        self.out = set()  # runs with a call out
        self.run_ids = {}  # runs whose id is known
        self.ever_known = set()  # ids of runs
        self.cancelled = set()  # runs whose cancel was sent: another one may come after them
        self.not_before = {}  # when a run may be checked again
        self.accepted = set()  # tool calls whose outputs were accepted, by run number
        self.asked = {}  # ids of the tool calls of the turn, in order
        self.results = {}
        self.on_thread = {}  # the run that has it
        self.ends_found = 0  # by checks, and wishes for tools

    def call(self, call, now):
        numbers = (
            [run.number for run in call.runs]
            if isinstance(call, actions.CheckRuns)
            else [call.number]
        )
        for number in numbers:
            assert number not in self.out, f"two calls are out for run {number}"
            assert number not in self.results, f"run {number} has ended"
            self.out.add(number)
        match call:
            case actions.CancelRun(number=number):
                self.cancelled.add(number)
            case actions.CreateRun(number=number, request=request):
                if number in self.cancelled:
                    self.cancelled.discard(number)
                    self.run_ids.pop(number, None)
                    self.asked.pop(number, None)
                assert number not in self.run_ids, f"run {number} was created twice"
                first = self.on_thread.setdefault(request.thread or number, number)
                assert first == number, f"run {number} was created while {first} has its thread"
            case actions.CheckRuns(runs=runs):
                for run in runs:
                    assert run.run_id == self.run_ids[run.number]
                dues = [self.not_before[run.number] for run in runs]
                assert now >= min(dues) - 1e-9, "checked before it was due"
            case actions.SubmitToolOutputs(number=number, outputs=outputs):
                call_ids = [output.call_id for output in outputs]
                assert call_ids == self.asked[number], "outputs are missing or in disorder"
                assert not self.accepted & {(number, call_id) for call_id in call_ids}

    def answer(self, number, event, now):
        self.out.discard(number)
        if number in self.results:
            return
        match event:
            case events.OutputsAccepted(seen=seen):
                self.accepted |= {(number, call_id) for call_id in self.asked.pop(number)}
                self._saw(number, seen, now)
            case events.RunCreated(seen=seen):
                self._saw(number, seen, now)
            case events.RunSeen(seen=seen) | events.CancelAccepted(seen=seen):
                self.ends_found += seen.status is not Status.PENDING
                self._saw(number, seen, now)
            case events.ResultFetched(seen=seen):
                self._saw(number, seen, now)
            case events.RunMissing() | events.OutputsFailed():
                self.not_before[number] = now
            case events.CheckFailed(failure=failure):
                self.not_before[number] = now + (failure.retry_after_seconds or 0.0) + 0.25
            case events.CancelFailed():
                self.not_before[number] = now

    def _saw(self, number, seen, now):
        self.run_ids[number] = seen.run_id
        self.ever_known.add(seen.run_id)
        is_known = self.ends_found >= LEARNED_FROM
        least = LEARNED_GAP_SECONDS_MIN if is_known else GAP_SECONDS_MIN
        self.not_before[number] = now + least
        if seen.status is Status.PENDING:
            self.not_before[number] = now + max(least, seen.look_again_seconds or 0.0)
        if seen.status is Status.FAILED:
            del self.run_ids[number]
            # Direct endpoints number their calls from 0 again.
            self.accepted = {entry for entry in self.accepted if entry[0] != number}

    def deed(self, deed):
        match deed:
            case actions.CallTool(number=number, request=request, call=call):
                assert number not in self.results
                key = (number, call.call_id)
                if request.family is Family.DIRECT:
                    self.accepted.discard(key)  # and with each turn
                assert key not in self.accepted, "a tool call is answered twice"
                asked = self.asked.setdefault(number, [])
                assert call.call_id not in asked, "a tool is called twice in a turn"
                asked.append(call.call_id)
            case actions.RecordOutcome(number=number, result=result):
                assert number not in self.results, f"run {number} ended twice"
                self.results[number] = result
                self.on_thread.pop(result.request.thread or number, None)


class World:
    """Lets fates take their course."""

    def __init__(self, fates, seed, *, rules=RULES, scheduler_type=Scheduler, creates_stop_at=None):
        self.fates = [None, *fates]  # number 0 is nobody's
        self.chance = random.Random(seed)  # noqa: S311 - a simulation's chance is to be repeated
        self.scheduler = scheduler_type(rules, self.chance.random)
        self.server, self.referee = Server(), Referee()
        self.troubles = [[], *(list(fate.troubles) for fate in fates)]
        self.now = 0.0
        self._tickets = count()
        self._to_come = []
        for number, fate in enumerate(fates, 1):
            request = self._request(number, fate)
            self._later(fate.admitted_at, events.RequestAdmitted(number, request))
            for at, cancel in fate.stops:
                stop = events.StopRequested(number, Outcome.CANCELLED, "not wanted", cancel)
                self._later(fate.admitted_at + at, stop)
        if creates_stop_at is not None:
            self._later(creates_stop_at, events.CreatesStopped("interrupted", "by the user"))

    def _request(self, number, fate):
        return Request(f"r{number}", "/v1/x", fate.family, "m", 10, BODY, thread=fate.thread)

    def run(self):
        """Until nothing is left to wait for; everything must have ended by then."""
        for _ in range(STEPS_MAX):
            permits_wanted = self._hand_out_calls()
            moments = [self.now + PERMIT_SECONDS] if permits_wanted else []
            if self._to_come:
                moments.append(self._to_come[0][0])
            if (due_at := self.scheduler.next_due()) is not None:
                moments.append(due_at)
            if not moments:
                break
            self.now = max(self.now, min(moments))
            self._let_happen()
        assert self.scheduler.in_flight == 0, "something is waited for that never comes"
        silent = set(range(1, len(self.fates))) - set(self.referee.results)
        assert not silent, f"no outcome was recorded for {silent}"
        return self.referee.results

    def _let_happen(self):
        while self._to_come and self._to_come[0][0] <= self.now:
            *_, number, event = heapq.heappop(self._to_come)
            if number is not None:
                self.referee.answer(number, event, self.now)
            self._tell(event)
        due_at = self.scheduler.next_due()
        if due_at is not None and due_at <= self.now:
            self._tell(events.TimePassed())
            due_at = self.scheduler.next_due()
            assert due_at is None or due_at > self.now, "woken again and again for nothing"

    def _tell(self, event):
        deeds = self.scheduler.handle(event, self.now)
        invariants.check(self.scheduler)
        for deed in deeds:
            self.referee.deed(deed)
            if isinstance(deed, actions.CallTool):
                finished = events.ToolFinished(deed.number, ToolOutput(deed.call.call_id, "out"))
                for _ in range(2 if self.chance.random() < 0.2 else 1):
                    self._later(self.now + self.chance.uniform(0, 3), finished)

    def _hand_out_calls(self):
        """A few permits at a time; whether more were wanted."""
        permits = self.chance.randrange(4)
        for lane in self.scheduler.busy_lanes():
            while permits:
                call = self.scheduler.next_call(lane, self.now)
                invariants.check(self.scheduler)
                if call is None:
                    break
                permits -= 1
                self.referee.call(call, self.now)
                self._send(call)
        return permits == 0 and bool(self.scheduler.busy_lanes())

    def _send(self, call):
        if isinstance(call, actions.CheckRuns) and call.group:
            self._send_list(call)
            return
        number = call.runs[0].number if isinstance(call, actions.CheckRuns) else call.number
        trouble = self._trouble_of(number, call)
        answer = None
        if trouble in {Trouble.NONE, Trouble.LOST_AFTER}:
            answer = self._answer_to(number, call)
        if trouble is Trouble.LOST_AFTER and _looks(call):
            trouble = Trouble.BROKEN  # a look costs nothing, so the family says it that way
        if isinstance(answer, Prepared):
            answer = Prepared(b"%d" % call.lost)
        if trouble is not Trouble.NONE:
            answer = FAILURES[trouble]
        self._later(self.now + self._call_seconds(), _event_of(number, call, answer), number)

    def _send_list(self, call):
        """One answer for all; what befalls the call befalls them all."""
        trouble = self._trouble_of(call.runs[0].number, call)
        at = self.now + self._call_seconds()
        for run in call.runs:
            if trouble not in {Trouble.NONE, Trouble.MISSING}:
                event = events.CheckFailed(run.number, FAILURES[trouble])
            elif trouble is Trouble.MISSING or not self.server.is_listed(run.run_id, self.now):
                event = events.RunMissing(run.number)
            else:
                event = events.RunSeen(run.number, self.server.check(run.run_id, self.now))
            self._later(at, event, run.number)

    def _call_seconds(self):
        return self.chance.uniform(0.01, 4.0 if self.chance.random() < 0.1 else 0.3)

    def _trouble_of(self, number, call):
        troubles = self.troubles[number]
        trouble = troubles.pop(0) if troubles else Trouble.NONE
        if trouble is Trouble.MISSING and not isinstance(call, actions.CheckRuns):
            return Trouble.NONE  # 404 for a create says that the model is missing
        if trouble is Trouble.BUSY and isinstance(call, actions.CancelRun):
            return Trouble.BROKEN  # to refuse a cancel is part of a fate, as it is not sent again
        is_submission = isinstance(call, actions.SubmitToolOutputs)
        if trouble is Trouble.LOST_AFTER and is_submission:
            return Trouble.LOST_BEFORE  # the server's own affair: it may answer 400 to the second
        return trouble

    def _answer_to(self, number, call) -> Seen | Failure:
        match call:
            case actions.CreateRun(request=request, creates=creates) if _looks(call):
                return self.server.find(request.custom_id, creates, self.now)
            case actions.CreateRun(request=request, creates=creates):
                fate = self.fates[number]
                return self.server.create(request.custom_id, fate, self.now, creates)
            case actions.CheckRuns(runs=(run,)):
                return self.server.check(run.run_id, self.now)
            case actions.SubmitToolOutputs(run_id=run_id, outputs=outputs):
                call_ids = [output.call_id for output in outputs]
                return self.server.submit(run_id, call_ids, self.now)
            case actions.FetchResult(run_id=run_id, finished=finished):
                return self.server.fetch(run_id, finished, self.now)
            case actions.CancelRun(run_id=run_id):
                return self.server.cancel(run_id, self.now)

    def _later(self, at, event, number=None):
        heapq.heappush(self._to_come, (at, next(self._tickets), number, event))


GOOD_AND_BAD = {
    actions.CreateRun: (events.RunCreated, events.CreateFailed),
    actions.CheckRuns: (events.RunSeen, events.CheckFailed),
    actions.SubmitToolOutputs: (events.OutputsAccepted, events.OutputsFailed),
    actions.FetchResult: (events.ResultFetched, events.FetchFailed),
    actions.CancelRun: (events.CancelAccepted, events.CancelFailed),
}


def _looks(call):
    """Whether this is no create, but a look for one that was lost."""
    looks_first = isinstance(call, actions.CreateRun) and call.request.family in WAIT_FOR_OUTPUTS
    return looks_first and call.lost > int(call.prepared or 0)


def _event_of(number, call, answer):
    if isinstance(answer, Prepared):
        return events.RunPrepared(number, answer.continuation)
    good, bad = GOOD_AND_BAD[type(call)]
    return bad(number, answer) if isinstance(answer, Failure) else good(number, answer)
