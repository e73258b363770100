"""Runs that stay on the server while their tools work, and whose result takes a call."""

import pytest

from orchestrator.core.actions import (
    CancelRun,
    CheckRuns,
    CreateRun,
    FetchResult,
    StopTools,
    SubmitToolOutputs,
)
from orchestrator.core.events import CancelAccepted, CancelFailed, CreatesStopped, RunCreated
from orchestrator.core.failures import Cause
from orchestrator.core.model import NO_USAGE, Family, Outcome, RunError, Seen, Status, Times
from orchestrator.core.states import DONE, State

from .play import LOST, Play, asks, ended, ending, endings, failed, kinds, pending, tools

HELD = [Family.ASSISTANTS, Family.AGENT_SESSIONS]

STATES = {
    State.WAITING: lambda play: play.admit(1),
    State.CREATING: lambda play: play.creating(),
    State.RUNNING: lambda play: play.running(),
    State.CHECKING: lambda play: play.checking(),
    State.TOOLS: lambda play: play.at_tools(),
    State.ANSWERED: lambda play: play.answered(),
    State.SUBMITTING: lambda play: play.submitting(),
    State.FINISHED: lambda play: play.finished(),
    State.FETCHING: lambda play: play.fetching(),
    State.STOPPING: lambda play: play.stopping(),
    State.CANCELLING: lambda play: play.cancelling(),
}


def assistant(**rules):
    return Play(family=Family.ASSISTANTS, **rules)


def at(state, **rules):
    play = assistant(**rules)
    STATES[state](play)
    assert play.state() is state
    return play


def result_of(status=Status.COMPLETED, code=None, **more):
    """The answer to a fetch; its tokens were counted before."""
    error = None if code is None else RunError(code, f"told as {code}")
    return Seen("run_1", status, status.value, error=error, usage=NO_USAGE, **more)


def test_all_states_are_tried():
    """A new state has to be thought of here."""
    assert set(STATES) == set(State) - {State.ENDED}


