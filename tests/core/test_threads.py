"""One active run per thread: requests for the same thread wait for one another, in order."""

import pytest

from orchestrator.core.actions import CancelRun, CreateRun
from orchestrator.core.events import CancelAccepted, CreatesStopped, RunCreated
from orchestrator.core.failures import Cause
from orchestrator.core.model import Family, Outcome, Status

from .play import Play, ended, endings, kinds, pending


def on_thread(*numbers, **rules):
    """These wait on one thread."""
    play = Play(family=Family.ASSISTANTS, **rules)
    play.admit(*numbers, thread="t")
    return play


def created(play):
    """The numbers of the runs that can be created now."""
    return [call.number for call in play.calls() if isinstance(call, CreateRun)]


def test_one_after_another():
    """The next is created when the one before has ended, in the order of the input."""
    play = on_thread(1, 2, 3)
    order = []
    while play.scheduler.in_flight:
        (number,) = created(play)
        order.append(number)
        play.tell(RunCreated(number, ended(Status.FAILED, "no_use", run_id=f"run_{number}")))

    assert order == [1, 2, 3]


def test_threads_do_not_wait_for_one_another():
    """Nor does what has no thread."""
    play = Play(family=Family.ASSISTANTS).running(9)
    play.admit(1, 2, thread="t")
    play.admit(3, 4, thread="u")
    play.admit(5, 6)

    assert created(play) == [1, 3, 5, 6]


def test_a_thread_is_free_only_when_the_result_is_there():
    """The messages of the next run must not be in it."""
    play = on_thread(1, 2)
    play.calls()
    play.tell(RunCreated(1, ended()))

    assert created(play) == []
    play.fetched(ended())

    assert created(play) == [2]


END_OF_THE_FIRST = {
    "fails": lambda play: play.tell(RunCreated(1, ended(Status.FAILED, "no_use"))),
    "is refused": lambda play: play.create_fails(Cause.BAD_REQUEST),
    "is stopped": lambda play: play.stop(1, cancel_remote=False) + play.wait(3),
    "times out": lambda play: play.tell(RunCreated(1, pending())) + play.wait(60) + play.wait(31),
    "answers with nonsense": lambda play: play.tell(RunCreated(1, ended(Status.UNKNOWN))),
}


@pytest.mark.parametrize("end", END_OF_THE_FIRST)
def test_however_the_first_ends_the_next_goes_on(end):
    """No way out leaves the others waiting."""
    play = on_thread(1, 2, deadline_seconds=60.0, cancel_grace_seconds=30.0)
    assert created(play) == [1]

    assert list(endings(END_OF_THE_FIRST[end](play))) == [1]

    assert created(play) == [2]


def test_the_time_in_the_queue_of_a_thread_is_not_counted():
    """The deadline runs from the first create."""
    play = on_thread(1, 2, deadline_seconds=60.0)
    play.calls()
    play.wait(50)
    play.tell(RunCreated(1, ended(Status.FAILED, "no_use")))
    assert created(play) == [2]

    assert play.wait(50) == []


def test_a_run_that_is_tried_again_keeps_its_turn():
    """Between two attempts the thread is still its own."""
    play = on_thread(1, 2)
    play.calls()
    play.create_fails(Cause.SERVER_ERROR)
    assert created(play) == []
    play.wait_until_due()

    assert created(play) == [1]


@pytest.mark.parametrize("number", [2, 3])
def test_one_that_waits_may_be_stopped(number):
    """The others keep their order, and the active one its thread."""
    play = on_thread(1, 2, 3, 4)
    play.calls()

    assert endings(play.stop(number)) == {number: Outcome.CANCELLED}
    assert created(play) == []
    order = []
    last = 1
    while play.scheduler.in_flight:
        play.tell(RunCreated(last, ended(Status.FAILED, "no_use", run_id=f"run_{last}")))
        if waiting := created(play):
            (last,) = waiting
            order.append(last)

    assert order == [n for n in (2, 3, 4) if n != number]


def test_the_first_may_be_stopped_before_it_is_created():
    """The second then has its turn at once."""
    play = on_thread(1, 2)

    play.stop(1)

    assert created(play) == [2]


def test_a_cancelled_run_keeps_the_thread_until_it_has_ended():
    """On the server it is active as long as it is cancelling."""
    play = on_thread(1, 2)
    play.calls()
    play.tell(RunCreated(1, pending()))
    play.stop(1)
    assert kinds(play.calls()) == [CancelRun]
    play.tell(CancelAccepted(1, pending()))
    assert created(play) == []
    play.check_again()
    play.seen(ended(Status.CANCELLED))

    assert created(play) == [2]


def test_when_creates_are_stopped_the_whole_queue_ends():
    """Also what waits behind a run that is seen to its end."""
    play = on_thread(1, 2, 3)
    play.calls()
    play.tell(RunCreated(1, pending()))

    deeds = play.tell(CreatesStopped("interrupted", "by the user"))
    deeds += play.admit(4, thread="t")

    assert endings(deeds) == dict.fromkeys([2, 3, 4], Outcome.STOPPED)
    play.check_again()
    assert endings(play.seen(ended(Status.FAILED, "no_use"))) == {1: Outcome.FAILED}
    assert play.scheduler.in_flight == 0


def test_a_thread_that_somebody_else_uses_is_waited_for():
    """Less and less often, and longer than a run that waits for tools may live (10 minutes)."""
    play = Play(family=Family.ASSISTANTS, attempts_max=2, waits_max=100).creating(thread="t")
    gaps = []
    while play.now < 700:
        before = play.now
        assert play.create_fails(Cause.BUSY) == []
        play.wait_until_due()
        assert kinds(play.calls()) == [CreateRun]
        gaps.append(play.now - before)

    assert gaps[:4] == pytest.approx([0.375, 0.75, 1.5, 3.0])
    assert max(gaps) <= 30.0
    assert play.scheduler.totals.waits == len(gaps)
