"""Groups of runs that one call of their API answers for."""

import pytest

from orchestrator.core.actions import CreateRun, FetchResult
from orchestrator.core.events import CancelAccepted, CheckFailed, RunCreated, RunSeen
from orchestrator.core.failures import Cause
from orchestrator.core.model import Family, Outcome, Status

from .play import Play, asks, ended, endings, failed, kinds, pending


def running(*numbers, **rules):
    """Sessions that were created together."""
    play = Play(family=Family.AGENT_SESSIONS, **{"list_lag_seconds": 0.0, **rules})
    play.admit(*numbers)
    play.calls()  # the first create is on trial, the others wait for its answer
    play.tell(RunCreated(numbers[0], pending(f"run_{numbers[0]}")))
    assert len(play.calls()) == len(numbers) - 1
    for number in numbers[1:]:
        play.tell(RunCreated(number, pending(f"run_{number}")))
    return play


def numbers(call):
    return [run.number for run in call.runs]


def all_pending(play, call):
    for number in numbers(call):
        play.seen(pending(f"run_{number}"), number)


def test_one_call_checks_the_whole_group():
    """One is due, and the others beside it are answered for too; each answer is counted."""
    play = running(1, 2, 3)

    call = play.check_again()

    assert (numbers(call), call.group) == ([1, 2, 3], 1)
    assert play.calls() == []
    assert play.scheduler.totals.checks == 3


def test_only_what_runs_is_checked():
    """Not what is being created, given outputs, fetched, cancelled, or has ended."""
    play = running(1, 2, 3, 4, 5)
    play.check_again()
    play.seen(ended(run_id="run_1"), 1)
    play.seen(asks("a", run_id="run_2"), 2)
    play.seen(ended(Status.FAILED, "no_use", run_id="run_3"), 3)
    for number in (4, 5):
        play.seen(pending(f"run_{number}"), number)
    play.stop(5)
    play.calls()

    call = play.check_again()

    assert numbers(call) == [4]


def test_a_check_in_passing_moves_the_next_one():
    """What was just looked at is not due any more."""
    play = running(1, 2)
    play.admit(3)
    play.calls()
    play.wait(0.3)
    play.tell(RunCreated(3, pending("run_3")))
    play.wait(0.2)

    (call,) = play.calls()
    assert numbers(call) == [1, 2, 3]
    all_pending(play, call)

    assert play.wait(0.3) == []  # when the third would have been due
    assert play.calls() == []


def test_a_run_that_the_list_does_not_show_is_asked_for_at_once():
    """By itself, without its group; the others are left in peace."""
    play = running(1, 2, 3)
    play.check_again()
    play.seen(pending("run_1"), 1)
    assert play.missing(2) == []
    play.seen(pending("run_3"), 3)

    (call,) = play.calls()

    assert (numbers(call), call.group) == ([2], 0)
    play.seen(pending("run_2"), 2)
    assert numbers(play.check_again()) == [1, 2, 3]


def test_a_new_run_that_the_list_does_not_show_is_waited_for():
    """Lists lag: for some seconds it is not asked for by itself, only listed again."""
    play = running(1, 2, list_lag_seconds=10.0)
    play.check_again()
    play.seen(pending("run_1"), 1)

    assert play.missing(2) == []

    assert play.calls() == []
    assert numbers(play.check_again()) == [1, 2]


def test_a_run_that_is_asked_for_alone_is_not_listed_meanwhile():
    """It has a call of its own to wait for, also when that failed."""
    play = running(1, 2)
    play.check_again()
    play.seen(pending("run_1"), 1)
    play.missing(2)
    (alone,) = play.calls()
    assert numbers(alone) == [2]
    assert play.check_fails(Cause.RATE_LIMITED, 2, retry_after_seconds=10.0) == []

    listed, alone = play.check_again(), play.check_again()

    assert (numbers(listed), listed.group) == ([1], 1)
    assert (numbers(alone), alone.group) == ([2], 0)


def test_a_run_that_is_nowhere_is_gone():
    """Not in the list, and 404 three times."""
    play = running(1, 2)
    play.check_again()
    play.seen(pending("run_1"), 1)
    play.missing(2)
    play.calls()
    play.stop(1, cancel_remote=False)
    while not (deeds := play.check_fails(Cause.NOT_FOUND, 2)):
        play.check_again()

    assert endings(deeds) == {2: Outcome.EXPIRED}


def test_a_missing_run_that_is_not_wanted_is_cancelled():
    """After one look that shows it is there."""
    play = running(1)
    play.check_again()
    play.stop(1)
    play.missing(1)
    play.calls()
    play.seen(pending(), 1)

    assert [type(call).__name__ for call in play.calls()] == ["CancelRun"]


def test_a_list_that_failed_is_asked_again():
    """For all of its runs, and together."""
    play = running(1, 2)
    call = play.check_again()
    for number in numbers(call):
        play.tell(CheckFailed(number, failed(Cause.SERVER_ERROR)))

    assert numbers(play.check_again()) == [1, 2]


def test_a_group_closes_when_one_answer_is_full():
    """What is created after a hundred is in the next group."""
    play = running(*range(1, 151))
    play.wait(1)

    first, second = play.calls()

    assert numbers(first) == list(range(1, 101))
    assert numbers(second) == list(range(101, 151))