class TestFetching:
    @pytest.mark.parametrize("family", HELD)
    @pytest.mark.parametrize("status", [Status.COMPLETED, Status.INCOMPLETE])
    def test_what_finished_is_fetched(self, family, status):
        """The end is seen by a check, the result comes by a call of its own; paid once."""
        play = Play(family=family).checking()

        assert play.seen(ended(status)) == []
        (call,) = play.calls()
        times = Times(completed=7.0)
        result = ending(play.fetched(result_of(status, times=times)))

        assert isinstance(call, FetchResult)
        assert (call.run_id, call.finished.status) == ("run_1", status)
        assert result.outcome.value == status.value
        assert (result.usage.output_tokens, result.times) == (4, times)

    @pytest.mark.parametrize("status", [Status.FAILED, Status.CANCELLED, Status.UNKNOWN])
    def test_what_did_not_finish_is_not_fetched(self, status):
        """There is no result to ask for."""
        play = assistant().checking()

        assert endings(play.seen(ended(status, "no_use"))) == {1: Outcome(status.value)}
        assert play.calls() == []

    @pytest.mark.parametrize(
        "tell",
        [
            lambda play: play.creating().tell(RunCreated(1, ended())),
            lambda play: play.submitting().outputs_accepted(ended()),
            lambda play: play.cancelling().tell(CancelAccepted(1, ended())),
        ],
        ids=["create", "outputs", "cancel"],
    )
    def test_the_end_may_be_seen_in_any_answer(self, tell):
        """Whatever call shows it, the result is fetched next."""
        play = assistant()

        assert tell(play) == []

        assert kinds(play.calls()) == [FetchResult]
        assert endings(play.fetched(result_of())) == {1: Outcome.COMPLETED}

    def test_a_result_may_come_in_pieces(self):
        """As long as there is more, the next call is told what came before; each is counted."""
        play = Play(family=Family.AGENT_SESSIONS).fetching()
        piece = ended()

        more = Seen("run_1", Status.COMPLETED, "completed", usage=piece.usage, continuation=b"1")
        assert play.fetched(more) == []
        (call,) = play.calls()
        assert call.finished.continuation == b"1"

        assert ending(play.fetched(result_of())).usage.output_tokens == 8

    def test_a_fetch_that_failed_is_tried_again(self):
        """Less and less often, and the row of failures ends with an answer."""
        play, gaps = assistant().fetching(), []
        for cause in [LOST, Cause.SERVER_ERROR, Cause.CONFLICT]:
            before = play.now
            assert play.fetch_fails(cause) == []
            play.wait_until_due()
            assert kinds(play.calls()) == [FetchResult]
            gaps.append(play.now - before)

        assert gaps == pytest.approx([0.375, 0.75, 1.5])
        assert endings(play.fetched(result_of())) == {1: Outcome.COMPLETED}

    def test_being_turned_away_is_no_failure(self):
        """The limit has no room yet; the result is paid for."""
        play = assistant(check_failures_max=2).fetching()
        for _ in range(10):
            assert play.fetch_fails(Cause.RATE_LIMITED) == []
            play.wait_until_due()
            assert kinds(play.calls()) == [FetchResult]

    @pytest.mark.parametrize(
        ("cause", "times", "outcome"),
        [
            (Cause.NOT_FOUND, 3, Outcome.EXPIRED),
            (Cause.BAD_REQUEST, 3, Outcome.UNKNOWN),
            (Cause.SERVER_ERROR, 20, Outcome.UNKNOWN),
            (Cause.AUTHENTICATION, 1, Outcome.UNKNOWN),
        ],
    )
    def test_a_result_that_can_not_be_had_is_told(self, cause, times, outcome):
        """404 three times: it is gone. What was seen of the run is kept, and its tokens."""
        play, fetches = assistant(not_found_max=3, check_failures_max=20).fetching(), 1
        while not (deeds := play.fetch_fails(cause)):
            play.wait_until_due()
            assert kinds(play.calls()) == [FetchResult]
            fetches += 1

        result = ending(deeds)
        assert (fetches, result.outcome) == (times, outcome)
        assert result.error.code == "result_not_fetched"
        assert result.usage.output_tokens == 4

    def test_no_deadline_cuts_a_fetch(self):
        """The work is done and paid for."""
        play = assistant(deadline_seconds=60.0).finished()

        assert play.wait(100) == []
        (call,) = play.calls()
        assert isinstance(call, FetchResult)
        assert play.wait(100) == []
        assert play.fetch_fails(LOST) == []
        assert play.scheduler.next_due() > play.now
        assert play.wait(100) == []
        assert kinds(play.calls()) == [FetchResult]

        assert endings(play.fetched(result_of())) == {1: Outcome.COMPLETED}

    def test_not_finished_after_all(self):
        """An idle session whose turn has not begun goes on being looked at."""
        play = Play(family=Family.AGENT_SESSIONS).fetching()

        assert play.fetched(pending()) == []
        assert play.state() is State.RUNNING
        assert isinstance(play.check_again(), CheckRuns)
        play.seen(ended())
        play.call()

        assert endings(play.fetched(result_of())) == {1: Outcome.COMPLETED}

    def test_not_finished_after_all_and_out_of_time(self):
        """Then the deadline holds again: it is cancelled."""
        play = assistant(deadline_seconds=60.0).fetching()
        play.wait(100)
        play.fetched(pending())

        assert play.wait_until_due() == []
        assert kinds(play.calls()) == [CancelRun]
        deeds = play.tell(CancelAccepted(1, ended(Status.CANCELLED)))
        assert endings(deeds) == {1: Outcome.TIMED_OUT}

    @pytest.mark.parametrize(
        ("code", "outcome"), [("server_error", None), ("invalid_prompt", Outcome.FAILED)]
    )
    def test_a_turn_that_turns_out_to_have_failed(self, code, outcome):
        """The server's own trouble is worth another run; a bad request is not."""
        play = Play(family=Family.AGENT_SESSIONS).fetching()

        deeds = play.fetched(result_of(Status.FAILED, code))

        if outcome is None:
            assert deeds == []
            play.wait_until_due()
            assert kinds(play.calls()) == [CreateRun]
        else:
            assert endings(deeds) == {1: outcome}

    def test_nothing_runs_again_when_creates_are_stopped(self):
        """A new run would be a create."""
        play = Play(family=Family.AGENT_SESSIONS).fetching()
        play.tell(CreatesStopped("interrupted", "by the user"))

        deeds = play.fetched(result_of(Status.FAILED, "server_error"))

        assert endings(deeds) == {1: Outcome.FAILED}


