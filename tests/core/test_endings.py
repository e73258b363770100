"""How requests end that are not wanted any more, or took too long."""

import pytest

from orchestrator.core.actions import CancelRun, CheckRuns, StopTools
from orchestrator.core.events import CancelAccepted, CancelFailed, OutputsAccepted, RunCreated
from orchestrator.core.failures import Cause
from orchestrator.core.model import Family, Outcome, Status
from orchestrator.core.states import DONE, State

from .play import LOST, Play, asks, ended, ending, endings, failed, kinds, pending, tools

# How a run comes to each state, and what it means to stop it there with a cancel.
STATES = {
    State.WAITING: lambda play: play.admit(1),
    State.CREATING: lambda play: play.creating(),
    State.RUNNING: lambda play: play.running(),
    State.CHECKING: lambda play: play.checking(),
    State.TOOLS: lambda play: play.at_tools(),
    State.ANSWERED: lambda play: play.answered(),
    State.SUBMITTING: lambda play: play.submitting(),
    State.STOPPING: lambda play: play.stopping(),
    State.CANCELLING: lambda play: play.cancelling(),
}
# A response that asks for tools has ended on the server: there is nothing to cancel.
ENDS_AT_ONCE = {State.WAITING, State.TOOLS, State.ANSWERED}


def at(state, **rules):
    play = Play(**rules)
    STATES[state](play)
    assert play.state() is state
    return play


def cancel_fails(play, cause):
    return play.tell(CancelFailed(1, failed(cause)))


