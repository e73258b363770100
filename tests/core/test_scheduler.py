"""Which call goes out next, and which does not: urgency, lanes, tokens, the trial, late events."""

from itertools import pairwise

import pytest

from orchestrator.core.actions import CancelRun, CheckRuns, CreateRun, SubmitToolOutputs
from orchestrator.core.events import (
    CancelAccepted,
    CreatesStopped,
    OutputsAccepted,
    RunCreated,
    RunSeen,
)
from orchestrator.core.failures import Cause
from orchestrator.core.lanes import CREATE_SHARE
from orchestrator.core.model import Outcome, Status
from orchestrator.core.states import State

from .play import Play, asks, ended, ending, endings, kinds, pending


def with_crowd(play, numbers):
    """Many runs at work on the server, all due at the same time."""
    play.admit(*numbers)
    while calls := play.calls():  # twice, as the first create is on trial
        for call in calls:
            play.tell(RunCreated(call.number, pending(f"run_{call.number}")))
    return play


class TestUrgency:
    def test_outputs_before_cancels_before_checks_before_creates(self):
        """A run expires while its outputs wait, and costs money while its cancel waits."""
        play = with_crowd(Play(), [1, 2, 3])
        play.wait_until_due()
        assert play.call().runs[0].number == 1
        play.admit(4)
        play.stop(2)
        play.seen(asks("a"), 1)
        play.tool_gives("a", number=1)

        assert kinds(play.calls()) == [SubmitToolOutputs, CancelRun, CheckRuns, CreateRun]

    def test_checks_go_out_in_the_order_in_which_they_fall_due(self):
        """Of two due runs the one that has waited longer is looked at first."""
        play = Play().running(1)
        play.now += 0.1
        play.running(2)

        play.wait(1)

        assert [call.runs[0].number for call in play.calls()] == [1, 2]

    def test_creates_go_out_in_the_order_of_the_input(self):
        """The first line of the file is sent first."""
        play = Play().running(1)
        play.admit(2, 3, 4)

        assert [call.number for call in play.calls()] == [2, 3, 4]

    def test_a_create_to_be_sent_again_goes_before_new_ones(self):
        """What was begun is finished before something else is begun."""
        play = Play().creating(1)
        play.create_fails(Cause.SERVER_ERROR)
        play.admit(2)
        play.wait_until_due()

        assert [(call.number, call.attempt) for call in play.calls()] == [(1, 2), (2, 1)]

    def test_creates_have_a_floor(self):
        """One permit in ten goes to a create, however many checks wait."""
        play = with_crowd(Play(), range(1, 41))
        play.wait(1)
        play.admit(*range(41, 51))

        calls = play.calls()

        gaps = [at for at, call in enumerate(calls) if isinstance(call, CreateRun)]
        assert len(calls) == 50
        assert all(after - before <= CREATE_SHARE for before, after in pairwise(gaps))
        assert gaps[0] <= CREATE_SHARE - 1
        assert sum(at < 40 for at in gaps) == 4

    def test_checks_go_out_one_run_to_a_call(self):
        """Background responses have no list endpoint, so a group is one run."""
        play = with_crowd(Play(), [1, 2, 3])
        play.wait(1)

        assert [[run.run_id for run in call.runs] for call in play.calls()] == [
            ["run_1"],
            ["run_2"],
            ["run_3"],
        ]


class TestNoPermitForStaleWork:
    def test_a_stopped_request_is_not_created(self):
        """A request that is not wanted any more gives its place in the queue away."""
        play = Play().running(1)
        play.admit(2, 3)

        play.stop(2)

        assert [call.number for call in play.calls()] == [3]

    def test_a_run_that_is_cancelled_is_not_checked(self):
        """A run that waited for its check and is now to be cancelled is cancelled only."""
        play = Play().running(1)
        play.wait_until_due()

        play.stop(1)

        assert kinds(play.calls()) == [CancelRun]

    def test_a_queue_entry_left_behind_does_not_make_a_check_early(self):
        """Due, not wanted, cancel refused, looked at: its old place in the queue means nothing."""
        play = Play().running(1)
        play.wait_until_due()
        play.stop(1)
        assert isinstance(play.call(), CancelRun)
        play.tell(CancelAccepted(1, pending()))

        assert play.call() is None
        assert isinstance(play.check_again(), CheckRuns)

    def test_nothing_goes_out_before_it_is_due(self):
        """A run just created waits for its time."""
        play = Play().running(1)
        due_at = play.scheduler.next_due()

        play.wait(due_at - 0.01)
        assert play.calls() == []
        play.wait(0.01)
        assert kinds(play.calls()) == [CheckRuns]

    def test_while_a_call_is_out_no_other_is(self):
        """One call at a time for each run, whatever time passes."""
        play = Play().checking(1)
        play.wait(60)

        assert play.calls() == []
        assert play.scheduler.next_due() is None