class TestStopped:
    @pytest.mark.parametrize("state", sorted(set(STATES) - {State.CREATING}))
    def test_without_a_cancel_it_ends_at_once(self, state):
        """Wherever it stands; handlers at work are told."""
        play = at(state)

        deeds = play.stop(cancel_remote=False)

        assert endings(deeds) == {1: Outcome.CANCELLED}
        assert any(isinstance(deed, StopTools) for deed in deeds) == (state is State.TOOLS)
        assert (play.calls(), play.scheduler.in_flight) == ([], 0)

    @pytest.mark.parametrize("state", sorted(set(STATES) - {State.WAITING, *DONE}))
    def test_with_a_cancel_nothing_is_left_on_the_server(self, state):
        """Also while tools are at work: the run waits on the server and is cancelled there."""
        play = at(state)

        deeds = play.stop(cancel_remote=True)

        assert endings(deeds) == {}
        assert [type(deed) for deed in deeds] == ([StopTools] if state is State.TOOLS else [])
        answer = {
            State.CREATING: lambda: play.tell(RunCreated(1, pending())),
            State.CHECKING: lambda: play.seen(pending()),
            State.SUBMITTING: lambda: play.outputs_accepted(pending()),
        }.get(state, list)
        assert answer() == []
        if state is not State.CANCELLING:
            assert kinds(play.calls()) == [CancelRun]
        deeds = play.tell(CancelAccepted(1, ended(Status.CANCELLED)))
        assert endings(deeds) == {1: Outcome.CANCELLED}

    @pytest.mark.parametrize("state", sorted(DONE))
    def test_what_is_done_is_fetched_all_the_same(self, state):
        """There is nothing left to cancel, and the result is paid for."""
        play = at(state)

        assert play.stop(cancel_remote=True) == []
        play.calls()

        assert endings(play.fetched(result_of())) == {1: Outcome.COMPLETED}

    def test_done_was_wrong_and_nobody_wants_it(self):
        """The turn runs after all: it is cancelled."""
        play = at(State.FETCHING)
        play.stop(cancel_remote=True)

        assert play.fetched(pending()) == []

        assert kinds(play.calls()) == [CancelRun]

    def test_a_handler_that_answers_after_the_stop_is_not_heard(self):
        """Its run is on its way to be cancelled."""
        play = at(State.TOOLS)
        play.stop()

        assert play.tool_gives("a") == []
        assert kinds(play.calls()) == [CancelRun]

    @pytest.mark.parametrize("cause", [LOST, Cause.BAD_REQUEST, Cause.SERVER_ERROR, Cause.NOT_SENT])
    def test_outputs_that_failed_are_followed_by_the_cancel(self, cause):
        """Whether they arrived or not, the run is still on the server."""
        play = at(State.SUBMITTING)
        play.stop()

        assert play.outputs_fail(cause) == []

        assert kinds(play.calls()) == [CancelRun]

    def test_a_run_that_still_asks_after_the_cancel_is_left_alone_in_the_end(self):
        """A cancel that was accepted and does nothing: the grace bounds the wait."""
        play = assistant(cancel_grace_seconds=30.0).cancelling()
        assert play.tell(CancelAccepted(1, asks("a"))) == []
        deeds = []
        while not deeds:
            deeds = play.wait_until_due()
            for _ in play.calls():
                assert tools(play.seen(asks("a"))) == []

        assert play.now == pytest.approx(30.0, abs=1.0)
        assert endings(deeds) == {1: Outcome.CANCELLED}

    def test_the_deadline_while_tools_are_at_work_cancels(self):
        """The handlers are told, and the run does not wait on the server for nobody."""
        play = assistant(deadline_seconds=60.0).at_tools()

        deeds = play.wait(60)

        assert [type(deed) for deed in deeds] == [StopTools]
        assert kinds(play.calls()) == [CancelRun]
        deeds = play.tell(CancelAccepted(1, ended(Status.CANCELLED)))
        assert endings(deeds) == {1: Outcome.TIMED_OUT}


