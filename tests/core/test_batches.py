"""The life of a batch, and what becomes of the requests that it carries."""

from dataclasses import replace
from itertools import pairwise

import pytest

from orchestrator.core.actions import CheckRuns, CreateRun, FetchResult
from orchestrator.core.failures import Cause
from orchestrator.core.model import Outcome, Status, Usage
from orchestrator.core.states import State

from .batch_play import IDLE_SECONDS, BatchPlay, batch_seen, dropped, packed_again
from .play import (
    BROKEN,
    LOST,
    asks,
    ended,
    ending,
    endings,
    failed,
    kinds,
    pending,
    results_of,
    tools,
)

DAY = 86_400.0
UNDONE = failed(Cause.UNDONE, code="batch_expired")


class TestCreating:
    def test_a_batch_is_uploaded_and_then_created(self):
        """Two calls, each with a permit of its own; the lines are there for the first one."""
        play = BatchPlay().closed(1, 2)

        (upload,) = play.batch_calls()
        assert [line.request.custom_id for line in upload.lines] == ["r1", "r2"]
        assert (upload.prepared, upload.request.tokens) == (None, 0)
        assert play.prepared() == []
        (create,) = play.batch_calls()
        assert (create.prepared, create.lines, create.group) == (b"file", (), upload.group)
        assert play.created() == []

        assert [play.state(n) for n in (-1, 1, 2)] == [State.RUNNING, *[State.CREATING] * 2]
        totals = play.scheduler.totals
        assert (totals.batches, totals.lines_sent, totals.lines_out) == (1, 2, 2)

    def test_an_upload_that_failed_is_sent_again_whole(self):
        """There is no file yet."""
        play = BatchPlay().closed(1, 2)
        play.batch_call()
        play.create_fails(BROKEN, -1)
        play.wait_until_due()

        call = play.batch_call()

        assert [line.number for line in call.lines] == [1, 2]
        assert (call.attempt, call.lost) == (2, 0)
        assert play.scheduler.totals.lines_sent == 0  # the upload alone costs nothing

    def test_a_create_that_failed_is_not_uploaded_again(self):
        """The file is there."""
        play = BatchPlay().closed(1)
        play.batch_call()
        play.prepared()
        play.take_create()
        play.create_fails(BROKEN, -1)
        play.wait_until_due()

        assert play.take_create().lost == 0

    def test_a_lost_create_is_waited_for_before_it_is_looked_for(self):
        """Lists lag; the call that follows knows that an answer was lost."""
        play = BatchPlay(list_lag_seconds=10.0).closed(1)
        play.batch_call()
        play.prepared()
        play.take_create()
        play.create_fails(LOST, -1)

        play.wait(9.9)
        assert play.batch_calls() == []
        play.wait(0.1)

        assert play.take_create().lost == 1
        assert play.scheduler.totals.creates_lost == 1

    @pytest.mark.parametrize(
        "found",
        [
            pending("batch_1"),
            batch_seen(Status.FAILED, "token_limit_exceeded", queue_tokens_max=10_000),
            batch_seen(Status.FAILED, "server_error"),
            batch_seen(Status.EXPIRED),
            batch_seen(Status.COMPLETED, files=b"output"),
        ],
        ids=lambda seen: f"{seen.said} {seen.error.code if seen.error else ''}",
    )
    def test_a_batch_that_was_found_is_not_lost(self, found):
        """Whatever became of it meanwhile, a look takes it from there."""
        play = BatchPlay().closed(1)
        play.batch_call()
        play.prepared()
        play.take_create()
        play.create_fails(LOST, -1)
        play.wait_until_due()
        play.take_create()

        assert play.created(-1, replace(found, found=True)) == []

        assert play.scheduler.totals.creates_lost == 0
        assert endings(play.looked_at(found)) == {}
        assert play.state(1) is (
            State.WAITING if found.status in {Status.FAILED, Status.EXPIRED} else State.CREATING
        )

    def test_a_refused_key_stops_everything(self):
        """The first upload is on trial; nothing else was sent, and nothing will be."""
        play = BatchPlay(batch_lines_max=2).closed(1, 2, 3)
        assert kinds(play.batch_calls()) == [CreateRun]

        deeds = play.create_fails(Cause.AUTHENTICATION, -1, code="invalid_api_key")

        assert endings(deeds) == dict.fromkeys((1, 2, 3), Outcome.STOPPED)
        assert sorted(dropped(deeds)) == [-2, -1]
        assert play.scheduler.creates_stopped.code == "invalid_api_key"
        assert endings(play.admit(4)) == {4: Outcome.STOPPED}

    def test_a_refused_create_fails_each_line(self):
        """No other batch of theirs would be taken."""
        play = BatchPlay().closed(1, 2)
        play.batch_call()

        deeds = play.create_fails(Cause.PERMISSION, -1, code="no_batches")

        assert endings(deeds) == dict.fromkeys((1, 2), Outcome.FAILED)
        assert dropped(deeds) == [-1]