def long_wait(count):
    """Sessions that were looked at together until their gaps grew no more."""
    play = running(*range(1, count + 1))
    for _ in range(10):
        all_pending(play, play.check_again())
    return play


def gap_after(play, *, left):
    """The gap to the next check once only so many of the group still run."""
    call = play.check_again()
    for number in numbers(call):
        if number > left:
            play.seen(ended(Status.FAILED, "x", run_id=f"run_{number}"), number)
    for number in numbers(call)[:left]:
        play.seen(pending(f"run_{number}"), number)
    before = play.now
    play.check_again()
    return play.now - before


@pytest.mark.parametrize(
    ("count", "left", "seconds"),
    [(100, 100, 5), (100, 50, 5), (100, 8, 12.5), (100, 1, 30), (8, 4, 5), (8, 1, 10), (3, 3, 5)],
)
def test_the_last_of_a_group_are_looked_at_less_often(count, left, seconds):
    """A call costs the same for all as for one; what counts is how many the group ever had."""
    assert gap_after(long_wait(count), left=left) == pytest.approx(seconds)


def test_a_run_that_is_checked_alone_has_no_longer_gaps():
    """There is nothing left over of a group of one, or where nothing is grouped."""
    play = Play(family=Family.RESPONSES).running()
    for _ in range(10):
        play.check_again()
        play.seen(pending())
    before = play.now
    play.check_again()

    assert play.now - before == 5
    assert gap_after(long_wait(1), left=1) == 5


def test_a_group_that_is_filled_in_turn_was_never_larger():
    """Three at a time, one after the other: all three are all that there ever were."""
    play = running(1, 2, 3)
    for number in range(4, 34):
        play.check_again()
        play.seen(ended(Status.FAILED, "x", run_id=f"run_{number - 3}"), number - 3)
        for other in (number - 2, number - 1):
            play.seen(pending(f"run_{other}"), other)
        play.admit(number)
        play.calls()
        play.tell(RunCreated(number, pending(f"run_{number}")))

    groups = play.scheduler.roster.groups
    assert groups.part_left(1) == 1.0


def test_the_end_of_a_cancelled_run_is_not_noticed_late():
    """It costs money, and its grace is short: it is looked at as often as ever."""
    play = long_wait(100)
    gap_after(play, left=1)
    play.seen(pending("run_1"), 1)
    play.stop(1)
    play.calls()
    play.tell(CancelAccepted(1, pending("run_1")))
    before = play.now
    play.check_again()

    assert play.now - before == 5


def test_a_closed_group_is_not_filled_up():
    """Its list would go on showing the sessions that have ended."""
    play = running(*range(1, 101))
    call = play.check_again()
    for number in numbers(call):
        ends = number < 60
        run_id = f"run_{number}"
        play.seen(ended(Status.FAILED, "x", run_id=run_id) if ends else pending(run_id), number)
    play.admit(200)
    play.calls()
    play.tell(RunCreated(200, pending("run_200")))
    play.wait(5)

    assert sorted(len(call.runs) for call in play.calls()) == [1, 41]


def test_a_run_that_is_created_again_joins_an_open_group():
    """Its old group's list would show the old session."""
    play = running(*range(1, 101))
    call = play.check_again()
    play.seen(ended(Status.FAILED, "server_error", run_id="run_1"), 1)
    for number in numbers(call)[1:]:
        play.seen(pending(f"run_{number}"), number)
    create = None
    while not isinstance(create, CreateRun):
        play.wait_until_due()
        for call in play.calls():
            create = call
            if not isinstance(call, CreateRun):
                all_pending(play, call)
    play.tell(RunCreated(1, pending("run_1b")))
    play.wait(10)

    assert (create.number, create.group) == (1, 2)
    assert [(call.group, len(call.runs)) for call in play.calls()] == [(1, 99), (2, 1)]


def test_families_and_lanes_have_their_own_groups():
    """One call has one limit that it counts against."""
    play = Play(family=Family.AGENT_SESSIONS).running(1)
    play.admit(2, model="other")
    play.admit(3, family=Family.ASSISTANTS)
    groups = {call.number: call.group for call in play.calls("other") + play.calls()}

    assert groups == {2: 2, 3: 0}


@pytest.mark.parametrize("family", [Family.ASSISTANTS, Family.RESPONSES])
def test_other_families_check_one_by_one(family):
    """Their API has no list."""
    play = Play(family=family).running(1)
    play.running(2)
    play.wait(1)

    assert [(numbers(call), call.group) for call in play.calls()] == [([1], 0), ([2], 0)]


def test_the_end_of_one_does_not_touch_the_others():
    """Each of a group has its own course."""
    play = running(1, 2)
    play.check_again()
    play.tell(RunSeen(1, ended(run_id="run_1")))
    play.tell(RunSeen(2, pending("run_2")))

    assert kinds(play.calls()) == [FetchResult]
    assert endings(play.fetched(ended(run_id="run_1"), 1)) == {1: Outcome.COMPLETED}
    assert numbers(play.check_again()) == [2]