class TestOutputs:
    @pytest.mark.parametrize("cause", [LOST, Cause.TIMED_OUT, Cause.BAD_REQUEST, Cause.CONFLICT])
    def test_refused_or_lost_outputs_are_followed_by_a_look(self, cause):
        """Nobody knows whether they were taken; the run says it."""
        play = at(State.SUBMITTING)

        assert play.outputs_fail(cause) == []

        assert isinstance(play.check_again(), CheckRuns)
        assert play.seen(pending()) == []

    def test_outputs_that_were_not_taken_are_kept(self):
        """The run still asks: the same outputs go out again, and no handler is called twice."""
        play = assistant().submitting("a", "b")
        play.outputs_fail(LOST)
        play.check_again()

        deeds = play.seen(asks("a", "b"))

        assert tools(deeds) == []
        (call,) = play.calls()
        assert isinstance(call, SubmitToolOutputs)
        assert [output.output for output in call.outputs] == ["out of a", "out of b"]
        assert play.outputs_accepted(pending()) == []

    def test_a_call_that_is_new_is_answered_beside_the_kept_ones(self):
        """Only what has no output yet costs a handler."""
        play = assistant().submitting("a")
        play.outputs_fail(Cause.BAD_REQUEST)
        play.check_again()

        assert tools(play.seen(asks("b", "a"))) == ["b"]
        play.tool_gives("b")

        (call,) = play.calls()
        assert [output.call_id for output in call.outputs] == ["b", "a"]

    def test_outputs_that_never_got_out_are_sent_again_without_a_look(self):
        """Nothing happened on the server."""
        play = at(State.SUBMITTING)
        play.outputs_fail(Cause.NOT_SENT)

        play.wait_until_due()

        assert kinds(play.calls()) == [SubmitToolOutputs]

    def test_outputs_that_are_refused_again_and_again_end_the_run(self):
        """Looks in between are answered and yet the refusals are a row; then it is cancelled."""
        play, submissions, gaps = assistant(attempts_max=4).submitting(), 1, []
        while True:
            before = play.now
            assert play.outputs_fail(Cause.BAD_REQUEST, code="no_good") == []
            if play.state() is not State.RUNNING:
                break
            play.check_again()
            gaps.append(play.now - before)
            assert tools(play.seen(asks("a"))) == []
            assert kinds(play.calls()) == [SubmitToolOutputs]
            submissions += 1

        assert submissions == 4
        assert gaps == pytest.approx([0.375, 0.75, 1.5])
        assert kinds(play.calls()) == [CancelRun]
        result = ending(play.tell(CancelAccepted(1, ended(Status.CANCELLED))))
        assert (result.outcome, result.error.code) == (Outcome.FAILED, "no_good")

    def test_outputs_that_nobody_takes_leave_no_run_behind(self):
        """Server trouble to the last attempt: the run still waits, so it is cancelled."""
        play = assistant(attempts_max=3).submitting()
        while play.state() is not State.STOPPING:
            assert play.outputs_fail(Cause.SERVER_ERROR) == []
            if play.state() is State.ANSWERED:
                play.wait_until_due()
                assert kinds(play.calls()) == [SubmitToolOutputs]

        assert kinds(play.calls()) == [CancelRun]
        deeds = play.tell(CancelFailed(1, failed(Cause.AUTHENTICATION)))
        assert endings(deeds) == {1: Outcome.FAILED}

    def test_a_turn_that_was_taken_starts_the_count_anew(self):
        """Refusals of one turn say nothing about the next."""
        play = assistant(attempts_max=2).submitting()
        play.outputs_fail(LOST)
        play.check_again()
        play.seen(asks("a"))
        play.call()
        play.outputs_accepted(pending())
        play.check_again()
        play.seen(asks("b"))
        play.tool_gives("b")
        play.call()

        assert play.outputs_fail(LOST) == []
        assert play.state() is State.RUNNING

    def test_the_same_calls_are_not_answered_twice(self):
        """The status may lag behind the outputs."""
        play = at(State.SUBMITTING)
        play.outputs_accepted(asks("a"))

        for _ in range(5):
            play.check_again()
            assert play.seen(asks("a")) == []

        assert play.state() is State.RUNNING

    def test_a_run_that_never_sees_its_outputs_is_cancelled(self):
        """It waits on the server for what it has."""
        play = assistant(stale_looks_max=3).submitting()
        play.outputs_accepted(asks("a"))
        while play.state() is State.RUNNING:
            play.check_again()
            assert play.seen(asks("a")) == []

        assert kinds(play.calls()) == [CancelRun]
        result = ending(play.tell(CancelAccepted(1, ended(Status.CANCELLED))))
        assert (result.outcome, result.error.code) == (Outcome.FAILED, "tool_outputs_ignored")

    @pytest.mark.parametrize("state", [State.CREATING, State.CHECKING, State.SUBMITTING])
    def test_what_nobody_can_answer_is_cancelled_and_failed(self, state):
        """An approval without a handler is not waited for."""
        play = at(state)
        error = RunError("unknown_action", "no handler")
        question = asks("z", unanswerable=error)
        tell = {
            State.CREATING: lambda: play.tell(RunCreated(1, question)),
            State.CHECKING: lambda: play.seen(question),
            State.SUBMITTING: lambda: play.outputs_accepted(question),
        }[state]

        assert tell() == []
        assert kinds(play.calls()) == [CancelRun]
        assert play.tell(CancelAccepted(1, pending())) == []
        play.check_again()
        result = ending(play.seen(ended(Status.CANCELLED)))

        assert (result.outcome, result.error) == (Outcome.FAILED, error)

    def test_too_many_turns_are_cancelled_and_failed(self):
        """A model that calls tools in a circle."""
        play = assistant(turns_max=1).submitting()
        play.outputs_accepted(pending())
        play.check_again()

        assert play.seen(asks("b")) == []

        assert kinds(play.calls()) == [CancelRun]
        result = ending(play.tell(CancelAccepted(1, ended(Status.CANCELLED))))
        assert (result.outcome, result.error.code) == (Outcome.FAILED, "too_many_turns")


