"""What follows from what is seen of a run: look again, call tools, run again, finish."""

import pytest

from orchestrator.core.actions import CheckRuns, CreateRun, SubmitToolOutputs
from orchestrator.core.events import CreatesStopped, RunCreated
from orchestrator.core.failures import Cause
from orchestrator.core.model import Family, Outcome, Seen, Status, ToolOutput
from orchestrator.core.states import State

from .play import LOST, Play, asks, ended, ending, endings, kinds, pending, tools


class TestEnds:
    @pytest.mark.parametrize(
        ("status", "outcome"),
        [
            (Status.COMPLETED, Outcome.COMPLETED),
            (Status.FAILED, Outcome.FAILED),
            (Status.EXPIRED, Outcome.EXPIRED),
            (Status.CANCELLED, Outcome.CANCELLED),
            (Status.INCOMPLETE, Outcome.INCOMPLETE),
        ],
    )
    def test_a_status_that_is_an_end_is_the_outcome(self, status, outcome):
        """What the server calls the end is the end, and its answer is kept."""
        play = Play().checking()

        assert ending(play.seen(ended(status))).outcome is outcome
        assert play.scheduler.in_flight == 0

    def test_an_unknown_status_is_named(self):
        """A word that we don't know is an error that says the word, never an endless loop."""
        play = Play().checking()

        result = ending(play.seen(ended(Status.UNKNOWN, said="daydreaming")))

        assert result.outcome is Outcome.UNKNOWN
        assert (result.error.code, "'daydreaming'" in result.error.message) == (
            "unknown_status",
            True,
        )

    def test_a_create_may_answer_with_the_end(self):
        """Some servers ignore `background` and answer at once; there is nothing to check then."""
        play = Play().creating()

        result = ending(play.tell(RunCreated(1, ended())))

        assert (result.outcome, result.checks) == (Outcome.COMPLETED, 0)

    @pytest.mark.parametrize("seen", [pending(), asks()])
    def test_a_direct_answer_that_is_no_end_is_not_understood(self, seen):
        """No run is left behind by a direct endpoint, so there is nothing to look at again."""
        play = Play().creating(family=Family.DIRECT)

        result = ending(play.tell(RunCreated(1, seen)))

        assert (result.outcome, result.error.code) == (Outcome.UNKNOWN, "unfinished_answer")
        assert repr(seen.said) in result.error.message

    def test_the_delay_of_noticing_is_never_more_than_the_gap(self):
        """The server's clock may be wrong; between two checks is where the run ended."""
        play = Play()
        delays = play.scheduler.totals.detection_delays_seconds
        for number, (ago, expected) in enumerate(
            [(None, 0.25), (0.1, 0.1), (99.0, 0.5), (-3.0, 0.0)], start=1
        ):
            play.checking(number)
            play.seen(Seen(f"run_{number}", Status.COMPLETED, "", finished_seconds_ago=ago), number)
            assert delays[-1] == pytest.approx(expected)


class TestLookingAgain:
    def test_gaps_grow_from_check_to_check(self):
        """A long run is looked at less and less often."""
        play, times = Play().running(), []
        for _ in range(4):
            play.check_again()
            times.append(play.now)
            play.seen(pending())

        assert times == pytest.approx([0.5, 1.25, 2.375, 4.0625])

    def test_a_hint_is_respected(self):
        """When the server asks to be left alone for a while, it is."""
        play = Play().checking()
        play.seen(pending(hint=12.0))

        play.wait(11.9)
        assert play.calls() == []
        play.wait(0.1)
        assert kinds(play.calls()) == [CheckRuns]

    def test_a_hint_never_outlasts_the_result(self):
        """A background response is kept for ten minutes: after five it is looked at."""
        play = Play().checking()
        before = play.now
        play.seen(pending(hint=86_400.0))

        assert play.scheduler.next_due() - before == 300

    def test_after_tool_outputs_the_gaps_are_short_again(self):
        """A new turn is a new wait."""
        play = Play().submitting()
        before = play.now
        play.outputs_accepted(pending("run_1b"))

        assert play.scheduler.next_due() - before == pytest.approx(0.5)