class TestLanes:
    def test_each_model_has_its_own_lane(self):
        """The permits of one model are of no use to another."""
        play = Play().running(1)
        play.admit(2, model="other")

        assert play.calls("m") == []
        assert [call.number for call in play.calls("other")] == [2]

    def test_checks_and_cancels_share_the_lane_of_their_model(self):
        """Whether checks count against a model's limit is not documented, so they do."""
        play = with_crowd(Play(), [1, 2])
        play.stop(2)
        play.wait(1)

        assert play.scheduler.busy_lanes() == ["m"]
        assert kinds(play.calls()) == [CancelRun, CheckRuns]

    def test_checks_and_cancels_may_have_a_lane_of_their_own(self):
        """With a limit of their own, checks of all models wait for its permits."""
        play = Play(checks_lane="checks")
        play.running(1)
        play.running(2, model="other")
        play.running(3)
        play.stop(3)
        play.wait(1)

        assert play.scheduler.busy_lanes() == ["checks"]
        assert kinds(play.calls("checks")) == [CancelRun, CheckRuns, CheckRuns]

    def test_outputs_stay_in_the_lane_of_their_model(self):
        """Submitting outputs makes the model work, so it counts against the model's limit."""
        play = Play(checks_lane="checks").running(1)
        play.wait_until_due()
        assert isinstance(play.call("checks"), CheckRuns)
        play.seen(asks("a"))
        play.tool_gives("a")

        assert play.scheduler.busy_lanes() == ["m"]
        assert kinds(play.calls("m")) == [SubmitToolOutputs]


class TestTokens:
    def test_a_create_waits_for_its_tokens_and_a_check_does_not(self):
        """Too few tokens left hold back what costs tokens, and nothing else."""
        play = Play().running(1)
        play.admit(2, tokens=500)
        play.wait_until_due()

        assert kinds([play.call(tokens_free=499)]) == [CheckRuns]
        assert play.call(tokens_free=499) is None
        assert kinds([play.call(tokens_free=500)]) == [CreateRun]

    def test_outputs_wait_for_their_tokens(self):
        """A turn makes the model read everything again."""
        play = Play().answered()

        assert play.call(tokens_free=9) is None
        assert kinds([play.call(tokens_free=10)]) == [SubmitToolOutputs]

    def test_tokens_wanted_are_those_of_the_most_urgent_call(self):
        """The driver learns what the next call reserves before it takes a permit."""
        play = Play().running(1)
        assert play.scheduler.tokens_wanted("m", play.now) == 0

        play.admit(2, tokens=500)
        assert play.scheduler.tokens_wanted("m", play.now) == 500

        play.wait_until_due()
        assert play.scheduler.tokens_wanted("m", play.now) == 0


class TestTrial:
    def test_until_the_first_create_is_answered_no_second_one_is_sent(self):
        """A refused key costs one call and not a thousand."""
        play = Play()
        play.admit(1, 2, 3)

        assert [call.number for call in play.calls()] == [1]
        play.tell(RunCreated(1, pending()))
        assert [call.number for call in play.calls()] == [2, 3]

    def test_the_trial_holds_for_all_models(self):
        """One key opens all of them, or none."""
        play = Play()
        play.admit(1)
        play.admit(2, model="other")

        assert [call.number for call in play.calls()] == [1]
        assert play.calls("other") == []

    def test_a_slow_first_answer_holds_nobody_up_for_long(self):
        """A refusal comes within milliseconds; after two seconds the rest is sent."""
        play = Play(trial_seconds=2.0)
        play.admit(1, 2)
        assert [call.number for call in play.calls()] == [1]

        assert play.scheduler.next_due() == 2.0
        play.wait(1.9)
        assert play.calls() == []
        play.wait(0.1)

        assert [call.number for call in play.calls()] == [2]

    def test_a_server_that_is_not_there_is_asked_by_one_create_at_a_time(self):
        """No connection for the first: the second waits, and is the next on trial."""
        play = Play()
        play.admit(1, 2, 3)
        play.calls()
        play.create_fails(Cause.NOT_SENT, 1)

        assert play.calls() == []
        play.wait(0.6)
        assert len(play.calls()) == 1

    def test_a_server_that_is_never_there_stops_the_execution(self):
        """Six creates in a row found no server within seconds: every request is stopped."""
        play = Play(unreached_max=6)
        play.admit(*range(1, 50))
        outcomes, calls = {}, 0
        while play.scheduler.in_flight:
            for call in play.calls():
                calls += 1
                outcomes |= endings(play.create_fails(Cause.NOT_SENT, call.number))
            if play.scheduler.in_flight:
                outcomes |= endings(play.wait_until_due())

        assert calls == 6
        assert set(outcomes.values()) == {Outcome.STOPPED}
        assert len(outcomes) == 49
        assert play.now < 20

    def test_a_server_that_was_there_once_is_waited_for(self):
        """After one answer a broken connection is a failure like others."""
        play = Play(unreached_max=2).running(1)
        play.admit(2, 3, 4, 5)

        for call in play.calls():
            assert play.create_fails(Cause.NOT_SENT, call.number) == []

    def test_nobody_is_woken_for_a_trial_that_is_over(self):
        """While the first answer is still out there is nothing to wake for, again and again."""
        play = Play(trial_seconds=2.0).creating(1)

        play.wait_until_due()

        assert play.now == 2.0
        assert play.scheduler.next_due() is None

    @pytest.mark.parametrize("cause", [Cause.AUTHENTICATION, Cause.QUOTA])
    def test_a_refusal_of_the_first_create_stops_everything(self, cause):
        """A bad key or an empty account: one call is sent, and every request ends `stopped`."""
        play = Play()
        play.admit(1, 2, 3)
        assert [call.number for call in play.calls()] == [1]

        deeds = play.create_fails(cause, code="invalid_api_key", retry_after_seconds=1.0)
        deeds += play.admit(4)

        assert endings(deeds) == dict.fromkeys([1, 2, 3, 4], Outcome.STOPPED)
        assert play.calls() == []
        assert play.scheduler.creates_stopped.code == "invalid_api_key"
        assert (play.scheduler.in_flight, play.scheduler.next_due()) == (0, None)


