"""What follows from a call that failed: again, later, or never."""

import pytest

from orchestrator.core.actions import CheckRuns, CreateRun, SubmitToolOutputs
from orchestrator.core.events import RunCreated
from orchestrator.core.failures import VERDICT_ON_CHECK, VERDICT_ON_CREATE, Cause, Verdict
from orchestrator.core.model import Family, Outcome
from orchestrator.core.states import State

from .batch_play import BatchPlay
from .play import LOST, Play, asks, ended, ending, endings, kinds, pending, results_of


def test_every_cause_has_a_verdict():
    """Whatever the transport names, there is an answer to it."""
    assert set(VERDICT_ON_CREATE) == set(VERDICT_ON_CHECK) == set(Cause)


class TestCreates:
    def test_a_lost_create_is_counted_and_sent_again(self):
        """The server may have done the work: it is sent again, and said to be paid twice."""
        play = Play().creating()

        assert play.create_fails(LOST) == []

        assert play.scheduler.totals.creates_lost == 1
        play.wait_until_due()
        assert kinds(play.calls()) == [CreateRun]

    def test_a_create_that_was_not_sent_is_not_lost(self):
        """Nothing went out, so nothing can be paid twice."""
        play = Play().creating()
        play.create_fails(Cause.NOT_SENT)

        assert (play.scheduler.totals.creates_lost, play.scheduler.totals.retries) == (0, 1)

    @pytest.mark.parametrize("family", sorted(set(Family) - {Family.BATCH}))
    def test_attempts_are_bounded(self, family):
        """Ten failures in a row are enough, and the last one is told."""
        play, deeds, attempts = Play(attempts_max=10), [], []
        play.admit(1, family=family)
        while not deeds:
            attempts.append(play.call().attempt)
            deeds = play.create_fails(Cause.SERVER_ERROR, code="overloaded", status_code=503)
            if not deeds:
                play.wait_until_due()

        result = ending(deeds)
        assert attempts == list(range(1, 11))
        assert (result.outcome, result.error.code) == (Outcome.FAILED, "overloaded")
        assert result.creates == 0

    def test_attempts_of_a_batch_are_bounded(self):
        """Ten failed uploads are enough; each request that it carries is told the last one."""
        play, deeds, attempts = BatchPlay(attempts_max=10), [], []
        play.closed(1, 2)
        while not deeds:
            attempts.append(play.batch_call().attempt)
            deeds = play.create_fails(Cause.SERVER_ERROR, -1, code="overloaded", status_code=503)
            if not deeds:
                play.wait_until_due()

        results = results_of(deeds)
        assert attempts == list(range(1, 11))
        assert {n: (r.outcome, r.error.code) for n, r in results.items()} == {
            1: (Outcome.FAILED, "overloaded"),
            2: (Outcome.FAILED, "overloaded"),
        }
        assert [result.creates for result in results.values()] == [0, 0]

    def test_a_success_starts_the_count_anew(self):
        """The bound is on failures in a row; a create that worked ends the row."""
        play = Play(attempts_max=3).creating()
        play.create_fails(LOST)
        play.wait_until_due()
        play.call()
        play.create_fails(LOST)
        play.wait_until_due()
        play.call()
        play.tell(RunCreated(1, asks("a")))
        play.tool_gives("a")
        play.call()

        assert play.outputs_fail(LOST) == []
        assert play.state() is State.ANSWERED

    def test_waits_between_attempts_grow(self):
        """Server trouble is left more and more time."""
        play, times = Play().creating(), []
        for _ in range(4):
            before = play.now
            play.create_fails(Cause.SERVER_ERROR)
            play.wait_until_due()
            play.call()
            times.append(play.now - before)

        assert times == pytest.approx([0.375, 0.75, 1.5, 3.0])

    def test_being_turned_away_is_not_an_attempt(self):
        """A rate limit says nothing about the request."""
        play = Play(attempts_max=2).creating()
        for _ in range(50):
            assert play.create_fails(Cause.RATE_LIMITED) == []
            play.wait_until_due()
            assert kinds(play.calls()) == [CreateRun]

        assert play.scheduler.totals.waits == 50

    def test_being_turned_away_has_a_bound_too(self):
        """A limit that leaves no room at all is not asked for ever."""
        play, deeds = Play(waits_max=5).creating(), []
        for _ in range(6):
            assert not deeds
            deeds = play.create_fails(Cause.RATE_LIMITED, code="rate_limit_exceeded")
            play.wait_until_due() if not deeds else None
            play.calls()

        assert ending(deeds).error.code == "rate_limit_exceeded"

    def test_retry_after_is_a_minimum(self):
        """Nobody comes back before the time that the server named."""
        play = Play().creating()
        play.create_fails(Cause.RATE_LIMITED, retry_after_seconds=20.0)

        play.wait(20.0)
        assert play.calls() == []
        play.wait(0.5)
        assert kinds(play.calls()) == [CreateRun]

    @pytest.mark.parametrize("cause", [Cause.BAD_REQUEST, Cause.PERMISSION, Cause.NOT_FOUND])
    def test_what_will_never_work_is_not_tried_again(self, cause):
        """The same body gives the same answer; the other requests go on."""
        play = Play().running(1)
        play.creating(2)

        assert endings(play.create_fails(cause, number=2)) == {2: Outcome.FAILED}
        assert play.scheduler.creates_stopped is None
        assert play.state(1) is State.RUNNING