class TestStopRequested:
    def test_all_states_are_tried(self):
        """A new state has to be thought of here, or where results are fetched."""
        assert set(STATES) == set(State) - {State.ENDED} - DONE

    @pytest.mark.parametrize("state", sorted(set(STATES) - {State.CREATING, State.SUBMITTING}))
    def test_without_a_cancel_it_ends_at_once(self, state):
        """The remote run is left as it is; handlers at work are told."""
        play = at(state)

        deeds = play.stop(cancel_remote=False)

        assert endings(deeds) == {1: Outcome.CANCELLED}
        assert ending(deeds).error.message == "not wanted"
        assert any(isinstance(deed, StopTools) for deed in deeds) == (state is State.TOOLS)
        assert (play.calls(), play.scheduler.in_flight) == ([], 0)

    def test_a_create_that_is_out_is_awaited_for_its_id(self):
        """Nothing is cancelled, but the run that it becomes is known by its id."""
        play = at(State.CREATING)

        assert play.stop(cancel_remote=False) == []
        deeds = play.tell(RunCreated(1, pending("run_7")))

        assert endings(deeds) == {1: Outcome.CANCELLED}
        assert ending(deeds).run_id == "run_7"
        assert play.calls() == []

    def test_tool_outputs_that_are_out_are_awaited_like_a_create(self):
        """To the responses API they are another run, which is paid for and has to be known."""
        play = Play(family=Family.RESPONSES).submitting("a")
        assert play.stop(cancel_remote=False) == []

        deeds = play.outputs_accepted(pending("run_2"))

        assert ending(deeds).outcome is Outcome.CANCELLED
        assert ending(deeds).run_id == "run_2"

    def test_tool_outputs_that_a_run_waits_for_are_not_awaited(self):
        """What became of them is to be seen of the run, at no cost."""
        play = Play(family=Family.ASSISTANTS).submitting("a")
        assert ending(play.stop(cancel_remote=False)).outcome is Outcome.CANCELLED

    def test_a_create_that_is_out_is_not_awaited_for_long(self):
        """After two seconds it ends without the id."""
        play = at(State.CREATING)
        play.stop(cancel_remote=False)

        assert endings(play.wait(2.1)) == {1: Outcome.CANCELLED}

    def test_an_answer_that_comes_at_once_is_not_awaited(self):
        """A direct call leaves no run behind, so there is no id to wait for."""
        play = Play().creating(family=Family.DIRECT)

        assert endings(play.stop(cancel_remote=False)) == {1: Outcome.CANCELLED}

    @pytest.mark.parametrize("state", list(STATES))
    def test_with_a_cancel_it_ends_when_nothing_is_left_on_the_server(self, state):
        """What may be at work on the server is cancelled first."""
        play = at(state)

        deeds = play.stop(cancel_remote=True)

        if state in ENDS_AT_ONCE:
            assert endings(deeds) == {1: Outcome.CANCELLED}
            assert any(isinstance(deed, StopTools) for deed in deeds) == (state is State.TOOLS)
            assert play.calls() == []
            return
        assert deeds == []
        answer = {
            State.CREATING: RunCreated(1, pending()),
            State.SUBMITTING: OutputsAccepted(1, pending("run_1b")),
        }.get(state)
        if answer is not None:
            assert play.tell(answer) == []
        if state is State.CHECKING:
            assert play.seen(pending()) == []
        if state is not State.CANCELLING:
            assert kinds(play.calls()) == [CancelRun]
        assert play.calls() == []
        assert endings(play.tell(CancelAccepted(1, ended(Status.CANCELLED)))) == {
            1: Outcome.CANCELLED
        }

    @pytest.mark.parametrize("state", [State.CREATING, State.CHECKING, State.SUBMITTING])
    def test_the_answer_that_was_awaited_may_be_the_end(self, state):
        """A result that is there is paid for, so it is kept."""
        play = at(state)
        play.stop()

        tell = {
            State.CREATING: lambda: play.tell(RunCreated(1, ended())),
            State.CHECKING: lambda: play.seen(ended()),
            State.SUBMITTING: lambda: play.outputs_accepted(ended(run_id="run_1b")),
        }[state]

        assert endings(tell()) == {1: Outcome.COMPLETED}

    @pytest.mark.parametrize("state", [State.CREATING, State.CHECKING, State.SUBMITTING])
    def test_no_tools_are_called_for_a_request_that_is_not_wanted(self, state):
        """The model asks, and nobody answers; with or without turns left."""
        play = at(state, turns_max=1)
        play.stop()

        tell = {
            State.CREATING: lambda: play.tell(RunCreated(1, asks("z"))),
            State.CHECKING: lambda: play.seen(asks("z")),
            State.SUBMITTING: lambda: play.outputs_accepted(asks("z", run_id="run_1b")),
        }[state]
        deeds = tell()

        assert tools(deeds) == []
        assert endings(deeds) == {1: Outcome.CANCELLED}

    @pytest.mark.parametrize("state", [State.CREATING, State.SUBMITTING])
    def test_a_call_that_failed_is_not_sent_again(self, state):
        """Nobody wants it any more."""
        play = at(state)
        play.stop()

        deeds = play.create_fails(LOST) if state is State.CREATING else play.outputs_fail(LOST)

        assert endings(deeds) == {1: Outcome.CANCELLED}

    def test_a_check_that_failed_is_followed_by_the_cancel(self):
        """The run is still there, as far as we know."""
        play = at(State.CHECKING)
        play.stop()

        assert play.check_fails(Cause.SERVER_ERROR) == []
        assert kinds(play.calls()) == [CancelRun]

    def test_a_direct_request_has_nothing_to_cancel(self):
        """It leaves no run on the server: it is enough not to wait for it any more."""
        play = Play().creating(family=Family.DIRECT)

        assert endings(play.stop()) == {1: Outcome.CANCELLED}
        assert play.tell(RunCreated(1, ended())) == []