class TestExpiry:
    def test_handlers_are_stopped_when_the_run_has_expired(self):
        """What they would still bring is of no use; a look tells how things stand."""
        play = assistant().checking()
        play.seen(asks("a", lives_seconds=600.0))

        assert play.wait(590) == []
        deeds = play.wait(10)

        assert [type(deed) for deed in deeds] == [StopTools]
        assert kinds(play.calls()) == [CheckRuns]
        assert play.tool_gives("a") == []

    def test_a_run_that_outlives_its_time_goes_on(self):
        """The server still waits: its clock is not ours, so its word counts."""
        play = assistant().checking()
        play.seen(asks("a", lives_seconds=600.0))
        play.wait(600)
        play.calls()

        assert tools(play.seen(asks("a", lives_seconds=600.0))) == ["a"]
        assert play.wait(600) == []
        play.tool_gives("a")

        assert kinds(play.calls()) == [SubmitToolOutputs]

    def test_an_expired_run_is_started_anew_twice(self):
        """Each time costs what it costs; then the outcome is expired."""
        play, creates = assistant(expired_runs_max=2).creating(), 1
        while True:
            play.tell(RunCreated(1, pending(f"run_{creates}")))
            play.check_again()
            deeds = play.seen(ended(Status.EXPIRED, "expired", run_id=f"run_{creates}"))
            if deeds:
                break
            play.wait_until_due()
            assert kinds(play.calls()) == [CreateRun]
            creates += 1

        result = ending(deeds)
        assert (creates, result.outcome, result.creates) == (3, Outcome.EXPIRED, 3)
        assert result.usage.output_tokens == 12

    def test_a_session_that_expired_is_not_started_anew(self):
        """Only a family that says so gets a second run."""
        play = Play(family=Family.AGENT_SESSIONS).checking()

        assert endings(play.seen(ended(Status.EXPIRED))) == {1: Outcome.EXPIRED}

    def test_a_new_run_knows_nothing_of_the_old_ones_tools(self):
        """Its calls are all new, its outputs too, even under the same ids."""
        play = assistant().submitting("a")
        play.outputs_fail(Cause.BAD_REQUEST)
        play.check_again()
        play.seen(ended(Status.EXPIRED, "expired"))
        play.wait_until_due()
        play.calls()
        play.tell(RunCreated(1, pending("run_2")))
        play.check_again()

        assert tools(play.seen(asks("a", run_id="run_2"))) == ["a"]