class TestRunAgain:
    def test_the_servers_own_trouble_is_worth_a_new_run(self):
        """`server_error` says nothing against the request."""
        play = Play().checking()

        assert play.seen(ended(Status.FAILED, "server_error")) == []

        play.wait_until_due()
        (call,) = play.calls()
        assert (type(call), call.attempt) == (CreateRun, 2)
        assert play.scheduler.totals.retries == 1

    def test_new_runs_are_bounded(self):
        """Ten runs that fail are enough; the tokens of all of them are counted."""
        play, deeds, creates = Play(attempts_max=10), [], 0
        play.admit(1)
        while not deeds:
            creates += isinstance(play.call(), CreateRun)
            deeds = play.tell(RunCreated(1, ended(Status.FAILED, "server_error", f"run_{creates}")))
            if not deeds:
                play.wait_until_due()

        result = ending(deeds)
        assert (creates, result.outcome, result.creates) == (10, Outcome.FAILED, 10)
        assert result.usage.input_tokens == 30

    @pytest.mark.parametrize("code", ["invalid_prompt", "some_new_code", None])
    def test_a_fault_of_the_request_is_not(self, code):
        """The same body would fail in the same way, and be paid again."""
        play = Play().checking()

        result = ending(play.seen(ended(Status.FAILED, code)))

        assert result.outcome is Outcome.FAILED
        assert code is None or result.error.code == code

    def test_a_new_run_is_a_new_run(self):
        """The id of the failed run is forgotten, and the new one is checked."""
        play = Play().checking()
        play.seen(ended(Status.FAILED, "server_error"))
        play.wait_until_due()
        play.call()
        play.tell(RunCreated(1, pending("run_2")))

        assert play.check_again().runs[0].run_id == "run_2"

    def test_no_new_run_for_a_request_that_is_not_wanted(self):
        """Stopped while its check was out: the failed run is not replaced."""
        play = Play().checking()
        play.stop()

        assert ending(play.seen(ended(Status.FAILED, "server_error"))).outcome is Outcome.CANCELLED