class TestCancelling:
    def test_a_cancel_that_finds_it_completed_keeps_the_result(self):
        """It is paid for."""
        play = Play().cancelling()

        result = ending(play.tell(CancelAccepted(1, ended())))

        assert (result.outcome, result.error, result.usage.output_tokens) == (
            Outcome.COMPLETED,
            None,
            4,
        )

    def test_a_run_on_its_way_to_the_end_is_looked_at_until_it_is_there(self):
        """`cancelling` is no end; the cancel is not sent again."""
        play = Play().cancelling()
        play.tell(CancelAccepted(1, pending()))

        play.check_again()
        assert play.seen(pending()) == []
        play.check_again()

        assert endings(play.seen(ended(Status.CANCELLED))) == {1: Outcome.CANCELLED}

    def test_a_cancelling_that_never_ends_is_left_alone(self):
        """After the grace the request ends, whatever the server goes on saying."""
        play = Play(cancel_grace_seconds=30.0).cancelling()
        play.tell(CancelAccepted(1, pending()))
        deeds = []
        while not deeds:
            deeds = play.wait_until_due()
            for _ in play.calls():
                play.seen(pending())

        assert play.now == pytest.approx(30.0)
        assert ending(deeds).outcome is Outcome.CANCELLED

    @pytest.mark.parametrize("cause", [Cause.CONFLICT, Cause.BAD_REQUEST, Cause.NOT_FOUND])
    def test_a_refused_cancel_is_followed_by_a_look(self, cause):
        """A 409 often means that the run has just ended; the result is kept."""
        play = Play().cancelling()

        assert cancel_fails(play, cause) == []

        assert kinds(play.calls()) == [CheckRuns]
        assert endings(play.seen(ended())) == {1: Outcome.COMPLETED}

    def test_a_refused_cancel_is_not_sent_again(self):
        """The run is looked at until the grace is over."""
        play = Play(cancel_grace_seconds=30.0).cancelling()
        cancel_fails(play, Cause.CONFLICT)
        deeds, calls = [], []
        while not deeds:
            for call in play.calls():
                calls.append(call)
                play.seen(pending())
            deeds = play.wait_until_due()

        assert set(kinds(calls)) == {CheckRuns}
        assert ending(deeds).outcome is Outcome.CANCELLED

    def test_a_cancel_that_was_not_answered_is_sent_again(self):
        """A run that goes on costs money."""
        play = Play().cancelling()

        assert cancel_fails(play, LOST) == []
        play.wait_until_due()

        assert kinds(play.calls()) == [CancelRun]

    def test_a_cancel_that_never_gets_through_ends_with_the_grace(self):
        """A server in trouble does not hold the execution up."""
        play, deeds = Play(cancel_grace_seconds=30.0).stopping(), []
        while not deeds:
            for _ in play.calls():
                deeds += cancel_fails(play, Cause.SERVER_ERROR)
            deeds = deeds or play.wait_until_due()

        assert play.now == pytest.approx(30.0)
        assert endings(deeds) == {1: Outcome.CANCELLED}

    def test_a_refused_key_ends_a_cancel(self):
        """The same key gives the same answer; the request ends as was wanted."""
        play = Play().cancelling()

        assert endings(cancel_fails(play, Cause.AUTHENTICATION)) == {1: Outcome.CANCELLED}

    def test_a_run_that_is_gone_when_it_is_cancelled_is_cancelled(self):
        """404 on the cancel and on the looks after it: it ended as was wanted."""
        play = Play().cancelling()
        cancel_fails(play, Cause.NOT_FOUND)
        deeds = []
        assert kinds(play.calls()) == [CheckRuns]
        while not (deeds := play.check_fails(Cause.NOT_FOUND)):
            play.check_again()

        assert endings(deeds) == {1: Outcome.CANCELLED}

    def test_a_second_stop_does_not_lose_the_cancel(self):
        """The deadline passed, and then the user gave up: the run is still cancelled."""
        play = Play(deadline_seconds=60.0).running()
        play.wait(60.0)
        assert play.state() is State.STOPPING

        assert play.stop() == []
        assert kinds(play.calls()) == [CancelRun]

    def test_stopping_again_does_not_prolong_the_grace(self):
        """Someone who presses the key again and again waits no longer."""
        play, deeds = Play(cancel_grace_seconds=30.0).stopping(), []
        for _ in range(40):
            deeds = deeds or play.wait(1.0)
            play.stop()

        assert endings(deeds) == {1: Outcome.CANCELLED}