class TestAnswers:
    def test_lines_are_answered_as_calls_are(self):
        """Each ends when its line is read; the batch is over when its last file is."""
        play = BatchPlay().files_at(1, 2, 3)

        deeds = play.line(2)
        assert endings(deeds) == {2: Outcome.COMPLETED}
        assert ending(deeds).batch_usage == ending(deeds).usage == Usage(3, 4)
        assert endings(play.line(1, ended(Status.INCOMPLETE))) == {1: Outcome.INCOMPLETE}
        assert play.file_read(files=b"errors") == []
        assert kinds(play.batch_calls()) == [FetchResult]
        deeds = play.line(3, failed(Cause.BAD_REQUEST, code="bad"))
        assert endings(deeds) == {3: Outcome.FAILED}
        assert ending(deeds).error.code == "bad"

        assert dropped(play.file_read()) == [-1]
        totals = play.scheduler.totals
        assert (totals.lines_answered, totals.lines_out, totals.batches_open) == (3, 0, 0)
        assert totals.batches_by_end == {"completed": 1}

    def test_a_line_that_comes_twice_counts_once(self):
        """Files may be read again after a lost answer."""
        play = BatchPlay().files_at(1, 2)
        play.line(1)

        assert play.line(1) == []
        assert play.line(7) == []
        assert play.scheduler.totals.lines_answered == 1

    def test_a_line_of_another_batch_means_nothing(self):
        """A batch speaks for what it carries, and only while it is there."""
        play = BatchPlay().files_at(1)

        assert play.line(1, batch=-2) == []
        assert play.state(1) is State.CREATING

    def test_a_fetch_is_told_what_is_still_awaited(self):
        """Lines that were read do not have to be found again."""
        play = BatchPlay().out(1, 2)
        play.looked_at(batch_seen(Status.COMPLETED, files=b"output"))
        (fetch,) = play.batch_calls()
        assert [line.number for line in fetch.lines] == [1, 2]
        play.line(1)
        play.file_read(files=b"errors")

        (fetch,) = play.batch_calls()

        assert [line.number for line in fetch.lines] == [2]
        assert fetch.finished.continuation == b"errors"

    def test_tool_calls_go_round_by_batch(self):
        """Handlers run as ever; what they give goes out as a line of another batch."""
        play = BatchPlay().files_at(1)
        deeds = play.line(1, asks("a", "b"))
        assert tools(deeds) == ["a", "b"]
        play.file_read()
        play.tool_gives("b")
        play.tool_gives("a")
        play.wait(IDLE_SECONDS)

        (line,) = play.batch_call().lines

        assert [output.call_id for output in line.outputs] == ["a", "b"]
        assert line.continuation == b"[]"
        assert play.state(1) is State.SUBMITTING
        play.prepared(-2)
        play.take_create(-2)
        play.created(-2)
        play.looked_at(batch_seen(Status.COMPLETED, files=b"output", run_id="batch_2"), -2)
        play.batch_call()
        result = ending(play.line(1, batch=-2))
        assert (result.outcome, result.turns, result.sent) == (Outcome.COMPLETED, 1, 1)

    def test_tool_outputs_that_were_not_delivered_are_kept(self):
        """No handler is called again; the same line goes into the next batch."""
        play = BatchPlay().files_at(1)
        play.line(1, asks("a"))
        play.file_read()
        play.tool_gives("a", "found")
        play.wait(IDLE_SECONDS)
        play.uploads()
        play.created(-2)

        assert play.looked_at(batch_seen(Status.EXPIRED, run_id="batch_2"), -2)
        play.wait(0.5)
        play.wait(IDLE_SECONDS)

        (line,) = play.batch_call().lines
        assert [output.output for output in line.outputs] == ["found"]

    def test_a_run_that_failed_goes_into_the_next_batch(self):
        """As a call would be repeated that failed by the server's fault."""
        play = BatchPlay().files_at(1, 2)
        assert play.line(1, ended(Status.FAILED, "server_error")) == []
        assert play.line(2, failed(Cause.RATE_LIMITED, code="rate_limit_exceeded")) == []
        play.file_read()

        assert packed_again(play, 1, 2)

    def test_what_the_server_has_answered_is_counted(self):
        """For the progress display, long before the files can be read."""
        play = BatchPlay().out(1, 2, 3)
        play.looked_at(batch_seen(Status.PENDING, answered=2))
        assert play.scheduler.totals.lines_answered_there == 2

        play.looked_at(batch_seen(Status.EXPIRED, answered=3))

        assert play.scheduler.totals.lines_answered_there == 0


