"""The table of states: closed, connected, and the only way from one state to another."""

import pytest

from orchestrator.core.events import RunSeen
from orchestrator.core.model import Family
from orchestrator.core.roster import WANTED_IN
from orchestrator.core.states import CALL_OUT, DONE, TABLE, Change, State, diagram, next_state
from orchestrator.errors import TransitionImpossible

from .play import Play, pending

FAMILIES = pytest.mark.parametrize("family", list(Family))

# What an answer to a call can mean; the rest is our own doing.
BY_AN_ANSWER = {
    Change.CREATE_FAILED,
    Change.PREPARED,
    Change.SEEN_PENDING,
    Change.SEEN_TOOL_CALLS,
    Change.RUN_AGAIN,
    Change.CHECK_FAILED,
    Change.OUTPUTS_FAILED,
    Change.OUTPUTS_REFUSED,
    Change.SEEN_FINISHED,
    Change.FETCH_FAILED,
    Change.MORE_TO_FETCH,
    Change.CANCEL_FAILED,
    Change.CANCEL_REFUSED,
    Change.ENDED,
}
SENT = {
    Change.CREATE_SENT,
    Change.CHECK_SENT,
    Change.OUTPUTS_SENT,
    Change.FETCH_SENT,
    Change.CANCEL_SENT,
}

# A direct endpoint leaves no run behind: nothing to check, nothing to cancel. A response is its
# own result: nothing to fetch. A batch asks for no tools: what it carries does.
NEVER_IN = {
    Family.DIRECT: {
        State.RUNNING,
        State.CHECKING,
        State.STOPPING,
        State.CANCELLING,
        *DONE,
    },
    Family.RESPONSES: set(DONE),
    Family.ASSISTANTS: set(),
    Family.AGENT_SESSIONS: set(),
    Family.BATCH: {State.TOOLS, State.ANSWERED, State.SUBMITTING},
}


def reachable(family, start):
    """All states that can follow, sooner or later."""
    found, new = set(), {start}
    while new:
        found |= new
        new = {to for (at, _), to in TABLE[family].items() if at in new} - found
    return found


@FAMILIES
def test_every_state_can_be_reached(family):
    """No state stands in the table that no run can ever be in."""
    assert reachable(family, State.WAITING) == set(State) - NEVER_IN[family]
    assert {at for at, _ in TABLE[family]} <= reachable(family, State.WAITING)


@FAMILIES
def test_every_state_leads_to_the_end(family):
    """From wherever a run stands it can end in one step; nothing follows the end."""
    for state in reachable(family, State.WAITING) - {State.ENDED}:
        assert next_state(family, state, Change.ENDED) is State.ENDED

    assert not [at for at, _ in TABLE[family] if at is State.ENDED]


@FAMILIES
def test_while_a_call_is_out_only_its_answer_counts(family):
    """A state with a call out is left by what an answer can mean, and entered by a call sent."""
    for (state, change), following in TABLE[family].items():
        if state in CALL_OUT:
            assert change in BY_AN_ANSWER, (state, change)
        assert (following in CALL_OUT) == (change in SENT), (state, change)


@FAMILIES
def test_every_call_starts_where_its_permit_is_waited_for(family):
    """The states that wait for a permit are those from which a call is sent."""
    senders = {state for state, change in TABLE[family] if change in SENT}

    assert senders == set(WANTED_IN) - NEVER_IN[family]


def test_a_batch_is_never_run_again():
    """What it leaves undone goes into another batch, line by line; its own number never returns."""
    assert Change.RUN_AGAIN not in {change for _, change in TABLE[Family.BATCH]}


def test_every_change_is_used():
    """A change that no family knows would be a word without a meaning."""
    used = {change for table in TABLE.values() for _, change in table}

    assert used == set(Change)


def test_the_diagram_of_direct_endpoints():
    """The README's diagram is printed from the table; this is the short one of the two."""
    assert (
        diagram(Family.DIRECT)
        == """\
stateDiagram-v2
    [*] --> waiting
    waiting --> creating: create sent
    creating --> waiting: create failed, to be run again
    creating --> tools: seen tool calls
    tools --> answered: tools finished
    answered --> submitting: outputs sent
    submitting --> answered: outputs failed
    submitting --> tools: seen tool calls
    submitting --> waiting: to be run again
    waiting --> [*]
    creating --> [*]
    tools --> [*]
    answered --> [*]
    submitting --> [*]"""
    )


@FAMILIES
def test_the_diagram_shows_every_change(family):
    """Every row of the table is an arrow, and every arrow is a row of the table."""
    lines = [line.strip() for line in diagram(family).splitlines()[2:]]
    drawn = set()
    for line in lines:
        arrow, _, labels = line.partition(": ")
        state, _, following = arrow.partition(" --> ")
        for label in labels.split(", ") if labels else [Change.ENDED]:
            drawn.add((state, label, State.ENDED if following == "[*]" else following))

    assert drawn == {(at, change, to) for (at, change), to in TABLE[family].items()}


def test_an_impossible_change_tells_the_story_of_the_run():
    """A bug report says how the run came to where it stands."""
    play = Play().running(1)

    with pytest.raises(TransitionImpossible) as caught:
        play.tell(RunSeen(1, pending()))

    assert (caught.value.number, caught.value.state) == (1, "running")
    assert caught.value.change == "seen pending"
    told = [line.split(maxsplit=1)[1] for line in caught.value.story.splitlines()]
    assert told == ["admitted: r1", "create sent", "seen pending"]
    assert "can't go from 'running' by 'seen pending'" in str(caught.value)