class TestOutputs:
    def test_attempts_to_submit_are_bounded(self):
        """Outputs that nobody takes end the request."""
        play, deeds, calls = Play(attempts_max=4).submitting(), [], 1
        while not (deeds := play.outputs_fail(Cause.SERVER_ERROR)):
            play.wait_until_due()
            assert isinstance(play.call(), SubmitToolOutputs)
            calls += 1

        assert (calls, ending(deeds).outcome) == (4, Outcome.FAILED)

    def test_refused_outputs_end_the_request(self):
        """A 400 says that these outputs will never do."""
        play = Play().submitting()

        assert ending(play.outputs_fail(Cause.BAD_REQUEST)).outcome is Outcome.FAILED


class TestChecks:
    def test_a_bad_gateway_never_ends_a_run(self):
        """The run is paid for: one bad answer to a check means nothing."""
        play = Play().checking()

        assert play.check_fails(Cause.SERVER_ERROR, status_code=502) == []

        assert isinstance(play.check_again(), CheckRuns)
        assert endings(play.seen(ended())) == {1: Outcome.COMPLETED}

    @pytest.mark.parametrize(
        ("cause", "outcome"),
        [(Cause.NOT_FOUND, Outcome.EXPIRED), (Cause.BAD_REQUEST, Outcome.UNKNOWN)],
    )
    def test_a_run_that_is_missing_three_times_is_gone(self, cause, outcome):
        """404: the server forgot it. 400, as some servers say it: we don't know what happened."""
        play, looks = Play(not_found_max=3).checking(), 1
        while not (deeds := play.check_fails(cause)):
            play.check_again()
            looks += 1

        assert (looks, ending(deeds).outcome) == (3, outcome)

    def test_a_run_that_was_missing_for_a_moment_goes_on(self):
        """A new run may not be visible everywhere at once; being seen ends the row."""
        play = Play(not_found_max=3).checking()
        for _ in range(3):
            for _ in range(2):
                assert play.check_fails(Cause.NOT_FOUND) == []
                play.check_again()
            play.seen(pending())
            play.check_again()

    def test_other_failures_do_not_make_a_run_missing(self):
        """After a row of bad gateways the first 404 is still the first."""
        play = Play(not_found_max=3).checking()
        for cause in [Cause.SERVER_ERROR] * 5 + [Cause.NOT_FOUND] * 2:
            assert play.check_fails(cause) == []
            play.check_again()

        assert endings(play.check_fails(Cause.NOT_FOUND)) == {1: Outcome.EXPIRED}

    def test_failing_checks_are_bounded(self):
        """A server in trouble for ten minutes ends the request, with the last failure told."""
        play, looks = Play(check_failures_max=20).checking(), 1
        while not (deeds := play.check_fails(Cause.SERVER_ERROR, code="bad_gateway")):
            play.check_again()
            looks += 1

        result = ending(deeds)
        assert (looks, result.outcome) == (20, Outcome.UNKNOWN)
        assert result.error.code == "bad_gateway"

    @pytest.mark.parametrize("cause", [Cause.RATE_LIMITED, Cause.QUOTA])
    def test_a_check_that_is_turned_away_is_tried_less_and_less_often(self, cause):
        """Looking costs nothing and the work is paid, so an empty account does not end it."""
        play, gaps = Play(check_failures_max=2).checking(), []
        for _ in range(5):
            before = play.now
            assert play.check_fails(cause) == []
            play.check_again()
            gaps.append(play.now - before)

        assert gaps == pytest.approx([0.375, 0.75, 1.5, 3.0, 6.0])
        assert play.scheduler.creates_stopped is None

    def test_a_long_retry_after_does_not_outlast_the_result(self):
        """To be turned away once more costs less than a result that is gone."""
        play = Play().checking()
        before = play.now
        play.check_fails(Cause.RATE_LIMITED, retry_after_seconds=3_000.0)

        assert play.scheduler.next_due() - before == 300

    def test_a_refused_key_stops_everything(self):
        """A key that was revoked meanwhile: nothing more can be learnt or created."""
        play = Play().running(1)
        play.check_again()
        play.admit(2)

        deeds = play.check_fails(Cause.AUTHENTICATION, code="invalid_api_key")

        assert endings(deeds) == {1: Outcome.STOPPED, 2: Outcome.STOPPED}
        assert play.scheduler.creates_stopped.code == "invalid_api_key"

    def test_a_quota_that_ends_midway_leaves_what_runs(self):
        """No new work is paid, but what is paid already is fetched."""
        play = Play().running(1)
        play.creating(2)
        assert endings(play.create_fails(Cause.QUOTA, number=2)) == {2: Outcome.STOPPED}

        play.check_again()

        assert endings(play.seen(ended())) == {1: Outcome.COMPLETED}


@pytest.mark.parametrize("cause", [c for c in Cause if VERDICT_ON_CREATE[c] is Verdict.RETRY])
def test_what_may_work_is_tried_again_everywhere(cause):
    """Creates, checks and outputs: the same trouble has the same cure."""
    play = Play().creating()
    assert play.create_fails(cause) == []
    play.wait_until_due()
    play.call()
    play.tell(RunCreated(1, pending()))
    play.check_again()
    assert play.check_fails(cause) == []
    play.check_again()
    play.seen(asks("a"))
    play.tool_gives("a")
    play.call()
    assert play.outputs_fail(cause) == []
    play.wait_until_due()
    assert kinds(play.calls()) == [SubmitToolOutputs]