class TestTools:
    def test_several_calls_one_submission_in_the_order_asked(self):
        """Handlers finish in any order; the model gets its outputs in the order of its asking."""
        play = Play().checking()

        assert tools(play.seen(asks("a", "b", "c"))) == ["a", "b", "c"]

        for call_id in ["c", "a"]:
            play.tool_gives(call_id)
            assert play.calls() == []
        play.tool_gives("b")
        (call,) = play.calls()
        assert [(o.call_id, o.output) for o in call.outputs] == [
            ("a", "out of a"),
            ("b", "out of b"),
            ("c", "out of c"),
        ]
        assert (call.run_id, call.continuation) == ("run_1", b"[]")

    def test_a_call_named_twice_is_one_call(self):
        """One id, one handler, one output."""
        play = Play().checking()

        assert tools(play.seen(asks("a", "b", "a"))) == ["a", "b"]

        play.tool_gives("a")
        play.tool_gives("b")
        assert [o.call_id for o in play.call().outputs] == ["a", "b"]

    def test_the_first_output_of_a_call_stands(self):
        """A second output of the same call is dropped, before and after the turn is complete."""
        play = Play().at_tools("a", "b")
        play.tool_gives("a", "first")
        play.tool_gives("a", "second")
        assert play.state() is State.TOOLS
        play.tool_gives("b")
        play.tool_gives("b", "late")

        assert [o.output for o in play.call().outputs] == ["first", "out of b"]

    def test_an_output_that_nobody_asked_for_is_no_answer(self):
        """An output of some other call does not complete the turn."""
        play = Play().at_tools("a", "b")
        play.tool_gives("a")
        play.tool_gives("stranger")

        assert play.calls() == []
        play.tool_gives("b")
        assert [o.call_id for o in play.call().outputs] == ["a", "b"]

    def test_calls_seen_again_after_acceptance_are_not_answered_twice(self):
        """The status may lag behind: it is looked at again, and the next turn is answered."""
        play = Play().submitting("a")

        assert play.outputs_accepted(asks("a")) == []
        for _ in range(3):
            play.check_again()
            assert play.seen(asks("a")) == []
        play.check_again()
        assert tools(play.seen(asks("a", "b"))) == ["b"]
        play.tool_gives("b")
        assert [o.call_id for o in play.call().outputs] == ["b"]

    def test_calls_seen_again_are_looked_at_soon_and_not_for_ever(self):
        """A server that ignores the outputs for good is a failure that says so."""
        play = Play(stale_looks_max=5).submitting("a")
        deeds, before = play.outputs_accepted(asks("a")), play.now
        while not deeds:
            play.check_again()
            deeds = play.seen(asks("a"))

        result = ending(deeds)
        assert (result.outcome, result.error.code) == (Outcome.FAILED, "tool_outputs_ignored")
        assert play.now - before == pytest.approx(5 * 0.5)

    def test_a_wish_without_tool_calls_is_looked_at_again_within_bounds(self):
        """`requires_action` that names no call may be a moment too early."""
        play = Play(stale_looks_max=3).creating()
        deeds = play.tell(RunCreated(1, asks()))
        while not deeds:
            play.check_again()
            deeds = play.seen(asks())

        assert ending(deeds).outcome is Outcome.FAILED

    def test_a_new_run_may_number_its_calls_as_the_one_before(self):
        """Call ids are told apart within one run only."""
        play = Play().submitting("call_0")

        assert tools(play.outputs_accepted(asks("call_0", run_id="run_1b"))) == ["call_0"]

    @pytest.mark.parametrize("run_id", ["chat_2", ""])
    def test_a_direct_turn_may_number_its_calls_as_the_one_before(self, run_id):
        """A direct answer is always a new turn, whatever the server calls it."""
        play = Play().creating(family=Family.DIRECT)
        assert tools(play.tell(RunCreated(1, asks("call_0", run_id="")))) == ["call_0"]
        play.tool_gives("call_0")
        assert isinstance(play.call(), SubmitToolOutputs)

        assert tools(play.outputs_accepted(asks("call_0", run_id=run_id))) == ["call_0"]
        play.tool_gives("call_0")
        play.call()
        assert endings(play.outputs_accepted(ended())) == {1: Outcome.COMPLETED}

    def test_turns_are_bounded(self):
        """A model that calls tools in a circle is stopped after the last turn allowed."""
        play, deeds = Play(turns_max=3).submitting("t0"), []
        for turn in range(1, 4):
            deeds = play.outputs_accepted(asks(f"t{turn}", run_id=f"run_{turn}b"))
            if tools(deeds):
                play.tool_gives(f"t{turn}")
                play.call()

        result = ending(deeds)
        assert (result.outcome, result.error.code) == (Outcome.FAILED, "too_many_turns")
        assert result.turns == 3

    def test_lost_outputs_are_sent_again(self):
        """The tools are not called again; the same outputs go out once more."""
        play = Play().submitting("a")

        assert play.outputs_fail(LOST) == []
        assert play.calls() == []
        play.wait_until_due()

        (call,) = play.calls()
        assert call.outputs == (ToolOutput("a", "out of a"),)

    def test_tools_still_answer_when_nothing_new_is_created(self):
        """Submitting outputs goes on with a run that is paid for."""
        play = Play().submitting("a")
        play.tell(CreatesStopped("interrupted", "interrupted by the user"))
        play.outputs_fail(Cause.SERVER_ERROR)
        play.wait_until_due()

        assert kinds(play.calls()) == [SubmitToolOutputs]
