"""Brings runs back to where they stood, from what a journal has kept of them.

Rules: entries come in the order in which they were written, and go through the same code as when
they happened. What was not kept (checks that found nothing new, time that passed) is presupposed:
an entry tells by itself in which state it could happen. Nothing lines up before `settle`, so a
replay hands out no calls. What is found in doubt there, because a call left and no answer was kept,
is a lost answer, is treated as any other, and is to be kept as any other: the next process must
neither count it again nor wait for it again.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import chain

from orchestrator.core import events
from orchestrator.core.actions import CallTool, Deed, DropBatch
from orchestrator.core.batches import Batches
from orchestrator.core.calls import Calls
from orchestrator.core.entries import BatchOver, CancelSent, CreateSent, Entry, OutputsSent
from orchestrator.core.failures import VERDICT_ON_CREATE, Cause, Failure, Verdict
from orchestrator.core.families import FACTS, begins_with_preparation
from orchestrator.core.model import Request, Seen, Status
from orchestrator.core.roster import WANTED_IN, Roster
from orchestrator.core.runs import Run
from orchestrator.core.states import State

# The state in which an event finds its run. Whatever told of a run that is at work was a look at
# it, here: a cancel, or a fetch that found it unfinished, leaves nothing else behind.
_FOUND_IN: Mapping[type[events.RunEvent], State] = {
    events.RunCreated: State.CREATING,
    events.RunPrepared: State.CREATING,
    events.CreateFailed: State.CREATING,
    events.RunSeen: State.CHECKING,
    events.CheckFailed: State.CHECKING,
    events.RunMissing: State.CHECKING,
    events.ToolFinished: State.TOOLS,
    events.OutputsAccepted: State.SUBMITTING,
    events.OutputsFailed: State.SUBMITTING,
}

_NO_ANSWER = Failure(Cause.PROCESS_ENDED, "the process ended before the answer came")

_COST_NOTHING = replace(_NO_ANSWER, cause=Cause.NOT_SENT)

Told = Callable[[events.RunEvent, float], Iterator[Deed]]


class Replay:
    """One replay; ends with `settle`.

    Attributes:
        presumed: What `settle` took for lost, to be kept.
    """

    def __init__(self, roster: Roster, calls: Calls, batches: Batches, told: Told) -> None:
        self._roster = roster
        self._calls = calls
        self._batches = batches
        self._told = told
        self.presumed: list[events.CreateFailed | events.OutputsFailed] = []
        roster.replaying = True

    def issued(self, *, batches: int, groups: int) -> None:
        """So many of each have been numbered; those numbers are on the server."""
        self._roster.batches_issued = batches
        self._roster.groups.issued = groups

    def admit(self, number: int, request: Request, now: float) -> None:
        """A request that was in flight."""
        self._roster.may_start(self._roster.admit(number, request, now))

    def take(self, entry: Entry, at: float) -> list[Deed]:
        """The next entry; one about a run that is not in flight means nothing."""
        match entry:
            case CreateSent():
                self._create_sent(entry, at)
                return []
            case BatchOver():
                return self._batch_over(entry, at)
            case events.LineAnswered():
                return self._kept_in_flight(self._batches.line_answered(entry, at))
        run = self._roster.runs.get(entry.number)
        if run is None:
            return []
        match entry:
            case OutputsSent():
                self._outputs_sent(run, at)
            case CancelSent():
                run.was_cancelled = True
            case events.ToolFinished() if run.answering is None:
                pass  # it went on while its run was cancelled
            case _:
                return self._kept_in_flight(self._happened(run, entry, at))
        return []

    def settle(self, now: float) -> list[Deed]:
        """Settle what is in doubt, and let every run wait for what is next."""
        self._roster.replaying = False
        self._roster.hearing.begin(now)
        runs = list(self._roster.runs.values())
        return list(chain.from_iterable(self._settle(run, now) for run in runs))

    # Entries.

    def _create_sent(self, sent: CreateSent, at: float) -> None:
        run = self._roster.runs.get(sent.number)
        if run is None:
            run = self._batch_of(sent, at)
        if run is None:
            return
        if run.state is State.CREATING:  # by a process that was killed before it heard of it
            deque(self._told(_never_answered(run), at), maxlen=0)
        self._roster.presuppose(run, State.WAITING)
        run.direct = run.request.via_batch  # it was not worth a batch
        self._calls.create_sent(run, at)
        if run.shard is not None and sent.lines:
            run.shard.places = sent.lines  # also those that have ended have a place in the file
        if sent.group:
            self._roster.groups.rejoin(run, sent.group)

    def _batch_of(self, sent: CreateSent, at: float) -> Run | None:
        """The batch that carried these runs; None when none of them is in flight any more."""
        numbers = (number for number in sent.lines if number in self._roster.runs)
        carried = [self._roster.runs[number] for number in numbers]
        if sent.number >= 0 or not carried:
            return None
        for run in carried:
            wants_tools = run.answering is not None
            self._roster.presuppose(run, State.ANSWERED if wants_tools else State.WAITING)
        shard = self._roster.packing.packed_before(carried, at)
        return self._roster.make_batch(sent.number, shard, at)

    def _batch_over(self, over: BatchOver, at: float) -> list[Deed]:
        batch = self._roster.runs.get(over.number)
        if batch is None or batch.shard is None:
            return []
        lost, undone = frozenset(over.lost), replace(_NO_ANSWER, cause=Cause.UNDONE)
        deeds = self._batches.dissolve(
            batch, batch.shard, lambda run: _NO_ANSWER if run.number in lost else undone, at
        )
        return [deed for deed in deeds if not isinstance(deed, DropBatch)]

    def _outputs_sent(self, run: Run, at: float) -> None:
        if run.state is State.SUBMITTING:
            deque(self._told(_never_answered(run), at), maxlen=0)
        if run.answering is not None:
            self._roster.presuppose(run, State.ANSWERED)
            self._calls.outputs_sent(run, at)

    def _happened(self, run: Run, event: events.RunEvent, at: float) -> Iterator[Deed]:
        match event:
            case events.CreateFailed(failure=failure) | events.OutputsFailed(failure=failure):
                event = replace(event, failure=_without_stop(failure))
            case events.ResultFetched(seen=seen) | events.CancelAccepted(seen=seen):
                event = events.RunSeen(run.number, seen)
            case events.FetchFailed(failure=failure) | events.CancelFailed(failure=failure):
                event = events.CheckFailed(run.number, failure)
        self._roster.presuppose(run, _FOUND_IN[type(event)])
        return self._told(event, at)

    def _kept_in_flight(self, deeds: Iterator[Deed]) -> list[Deed]:
        """Handlers are called in the end, those that have not finished by then."""
        return [deed for deed in deeds if not isinstance(deed, CallTool)]

    # The end.

    def _settle(self, run: Run, now: float) -> Iterator[Deed]:
        if run.number not in self._roster.runs:
            return  # it ended with the batch that carried it
        if run.shard is not None and not run.shard.runs:
            # All its lines were kept, and that it is over was not.
            run.finished = Seen(run.run_id, Status.COMPLETED, "answered")
            yield from self._batches.dissolve(run, run.shard, lambda _: _NO_ANSWER, now)
            return
        is_in_doubt = run.state is State.CREATING or run.state is State.SUBMITTING
        if is_in_doubt and run.batch is None:
            failed = _never_answered(run)
            self.presumed.append(failed)
            yield from self._told(failed, now)
        elif run.state is State.TOOLS and run.answering is not None:
            self._roster.watch_tools(run)
            for call in run.answering.calls:
                if call.call_id not in run.answering.outputs:
                    yield CallTool(run.number, run.request, call)
        elif run.state in WANTED_IN and self._roster.is_first_on_thread(run):
            if run.state is State.WAITING and run.due_at > now:
                self._roster.wake(run, run.due_at)
            else:
                run.due_at = now  # that nobody looked at it since is not for want of a permit
                self._roster.line_up(run, now)


def _never_answered(run: Run) -> events.CreateFailed | events.OutputsFailed:
    if run.state is not State.CREATING:
        return events.OutputsFailed(run.number, _NO_ANSWER)
    return events.CreateFailed(run.number, _COST_NOTHING if _costs_nothing(run) else _NO_ANSWER)


def _costs_nothing(run: Run) -> bool:
    """Whether the call of its create that is out only prepares it, or looks for a lost one."""
    prepares = begins_with_preparation(run.request.family, run.request.url)
    looks = FACTS[run.request.family].finds_lost_creates and run.unanswered > run.looked_for
    return looks or (prepares and run.prepared is None)


def _without_stop(failure: Failure) -> Failure:
    """A refusal that ended the execution before: mended since, or it will be met again."""
    if VERDICT_ON_CREATE[failure.cause] is not Verdict.STOP:
        return failure
    return replace(failure, cause=Cause.UNDONE)