class TestDeadline:
    def test_at_the_deadline_it_is_cancelled_remotely(self):
        """A hung run ends as `timed_out`, and costs nothing more."""
        play = Play(deadline_seconds=60.0).running()

        assert play.wait(60.0) == []
        assert kinds(play.calls()) == [CancelRun]

        result = ending(play.tell(CancelAccepted(1, ended(Status.CANCELLED))))
        assert (result.outcome, result.error.code) == (Outcome.TIMED_OUT, "deadline_exceeded")
        assert result.error.message == "not finished 60 s after it was first sent"
        assert result.seconds == 60.0

    def test_the_deadline_comes_before_the_next_check(self):
        """A run is looked after at its deadline, though its next check would be later."""
        play = Play(deadline_seconds=60.0).checking()
        play.seen(pending(hint=299.0))

        assert play.scheduler.next_due() == 60.0

    @pytest.mark.parametrize("state", [State.WAITING, State.TOOLS, State.ANSWERED])
    def test_where_nothing_is_on_the_server_it_ends_at_once(self, state):
        """Waiting to try again, tools at work, outputs waiting for a permit."""
        if state is State.WAITING:
            play = Play(deadline_seconds=60.0).creating()
            play.create_fails(Cause.RATE_LIMITED, retry_after_seconds=1_000.0)
        else:
            play = at(state, deadline_seconds=60.0)

        deeds = play.wait(60.0)

        assert ending(deeds).outcome is Outcome.TIMED_OUT
        assert any(isinstance(deed, StopTools) for deed in deeds) == (state is State.TOOLS)

    @pytest.mark.parametrize("state", [State.CREATING, State.CHECKING, State.SUBMITTING])
    def test_while_a_call_is_out_its_answer_comes_first(self, state):
        """The answer may be the result; if it is not, the run is cancelled."""
        play = at(state, deadline_seconds=60.0)
        assert play.wait(70.0) == []

        seen = pending("run_1b")
        tell = {
            State.CREATING: lambda: play.tell(RunCreated(1, seen)),
            State.CHECKING: lambda: play.seen(seen),
            State.SUBMITTING: lambda: play.outputs_accepted(seen),
        }[state]

        answered_at = play.now
        assert tell() == []
        play.wait_until_due()
        assert play.now == answered_at
        assert kinds(play.calls()) == [CancelRun]

    @pytest.mark.parametrize("state", [State.CREATING, State.SUBMITTING])
    def test_a_call_that_fails_after_the_deadline_is_the_last(self, state):
        """The outcome is `timed_out`, and the last failure is told with it."""
        play = at(state, deadline_seconds=60.0)
        play.wait(70.0)

        deeds = play.create_fails(LOST) if state is State.CREATING else play.outputs_fail(LOST)

        assert ending(deeds).outcome is Outcome.TIMED_OUT
        assert "connection_lost" in ending(deeds).error.message

    def test_time_before_the_first_create_does_not_count(self):
        """A request may wait for hours in a long line."""
        play = Play(deadline_seconds=60.0).running(1)
        play.admit(2)
        play.wait(50.0)
        play.calls()
        play.wait(50.0)

        assert play.state(2) is State.CREATING
        assert play.tell(RunCreated(2, pending("run_2"))) == []
        assert play.scheduler.roster.runs[2].deadline_at == 110.0

    def test_retries_do_not_move_the_deadline(self):
        """It counts from the first create, new runs included."""
        play = Play(deadline_seconds=60.0).checking()
        play.seen(ended(Status.FAILED, "server_error"))
        play.wait_until_due()
        play.call()
        play.tell(RunCreated(1, pending("run_2")))

        play.now = 59.9
        assert play.wait(0.1) == []
        assert play.state() is State.STOPPING
