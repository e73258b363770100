"""Time that is over: of one run, and of the execution."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.actions import CancelRun, CreateRun
from orchestrator.core.events import (
    CancelAccepted,
    CancelFailed,
    CreatesStopped,
    OutputsAccepted,
    RunCreated,
)
from orchestrator.core.failures import Cause
from orchestrator.core.model import Family, Outcome, Status
from orchestrator.core.states import State

from .batch_play import BatchPlay, batch_seen
from .play import Play, asks, ended, ending, endings, failed, kinds, pending
from .pretend_server import Cancelling, End, Fate
from .test_machine import POLLED, SEEDS, TROUBLES, fates
from .world import RULES, World

HUNG = [Fate(family=family, end=End.HANGS) for family in POLLED]


def overdue(**rules):
    """A run that was to end within 10 s is being cancelled."""
    play = Play(run_deadline_seconds=10.0, **rules).running()
    while (call := play.call()) is None or not isinstance(call, CancelRun):
        if call is not None:
            play.seen(pending())
        play.wait_until_due()
    assert play.now == 10.0
    return play


class TestOneRun:
    def test_it_is_cancelled_and_the_request_gets_another_one(self):
        """A run that hangs costs its time, not the request."""
        play = overdue()

        assert play.tell(CancelAccepted(1, ended(Status.CANCELLED))) == []

        assert isinstance(play.call(), CreateRun)
        play.tell(RunCreated(1, pending("run_2")))
        play.wait(1)
        assert play.call().runs[0].run_id == "run_2"
        result = ending(play.seen(ended(run_id="run_2")))
        assert (result.outcome, result.creates, result.lost) == (Outcome.COMPLETED, 2, 0)
        assert result.usage.total_tokens == 14  # both runs have told what they took

    def test_its_result_counts_when_it_ends_before_it_is_cancelled(self):
        """What is paid is not thrown away."""
        play = overdue()
        assert ending(play.tell(CancelAccepted(1, ended()))).outcome is Outcome.COMPLETED

    def test_its_wish_for_tools_counts_too(self):
        """A response that asks for tools has ended on the server, so it was in time."""
        play = overdue()
        play.tell(CancelAccepted(1, asks("a")))
        assert play.state() is State.TOOLS
        play.tool_gives("a")
        play.call()
        assert ending(play.outputs_accepted(ended())).outcome is Outcome.COMPLETED

    def test_one_that_is_never_cancelled_is_left_alone(self):
        """Its request gets another run, and says that the first may be paid for nothing."""
        play = overdue()
        play.tell(CancelAccepted(1, pending()))
        while play.state() is not State.WAITING:
            if play.call() is not None:
                play.seen(pending())
            play.wait_until_due()
        assert play.now == 40.0

        play.call()
        result = ending(play.tell(RunCreated(1, ended(run_id="run_2"))))
        assert (result.outcome, result.lost) == (Outcome.COMPLETED, 1)

    def test_attempts_are_bounded(self):
        """Runs that all hang end with the request timed out, and say why."""
        play = overdue(attempts_max=1)
        result = ending(play.tell(CancelAccepted(1, ended(Status.CANCELLED))))
        assert (result.outcome, result.error.code) == (Outcome.TIMED_OUT, "run_deadline_exceeded")
        assert result.error.message == "its run did not end within 10 s"

    def test_a_request_has_its_own_deadline_too(self):
        """There is no other run after it."""
        play = overdue(deadline_seconds=15.0)
        play.wait(5)
        result = ending(play.tell(CancelAccepted(1, ended(Status.CANCELLED))))
        assert result.outcome is Outcome.TIMED_OUT

    def test_a_request_that_is_stopped_gets_no_other_run(self):
        """Not wanted is not wanted."""
        play = overdue()
        play.stop()
        result = ending(play.tell(CancelAccepted(1, ended(Status.CANCELLED))))
        assert result.outcome is Outcome.CANCELLED

    def test_when_creates_are_stopped_it_gets_no_other_run(self):
        """There is no way to another one."""
        play = overdue()
        play.tell(CreatesStopped("interrupted", "by the user"))
        result = ending(play.tell(CancelAccepted(1, ended(Status.CANCELLED))))
        assert (result.outcome, result.error.code) == (Outcome.TIMED_OUT, "run_deadline_exceeded")

    def test_the_time_of_tools_is_not_counted(self):
        """Each turn has the whole time; handlers have a limit of their own."""
        play = Play(run_deadline_seconds=10.0).at_tools()
        play.wait(60)
        play.tool_gives("a")
        call = play.call()
        assert call.deadline_at == play.now + 10.0
        play.tell(OutputsAccepted(1, pending()))
        assert play.state() is State.RUNNING

    def test_a_call_that_answers_at_once_is_bounded(self):
        """It has no run that could be cancelled: it is cut, and sent again."""
        play = Play(run_deadline_seconds=10.0, attempts_max=2, family=Family.DIRECT)
        play.admit(1)
        assert play.call().deadline_at == 10.0
        play.now = 10.0
        assert play.create_fails(Cause.TIMED_OUT) == []
        play.wait_until_due()
        play.now = play.call().deadline_at

        result = ending(play.create_fails(Cause.TIMED_OUT))
        assert (result.outcome, result.error.code) == (Outcome.TIMED_OUT, "run_deadline_exceeded")

    def test_a_cancel_that_never_works_does_not_hold_it_up(self):
        """After the time for cancelling the request gets its next run all the same."""
        play = overdue()
        while play.state() is State.CANCELLING:
            play.tell(CancelFailed(1, failed(Cause.SERVER_ERROR)))
            if play.state() is State.STOPPING:
                play.wait_until_due()
                play.call()
        assert play.now == 40.0
        assert play.state() is State.CREATING


@settings(max_examples=30)
@given(fates(st.just(())), SEEDS, st.sampled_from([0.5, 3.0, 20.0]))
def test_no_run_deadline_changes_how_requests_end_but_by_time(fates, seed, seconds):
    """They end as their fate says, or with their time or their attempts used up."""
    world = World(fates, seed, rules=replace(RULES, run_deadline_seconds=seconds))

    for number, result in world.run().items():
        assert result.outcome in {fates[number - 1].outcome, Outcome.TIMED_OUT, Outcome.FAILED}


@settings(max_examples=10)
@given(
    st.lists(
        st.builds(
            Fate,
            family=st.sampled_from(POLLED),
            end=st.just(End.HANGS),
            cancelling=st.sampled_from(Cancelling),
            troubles=TROUBLES,
        ),
        min_size=1,
        max_size=4,
    ),
    SEEDS,
)
def test_every_hung_run_is_cancelled(fates, seed):
    """Each of the runs that a request had, not only the last."""
    world = World(fates, seed, rules=replace(RULES, run_deadline_seconds=50.0, attempts_max=3))

    results = world.run()

    assert {result.outcome for result in results.values()} <= {Outcome.TIMED_OUT, Outcome.FAILED}
    known = {run_id for run_id in world.server.runs if run_id in world.referee.ever_known}
    assert known <= world.server.cancels_asked


OF_30_S = {"execution_deadline_seconds": 30.0}


class TestTheExecution:
    def test_what_waits_ends_and_what_runs_is_cancelled(self):
        """What was sent has timed out, what was not may be sent by the next session."""
        play = Play(**OF_30_S).running(1)
        play.admit(2)
        play.now = 30.0

        deeds = play.wait(0)

        assert endings(deeds) == {2: Outcome.STOPPED}
        assert ending(deeds).error.code == "execution_deadline"
        assert play.scheduler.creates_stopped.code == "execution_deadline"
        assert CancelRun in kinds(play.calls())
        result = ending(play.tell(CancelAccepted(1, ended(Status.CANCELLED))))
        assert (result.outcome, result.error.code) == (Outcome.TIMED_OUT, "execution_deadline")

    def test_what_finished_in_time_counts(self):
        """A run that had ended when it was to be cancelled is a result."""
        play = Play(**OF_30_S).running(1)
        play.now = 30.0
        play.wait(0)
        assert isinstance(play.call(), CancelRun)
        assert ending(play.tell(CancelAccepted(1, ended()))).outcome is Outcome.COMPLETED

    def test_it_comes_without_anything_in_flight(self):
        """Whoever waits for the next request must be woken."""
        play = Play(**OF_30_S)
        assert play.scheduler.next_due() == 30.0
        play.now = 30.0
        play.wait(0)
        assert play.scheduler.next_due() is None
        assert ending(play.admit(1)).outcome is Outcome.STOPPED

    def test_a_batch_is_cancelled_and_what_it_did_is_kept(self):
        """The lines that it left undone have timed out."""
        play = BatchPlay(**OF_30_S).out(11, 12)
        play.now = 30.0
        play.wait(0)
        call = play.batch_call()
        assert isinstance(call, CancelRun)
        seen = batch_seen(Status.CANCELLED, files=b"output")
        play.tell(CancelAccepted(-1, seen))
        play.batch_call()
        assert endings(play.line(11)) == {11: Outcome.COMPLETED}
        deeds = play.file_read(Status.CANCELLED)
        assert endings(deeds) == {12: Outcome.TIMED_OUT}
        assert ending(deeds).error.code == "execution_deadline"

    @pytest.mark.parametrize("seconds", [0.0, 1.0, 5.0])
    def test_every_request_ends_once(self, seconds):
        """At any moment, in whatever state requests are."""
        crowd = [Fate(family=family, turns=(1,), work_seconds=2) for family in POLLED] * 3 + HUNG
        rules = replace(RULES, execution_deadline_seconds=seconds)
        results = World(crowd, 1, rules=rules).run()
        assert {result.outcome for result in results.values()} <= {
            Outcome.TIMED_OUT,
            Outcome.STOPPED,
            Outcome.COMPLETED,
        }
