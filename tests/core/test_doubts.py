"""Calls that were out when a process was killed: taken for lost once, however often that happens."""

import pytest

from orchestrator.core.entries import CreateSent, OutputsSent
from orchestrator.core.events import CreateFailed, OutputsFailed, RunCreated, ToolFinished
from orchestrator.core.model import Family, ToolOutput
from orchestrator.core.rules import Rules
from orchestrator.core.scheduler import Scheduler
from orchestrator.core.states import State

from .play import asks, request

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
