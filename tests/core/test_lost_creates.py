"""Creates whose answer was lost, event by event: waited for, looked for, and counted."""

import pytest

from orchestrator.core.actions import CheckRuns, CreateRun
from orchestrator.core.events import RunCreated, RunPrepared
from orchestrator.core.failures import Cause
from orchestrator.core.model import Family, Seen, Status
from orchestrator.core.states import State

from .play import BROKEN, LOST, Play, ended, pending

FOUND = Seen("run_1", Status.PENDING, "in_progress", found=True)
LOOKED = RunPrepared(1, b"looked")
HELD = [Family.ASSISTANTS, Family.AGENT_SESSIONS]


def lost(family=Family.AGENT_SESSIONS, **rules):
    """The first create was not answered."""
    play = Play(family=family, **rules).creating()
    play.create_fails(LOST)
    return play


@pytest.mark.parametrize("family", HELD)
@pytest.mark.parametrize("cause", [LOST, Cause.TIMED_OUT, Cause.MALFORMED])
def test_the_next_try_waits_until_lists_show_it(family, cause):
    """Ten seconds, and then the call says that an answer was lost."""
    play = Play(family=family).creating()
    play.create_fails(cause)

    assert play.wait(9.9) == []
    assert play.call() is None
    play.wait(0.2)
    call = play.call()
    assert (type(call), call.lost, call.creates) == (CreateRun, 1, 0)


@pytest.mark.parametrize(
    ("family", "cause"), [(Family.RESPONSES, LOST), (Family.AGENT_SESSIONS, BROKEN)]
)
def test_nothing_is_waited_for_where_nothing_can_be_found(family, cause):
    """Responses have no list, and what was refused is not in one."""
    play = Play(family=family).creating()
    play.create_fails(cause)
    play.wait(1)

    assert isinstance(play.call(), CreateRun)


def test_what_is_found_was_not_lost():
    """It goes on like any other run, in the group that it was created into."""
    play = Play(family=Family.AGENT_SESSIONS).running(200).creating()
    for number in range(2, 102):  # more than fit into its group
        play.creating(number)
    play.create_fails(LOST)
    play.wait(10.1)
    (look,) = [call for call in play.calls() if isinstance(call, CreateRun)]

    play.tell(RunCreated(1, FOUND))

    assert look.group == 1
    assert play.scheduler.totals.creates_lost == 0
    assert play.state() is State.RUNNING
    play.wait(1)
    checks = [call for call in play.calls() if isinstance(call, CheckRuns)]
    assert [check.group for check in checks] == [1]
    assert "run_1" in {run.run_id for run in checks[0].runs}


def test_what_is_not_found_is_sent_again_and_stays_counted():
    """At once after the look, and its answer does not make up for the lost one."""
    play = lost()
    play.wait_until_due()
    play.call()
    play.tell(LOOKED)
    again = play.call()
    play.tell(RunCreated(1, pending()))

    assert (again.prepared, again.lost, again.creates) == (b"looked", 1, 0)
    assert play.scheduler.totals.creates_lost == 1
    assert play.scheduler.roster.runs[1].sent == 2  # the look is no create


def test_a_look_is_no_progress():
    """Creates that are lost again and again are bounded, whatever the looks say."""
    play = lost(attempts_max=3)
    deeds = []
    for _ in range(2):
        play.wait_until_due()
        play.call()
        play.tell(LOOKED)
        play.call()
        deeds = play.create_fails(LOST)

    (deed,) = deeds
    assert (deed.result.lost, deed.result.sent) == (3, 3)


def test_looks_that_fail_do_not_use_up_the_creates():
    """Each kind of call has its own row of failures."""
    play = lost(attempts_max=3)
    play.wait_until_due()
    play.call()
    play.create_fails(BROKEN)  # the look, which costs nothing
    play.wait_until_due()
    play.call()
    play.tell(LOOKED)
    play.call()
    play.create_fails(BROKEN)

    assert play.state() is State.WAITING


def test_another_run_of_the_request_is_not_taken_for_the_lost_one():
    """After a failure a new run is wanted: it has another name, and nothing of it was lost."""
    play = lost(Family.ASSISTANTS)
    play.wait_until_due()
    play.call()
    play.tell(LOOKED)
    play.call()
    play.tell(RunCreated(1, pending()))
    play.check_again()
    play.seen(ended(Status.FAILED, "server_error"))
    play.wait_until_due()
    call = play.call()

    assert (call.creates, call.lost, call.prepared) == (1, 0, None)
    assert play.scheduler.roster.runs[1].lost == 1


def test_a_stop_while_it_is_looked_for_waits_for_the_look():
    """A session that was created all the same is cancelled, and nothing more is created."""
    play = lost()
    play.wait_until_due()
    play.call()
    assert play.stop() == []
    assert play.tell(RunCreated(1, FOUND)) == []

    assert play.state() is State.STOPPING


def test_a_stop_while_it_is_looked_for_in_vain():
    """Nothing is created, and the request says that one create is unaccounted for."""
    play = lost()
    play.wait_until_due()
    play.call()
    play.stop()

    (deed,) = play.tell(LOOKED)

    assert (deed.result.lost, deed.result.run_id) == (1, "")