class TestOver:
    @pytest.mark.parametrize("status", [Status.EXPIRED, Status.CANCELLED])
    def test_what_was_not_done_goes_into_the_next_batch(self, status):
        """What was done is kept, the rest costs nothing; told by its line or by silence."""
        play = BatchPlay().files_at(1, 2, 3, status=status)
        assert endings(play.line(1)) == {1: Outcome.COMPLETED}
        assert play.line(2, UNDONE) == []

        assert dropped(play.file_read(status)) == [-1]

        assert packed_again(play, 2, 3)
        totals = play.scheduler.totals
        assert (totals.lines_answered, totals.lines_undone, totals.creates_lost) == (1, 2, 0)

    def test_a_line_that_is_missing_may_be_paid_for(self):
        """The batch completed, so it was done; it is sent again, and said to be lost."""
        play = BatchPlay().files_at(1, 2)
        play.line(1)

        play.file_read()

        assert play.scheduler.totals.creates_lost == 1
        assert packed_again(play, 2)

    def test_a_line_that_is_missing_each_time_is_given_up(self):
        """Each time may be paid for."""
        play = BatchPlay(malformed_max=1).files_at(1, 2)
        play.line(1)

        result = results_of(play.file_read())[2]

        assert (result.outcome, result.error.code) == (Outcome.FAILED, "malformed_answer")
        assert result.lost == 1

    def test_a_batch_that_completed_without_any_output(self):
        """To send it all again would be paid again, and would end like this again."""
        play = BatchPlay().out(1, 2)

        results = results_of(play.looked_at(batch_seen(Status.COMPLETED, answered=2)))

        assert {n: r.outcome for n, r in results.items()} == {
            1: Outcome.UNKNOWN,
            2: Outcome.UNKNOWN,
        }
        assert results[1].error.code == "batch_output_missing"

    def test_an_unknown_status_ends_it(self):
        """The error names the word that nobody knows."""
        play = BatchPlay().out(1)

        result = ending(play.looked_at(batch_seen(Status.UNKNOWN, said="dozing")))

        assert (result.outcome, result.error.code) == (Outcome.UNKNOWN, "unknown_status")
        assert "'dozing'" in result.error.message

    @pytest.mark.parametrize(
        ("cause", "times", "outcome"),
        [(Cause.NOT_FOUND, 3, Outcome.EXPIRED), (BROKEN, 20, Outcome.UNKNOWN)],
    )
    def test_a_file_that_cannot_be_read_is_given_up(self, cause, times, outcome):
        """What was read is kept; the rest is told that its result could not be fetched."""
        play = BatchPlay().files_at(1, 2)
        play.line(1)
        for _ in range(times - 1):
            assert play.fetch_fails(cause, -1) == []
            play.wait_until_due()
            assert kinds(play.batch_calls()) == [FetchResult]

        deeds = play.fetch_fails(cause, -1)

        assert endings(deeds) == {2: outcome}
        assert results_of(deeds)[2].error.code == "result_not_fetched"
        assert dropped(deeds) == [-1]

    def test_a_batch_that_its_server_forgot(self):
        """Three times not found is gone, with all that it carries."""
        play, deeds = BatchPlay(list_lag_seconds=0.0).out(1, 2), []
        play.check_batch()
        play.missing(-1)
        while not deeds:
            if (call := play.batch_call()) is None:
                play.wait_until_due()
            else:
                assert isinstance(call, CheckRuns)
                deeds = play.check_fails(Cause.NOT_FOUND, -1)

        assert endings(deeds) == dict.fromkeys((1, 2), Outcome.EXPIRED)

    def test_a_batch_is_looked_at_in_growing_gaps_up_to_a_minute(self):
        """It takes minutes to a day."""
        play, moments = BatchPlay().out(1), []
        for _ in range(14):
            moments.append(play.now)
            play.looked_at(pending("batch_1"))

        gaps = [after - before for before, after in pairwise(moments)]
        assert gaps[:3] == pytest.approx([2.0, 3.0, 4.5])
        assert gaps[-1] == pytest.approx(60.0)

    def test_batches_are_looked_at_together(self):
        """One call lists a hundred of them."""
        play = BatchPlay(batch_lines_max=1).closed(1, 2, 3)
        play.uploads()
        for number in (-1, -2, -3):
            play.created(number)

        call = play.check_batch()

        assert [run.number for run in call.runs] == [-1, -2, -3]
