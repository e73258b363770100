"""Failures that say something of the rest: refusals alike in a row, and answers that were lost."""

import pytest

from orchestrator.core.events import LineAnswered, OutputsFailed, RunCreated
from orchestrator.core.failures import Cause
from orchestrator.core.model import Family, Outcome, Status

from .batch_play import BatchPlay
from .play import LOST, Play, ended, ending, endings, failed, results_of


def refuse(play, *numbers, code="model_not_found", cause=Cause.NOT_FOUND):
    """Create each of these and have it refused; what was done after the last one."""
    deeds = []
    for number in numbers:
        play.creating(number)
        deeds = play.create_fails(cause, number, code=code)
    return deeds


class TestRefusedAlike:
    def test_the_creates_stop_at_the_last_straw(self):
        """It is said how many, which code, and what the server said; what waits is not sent."""
        play = Play(same_failures_max=3)
        refuse(play, 1, 2)
        play.creating(3)
        play.admit(4)

        deeds = play.create_fails(Cause.NOT_FOUND, 3, code="model_not_found")

        assert endings(deeds) == {3: Outcome.FAILED, 4: Outcome.STOPPED}
        error = results_of(deeds)[4].error
        assert error.code == "same_failure"
        assert error.message == (
            "3 requests in a row were refused with model_not_found: failed: not_found"
        )

    def test_what_runs_is_seen_to_its_end(self):
        """A run that was created before is not thrown away."""
        play = Play(same_failures_max=2).running(9)
        refuse(play, 1, 2)
        assert play.scheduler.creates_stopped is not None
        play.check_again()
        assert ending(play.seen(ended(run_id="run_9"), 9)).outcome is Outcome.COMPLETED

    @pytest.mark.parametrize("between", ["another code", "a good one", "a failed run"])
    def test_anything_else_in_between_begins_anew(self, between):
        """A file that has good lines goes on."""
        play = Play(same_failures_max=2)
        refuse(play, 1)
        if between == "another code":
            refuse(play, 2, code="invalid_value", cause=Cause.BAD_REQUEST)
        else:
            play.creating(2)
            seen = ended() if between == "a good one" else failed_run()
            play.tell(RunCreated(2, seen))
        refuse(play, 3)
        assert play.scheduler.creates_stopped is None

    def test_failed_runs_are_no_refusals(self):
        """They were worked on, each for itself."""
        play = Play(same_failures_max=2)
        for number in range(5):
            play.creating(number)
            play.tell(RunCreated(number, failed_run()))
        assert play.scheduler.creates_stopped is None

    def test_it_can_be_switched_off(self):
        """Who expects most lines to fail says 0."""
        play = Play(same_failures_max=0)
        refuse(play, *range(60))
        assert play.scheduler.creates_stopped is None

    def test_lines_of_a_batch_count(self):
        """Each has an answer of its own."""
        play = BatchPlay(same_failures_max=2).files_at(11, 12)
        for number in (11, 12):
            refusal = failed(Cause.BAD_REQUEST, code="invalid_value")
            play.tell(LineAnswered(-1, number, refusal))
        assert play.scheduler.creates_stopped.code == "same_failure"


def failed_run():
    return ended(Status.FAILED, "invalid_prompt")


class TestLostCreates:
    def test_it_is_left_when_that_is_wanted(self):
        """Nobody knows whether it is paid, so it is not sent again; it is told and counted."""
        play = Play(gives_up_lost=True).creating()

        result = ending(play.create_fails(LOST))

        assert (result.outcome, result.error.code) == (Outcome.UNKNOWN, "create_lost")
        assert result.error.message == (
            "whether it was done, and is to be paid, nobody knows: failed: connection_lost"
        )
        assert (result.lost, result.sent, play.scheduler.totals.creates_lost) == (1, 1, 1)

    def test_it_is_sent_again_otherwise(self):
        """The default: a result is worth more than the risk."""
        play = Play().creating()
        assert play.create_fails(LOST) == []

    def test_one_that_never_went_out_is_sent_again(self):
        """It can't be paid."""
        play = Play(gives_up_lost=True).creating()
        assert play.create_fails(Cause.NOT_SENT) == []

    def test_a_batch_is_looked_for_first(self):
        """What can be found is not given up."""
        play = BatchPlay(gives_up_lost=True).closed(11, 12)
        play.batch_call()
        play.prepared()
        play.take_create()
        assert play.create_fails(LOST, -1) == []
        play.wait_until_due()
        assert play.batch_call().lost == 1

    def test_tool_outputs_that_are_lost_are_left_too(self):
        """A turn that answers at once, or a new response, can't be looked at."""
        play = Play(gives_up_lost=True).submitting()
        assert ending(play.outputs_fail(LOST)).error.code == "create_lost"

    def test_a_run_that_waits_for_them_is_looked_at(self):
        """It says itself whether it has them."""
        play = Play(gives_up_lost=True, family=Family.ASSISTANTS).submitting()
        assert play.tell(OutputsFailed(1, failed(LOST))) == []
        assert play.scheduler.totals.creates_lost == 0