class TestCreatesStopped:
    def test_what_waits_ends_and_what_runs_is_seen_to_its_end(self):
        """An interrupt creates nothing new and throws away nothing that is paid for."""
        play = Play().running(1)
        play.admit(2, 3)

        deeds = play.tell(CreatesStopped("interrupted", "interrupted by the user"))

        assert endings(deeds) == {2: Outcome.STOPPED, 3: Outcome.STOPPED}
        assert ending(deeds[:1]).error.code == "interrupted"
        assert isinstance(play.check_again(), CheckRuns)
        assert endings(play.seen(ended())) == {1: Outcome.COMPLETED}

    def test_a_create_that_is_out_may_become_a_run(self):
        """Its answer decides."""
        play = Play().creating(1)
        play.tell(CreatesStopped("interrupted", "interrupted by the user"))

        assert play.tell(RunCreated(1, pending())) == []
        assert play.state() is State.RUNNING

    def test_a_create_that_failed_is_not_sent_again(self):
        """Nothing new is created, nor tried again."""
        play = Play().creating(1)
        play.tell(CreatesStopped("interrupted", "interrupted by the user"))

        deeds = play.create_fails(Cause.SERVER_ERROR)

        assert ending(deeds).outcome is Outcome.STOPPED
        assert ending(deeds).error.code == "interrupted"

    def test_a_failed_run_is_not_run_again(self):
        """A new run would be a create."""
        play = Play().checking(1)
        play.tell(CreatesStopped("interrupted", "interrupted by the user"))

        result = ending(play.seen(ended(Status.FAILED, "server_error")))

        assert (result.outcome, result.error.code) == (Outcome.FAILED, "server_error")

    def test_the_first_reason_stands(self):
        """What came after the first reason is a consequence of it."""
        play = Play().running(1)
        play.tell(CreatesStopped("interrupted", "interrupted by the user"))
        play.tell(CreatesStopped("budget", "the budget is spent"))

        assert play.scheduler.creates_stopped.code == "interrupted"


class TestOneRequestOneResult:
    def test_two_requests_with_the_same_body_are_both_run(self):
        """Requests are told apart by their place in the input, not by what they say."""
        play = Play().running(1)
        play.running(2)
        play.wait(1)
        assert len(play.calls()) == 2

        deeds = play.seen(ended(run_id="run_1"), 1) + play.seen(ended(run_id="run_2"), 2)

        assert endings(deeds) == {1: Outcome.COMPLETED, 2: Outcome.COMPLETED}
        assert [deed.result.custom_id for deed in deeds] == ["r1", "r2"]
        assert [deed.result.run_id for deed in deeds] == ["run_1", "run_2"]

    def test_late_events_mean_nothing(self):
        """An answer that comes after the end of its request changes nothing."""
        play = Play().checking(1)
        play.stop(1, cancel_remote=False)
        before = play.scheduler.totals.outcomes.copy()

        deeds = [
            *play.seen(ended()),
            *play.check_fails(Cause.SERVER_ERROR),
            *play.create_fails(Cause.AUTHENTICATION),
            *play.outputs_fail(Cause.QUOTA),
            *play.tool_gives("a"),
            *play.stop(1),
            *play.tell(RunCreated(1, pending())),
            *play.tell(RunSeen(1, pending())),
            *play.tell(OutputsAccepted(1, pending())),
            *play.tell(CancelAccepted(1, pending())),
            *play.wait(10_000),
        ]

        assert deeds == []
        assert play.scheduler.totals.outcomes == before
        assert play.scheduler.creates_stopped is None

    def test_a_result_tells_what_it_took(self):
        """Creates, checks, turns, tokens of all turns, and the time from the first create."""
        play = Play().submitting()
        play.outputs_accepted(pending("run_1b"))
        play.check_again()

        result = ending(play.seen(ended(run_id="run_1b")))

        assert (result.creates, result.checks, result.turns) == (1, 2, 1)
        assert (result.usage.input_tokens, result.usage.output_tokens) == (3, 4)
        assert (result.run_id, result.seconds) == ("run_1b", pytest.approx(1.0))
