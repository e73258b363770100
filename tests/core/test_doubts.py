"""What a process left in doubt: a call without an answer, a run that it had cancelled."""

import pytest

from orchestrator.core.actions import CheckRuns, CreateRun
from orchestrator.core.entries import CancelSent, CreateSent, OutputsSent
from orchestrator.core.events import (
    CancelAccepted,
    CreateFailed,
    OutputsFailed,
    RunCreated,
    RunSeen,
    ToolFinished,
)
from orchestrator.core.model import Family, Outcome, Status, ToolOutput
from orchestrator.core.rules import Rules
from orchestrator.core.scheduler import Scheduler
from orchestrator.core.states import State

from .play import asks, ended, ending, pending, request

KILLED_AT = 5.0


def restarted(entries, now, family=Family.AGENT_SESSIONS):
    """A scheduler that goes on with one request, and what it presumed of it."""
    scheduler = Scheduler(Rules(), lambda: 0.5)
    replay = scheduler.replay()
    replay.admit(1, request(family=family), now)
    for at, entry in entries:
        replay.take(entry, at)
    replay.settle(now)
    return scheduler, replay.presumed


def test_a_create_in_doubt_is_presumed_lost_once():
    """What the first process presumed is kept, and the second does not presume it again."""
    entries = [(0.0, CreateSent(1))]
    first, presumed = restarted(entries, KILLED_AT)
    (failed,) = presumed
    assert isinstance(failed, CreateFailed)
    assert failed.failure.maybe_done
    assert (first.totals.creates_lost, first.roster.runs[1].lost) == (1, 1)

    second, more = restarted([*entries, (KILLED_AT, failed)], KILLED_AT + 1)

    assert more == []
    assert second.roster.runs[1].lost == 1


def test_the_wait_for_the_list_is_not_begun_anew():
    """A process that is killed every five seconds would else never look for what it created."""
    entries = [(0.0, CreateSent(1))]
    _, (failed,) = restarted(entries, KILLED_AT)
    entries.append((KILLED_AT, failed))

    scheduler, _ = restarted(entries, KILLED_AT + 4)
    assert scheduler.roster.runs[1].due_at == KILLED_AT + Rules().list_lag_seconds

    scheduler, _ = restarted(entries, KILLED_AT + 11)
    assert scheduler.next_call("m", KILLED_AT + 11).lost == 1


@pytest.mark.parametrize("family", [Family.RESPONSES, Family.DIRECT])
def test_tool_outputs_in_doubt_are_presumed_lost_once(family):
    """They are sent again, and the handler is not called again."""
    entries = [
        (0.0, CreateSent(1)),
        (1.0, RunCreated(1, asks("c1"))),
        (2.0, ToolFinished(1, ToolOutput("c1", "it"))),
        (2.0, OutputsSent(1)),
    ]
    _, presumed = restarted(entries, KILLED_AT, family)
    (failed,) = presumed
    assert isinstance(failed, OutputsFailed)

    scheduler, more = restarted([*entries, (KILLED_AT, failed)], KILLED_AT + 1, family)

    assert more == []
    assert scheduler.roster.runs[1].lost == 1
    assert scheduler.state_of(1) is State.ANSWERED


CANCELLED = ended(Status.CANCELLED)
ENDINGS = {
    "at once": [(2.1, CancelAccepted(1, CANCELLED))],
    "after a while": [(2.1, CancelAccepted(1, pending())), (3.0, RunSeen(1, CANCELLED))],
}


@pytest.mark.parametrize("family", [Family.RESPONSES, Family.ASSISTANTS, Family.AGENT_SESSIONS])
@pytest.mark.parametrize("how", ENDINGS)
def test_what_an_interrupt_cancelled_is_sent_again(family, how):
    """Its request was wanted all along; only the process that ended wanted it no more."""
    entries = [(0.0, CreateSent(1)), (1.0, RunCreated(1, pending())), (2.0, CancelSent(1))]

    scheduler, _ = restarted([*entries, *ENDINGS[how]], KILLED_AT, family)

    assert scheduler.state_of(1) is State.WAITING
    assert isinstance(scheduler.next_call("m", KILLED_AT), CreateRun)


@pytest.mark.parametrize("status", [Status.CANCELLED, Status.COMPLETED])
def test_a_cancel_in_doubt(status):
    """Whether it arrived shows when the run is looked at: it is sent again, or has completed."""
    entries = [(0.0, CreateSent(1)), (1.0, RunCreated(1, pending())), (2.0, CancelSent(1))]
    scheduler, _ = restarted(entries, KILLED_AT, Family.RESPONSES)
    assert isinstance(scheduler.next_call("m", KILLED_AT), CheckRuns)

    deeds = scheduler.handle(RunSeen(1, ended(status)), KILLED_AT)

    if status is Status.COMPLETED:
        assert ending(deeds).outcome is Outcome.COMPLETED
    else:
        assert deeds == []
        assert isinstance(scheduler.next_call("m", KILLED_AT), CreateRun)


def test_what_somebody_else_cancelled_stays_cancelled():
    """Without a cancel of ours it is the server's last word, also of the run that came after."""
    entries = [
        (0.0, CreateSent(1)),
        (1.0, RunCreated(1, pending())),
        (2.0, CancelSent(1)),
        (2.1, CancelAccepted(1, CANCELLED)),
        (6.0, CreateSent(1)),
        (7.0, RunCreated(1, pending("run_2"))),
    ]
    scheduler, _ = restarted(entries, 8.0, Family.RESPONSES)
    assert isinstance(scheduler.next_call("m", 8.0), CheckRuns)

    deeds = scheduler.handle(RunSeen(1, ended(Status.CANCELLED, run_id="run_2")), 8.0)

    assert ending(deeds).outcome is Outcome.CANCELLED
