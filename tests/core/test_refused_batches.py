"""Batches whose validation fails: nothing was done and nothing is paid."""

import pytest

from orchestrator.core.failures import Cause
from orchestrator.core.model import Outcome, RunError, Status

from .batch_play import IDLE_SECONDS, BatchPlay, batch_seen, packed_again
from .play import BROKEN, ending, endings, results_of


def test_lines_at_fault_fail_and_the_others_go_again():
    """The errors name lines by their place in the file."""
    play = BatchPlay().out(11, 12, 13)
    errors = {2: RunError("bad_line", "no such model")}

    deeds = play.looked_at(batch_seen(Status.FAILED, "bad_line", line_errors=errors))

    assert endings(deeds) == {12: Outcome.FAILED}
    refused = RunError("bad_line", "no such model", Cause.BAD_REQUEST)
    assert results_of(deeds)[12].error == refused
    assert packed_again(play, 11, 13)
    assert play.scheduler.totals.creates_lost == 0


def test_places_are_those_of_the_file_that_was_taken():
    """A request that was stopped before the file was uploaded again is not in it."""
    play = BatchPlay().closed(1, 2, 3)
    play.batch_call()
    play.create_fails(BROKEN, -1)
    play.stop(1)
    play.wait_until_due()
    assert [line.number for line in play.batch_call().lines] == [2, 3]
    play.prepared()
    play.take_create()
    play.created()
    errors = {2: RunError("bad_line", "no such model")}

    deeds = play.looked_at(batch_seen(Status.FAILED, "bad_line", line_errors=errors))

    assert endings(deeds) == {3: Outcome.FAILED}


def test_a_request_that_was_stopped_keeps_its_place_in_the_file():
    """It was stopped when the file was there."""
    play = BatchPlay().out(1, 2, 3)
    play.stop(1)
    errors = {2: RunError("bad_line", "no such model")}

    deeds = play.looked_at(batch_seen(Status.FAILED, "bad_line", line_errors=errors))

    assert endings(deeds) == {2: Outcome.FAILED}


def test_errors_about_lines_that_are_not_there():
    """Sent again it would be refused again, and nobody knows which line is at fault."""
    play = BatchPlay().out(1, 2)
    errors = {3: RunError("empty_line", "it ends with an empty line")}

    deeds = play.looked_at(batch_seen(Status.FAILED, "empty_line", line_errors=errors))

    assert endings(deeds) == dict.fromkeys((1, 2), Outcome.FAILED)


def test_a_refusal_of_the_whole_fails_each_line():
    """With the server's own words, and the id of the batch."""
    play = BatchPlay().out(1, 2)

    results = results_of(play.looked_at(batch_seen(Status.FAILED, "mismatched_model")))

    assert {r.outcome for r in results.values()} == {Outcome.FAILED}
    assert results[2].error.code == "mismatched_model"
    assert results[2].error.message == "batch_1 was refused: told as mismatched_model"


@pytest.mark.parametrize("code", ["too_many_tasks", "file_too_large"])
def test_what_is_too_large_is_halved(code):
    """And so is all that is packed later."""
    play = BatchPlay().out(1, 2, 3, 4, body_bytes=100)

    assert endings(play.looked_at(batch_seen(Status.FAILED, code))) == {}

    play.wait(0.5)
    play.wait(IDLE_SECONDS)
    assert play.uploads() == [[1, 2], [3, 4]]


def test_a_single_line_that_is_too_large_fails():
    """It can't be halved."""
    play = BatchPlay().out(1)

    result = ending(play.looked_at(batch_seen(Status.FAILED, "file_too_large")))

    assert (result.outcome, result.error.code) == (Outcome.FAILED, "file_too_large")


def test_the_servers_own_trouble_is_tried_again():
    """With the bound that calls have."""
    play = BatchPlay(attempts_max=2).out(1)

    assert endings(play.looked_at(batch_seen(Status.FAILED, "server_error"))) == {}
    assert packed_again(play, 1)
    play.created(-2)
    deeds = play.looked_at(batch_seen(Status.FAILED, "server_error", run_id="batch_2"), -2)

    assert endings(deeds) == {1: Outcome.FAILED}
