"""Batches that end before their time: deadlines, stops of what they carry, and of everything."""

import pytest

from orchestrator.core.actions import CancelRun, CheckRuns, FetchResult
from orchestrator.core.events import CancelAccepted, CancelFailed, CreatesStopped
from orchestrator.core.failures import Cause
from orchestrator.core.model import Outcome, Seen, Status
from orchestrator.core.states import State

from .batch_play import IDLE_SECONDS, BatchPlay, batch_seen, dropped
from .play import BROKEN, LOST, asks, endings, failed, kinds, pending, results_of

DAY = 86_400.0
HOUR = 3_600.0


def stop_creates(play):
    return play.tell(CreatesStopped("interrupted", "by the user"))


def cancelled_late(play, number=-1):
    """The batch's deadline passes: it is cancelled, and the cancel is accepted."""
    while (call := play.batch_call()) is None:
        assert play.wait_until_due() == []
    if isinstance(call, CheckRuns):
        play.seen(pending(f"batch_{-number}", hint=10 * DAY), number)
        return cancelled_late(play, number)
    assert isinstance(call, CancelRun)
    assert play.tell(CancelAccepted(number, pending(f"batch_{-number}"))) == []
    return play


class TestDeadlines:
    def test_a_batch_that_did_not_end_in_its_window_is_cancelled(self):
        """Its server has forgotten it; what it did not do goes into the next one."""
        play = BatchPlay(batch_late_seconds=HOUR).out(1)

        cancelled_late(play)

        assert play.now == pytest.approx(IDLE_SECONDS + DAY + HOUR)
        play.looked_at(batch_seen(Status.CANCELLED))
        assert play.state(1) is State.WAITING

    def test_the_window_that_a_server_tells_counts(self):
        """Not every server gives a day."""
        play = BatchPlay(batch_late_seconds=HOUR).closed(1)
        play.batch_call()
        play.prepared()
        play.take_create()
        play.created(-1, Seen("batch_1", Status.PENDING, "validating", lives_seconds=7 * HOUR))

        cancelled_late(play)

        assert play.now == pytest.approx(IDLE_SECONDS + 8 * HOUR)

    def test_the_earliest_deadline_of_its_requests_counts(self):
        """The one whose time is up ends; the others have time for another batch."""
        play = BatchPlay(batch_deadline_seconds=DAY).files_at(1)
        play.line(1, failed(BROKEN))
        play.file_read()
        play.wait(HOUR)
        play.admit(2)
        play.wait(IDLE_SECONDS)
        assert play.uploads() == [[1, 2]]
        play.created(-2)

        cancelled_late(play, -2)

        assert play.now == pytest.approx(IDLE_SECONDS + DAY)  # since the first batch of 1
        deeds = play.looked_at(batch_seen(Status.CANCELLED, run_id="batch_2"), -2)
        assert endings(deeds) == {1: Outcome.TIMED_OUT}
        assert results_of(deeds)[1].error.code == "deadline_exceeded"
        assert play.state(2) is State.WAITING

    def test_what_a_cancelled_batch_has_done_is_kept(self):
        """It is paid for, and comes with the files."""
        play = BatchPlay(batch_deadline_seconds=DAY).out(1, 2)
        cancelled_late(play)
        play.looked_at(batch_seen(Status.CANCELLED, files=b"output"))
        assert kinds(play.batch_calls()) == [FetchResult]

        assert endings(play.line(1)) == {1: Outcome.COMPLETED}
        deeds = play.file_read(Status.CANCELLED)

        assert endings(deeds) == {2: Outcome.TIMED_OUT}

    def test_a_cancel_that_never_ends_is_given_up(self):
        """After the grace nobody waits any more; what it did may be paid for."""
        play = BatchPlay(batch_cancel_grace_seconds=900.0).out(1)
        cancelled_late(play)
        cancelled_at = play.now

        deeds = []
        while not deeds:
            if play.batch_call() is not None:
                play.seen(pending("batch_1"), -1)
            deeds = play.wait_until_due()

        assert play.now == pytest.approx(cancelled_at + 900.0)
        assert (dropped(deeds), endings(deeds)) == ([-1], {})
        assert play.state(1) is State.WAITING
        assert play.scheduler.totals.creates_lost == 1

    def test_a_deadline_while_a_create_is_tried_again(self):
        """It is not on the server, so nothing is cancelled and nothing is lost."""
        play = BatchPlay(batch_deadline_seconds=10.0).closed(1)
        play.batch_call()
        play.create_fails(Cause.RATE_LIMITED, -1, retry_after_seconds=60.0)

        deeds = play.wait_until_due()

        assert play.now == IDLE_SECONDS + 10.0
        assert endings(deeds) == {1: Outcome.TIMED_OUT}
        assert (dropped(deeds), play.scheduler.totals.creates_lost) == ([-1], 0)

    def test_a_finished_batch_has_no_deadline(self):
        """The work is done and paid for; its files are read, however late."""
        play = BatchPlay(batch_deadline_seconds=10.0).files_at(1)

        assert play.wait(HOUR) == []

        assert endings(play.line(1)) == {1: Outcome.COMPLETED}


class TestStops:
    def test_a_request_that_is_stopped_leaves_its_batch(self):
        """The batch goes on for the others; the line that still comes means nothing."""
        play = BatchPlay().out(1, 2)

        deeds = play.stop(1)

        assert (endings(deeds), dropped(deeds)) == ({1: Outcome.CANCELLED}, [])
        assert play.batch_calls() == []
        assert play.looked_at(batch_seen(Status.COMPLETED, files=b"output")) == []
        play.batch_calls()
        assert play.line(1) == []
        assert endings(play.line(2)) == {2: Outcome.COMPLETED}

    def test_with_its_last_request_a_batch_is_cancelled(self):
        """It would be paid for nothing."""
        play = BatchPlay().out(1, 2)
        play.stop(1)

        assert endings(play.stop(2)) == {2: Outcome.CANCELLED}

        assert kinds(play.batch_calls()) == [CancelRun]
        deeds = play.tell(CancelAccepted(-1, batch_seen(Status.CANCELLED)))
        assert dropped(deeds) == [-1]
        assert play.scheduler.roster.runs == {}

    def test_without_a_cancel_a_batch_is_left_as_it_is(self):
        """It goes on on its server; nobody waits for it."""
        play = BatchPlay().out(1)

        deeds = play.stop(1, cancel_remote=False)

        assert (endings(deeds), dropped(deeds)) == ({1: Outcome.CANCELLED}, [-1])
        assert play.batch_calls() == []

    @pytest.mark.parametrize("cancel_remote", [True, False])
    def test_a_batch_that_waits_to_be_uploaded_is_dropped_with_its_last_request(
        self, cancel_remote
    ):
        """Nothing was sent."""
        play = BatchPlay().closed(1)

        deeds = play.stop(1, cancel_remote=cancel_remote)

        assert dropped(deeds) == [-1]
        assert play.batch_calls() == []

    @pytest.mark.parametrize("cancel_remote", [True, False])
    def test_an_upload_that_is_out_is_the_last_of_its_calls(self, cancel_remote):
        """The file is there, but no batch is made of it."""
        play = BatchPlay().closed(1)
        play.batch_call()
        assert dropped(play.stop(1, cancel_remote=cancel_remote)) == []

        assert dropped(play.prepared()) == [-1]

        assert play.batch_calls() == []

    def test_a_create_that_is_out_is_awaited_and_cancelled(self):
        """It may become a batch."""
        play = BatchPlay().closed(1)
        play.batch_call()
        play.prepared()
        play.take_create()
        assert dropped(play.stop(1)) == []

        assert play.created() == []

        assert kinds(play.batch_calls()) == [CancelRun]

    def test_a_create_that_is_never_answered_is_not_awaited_for_ever(self):
        """After the grace the batch is dropped."""
        play = BatchPlay(stop_grace_seconds=2.0).closed(1)
        play.batch_call()
        play.stop(1, cancel_remote=False)

        assert dropped(play.wait(2.0)) == [-1]

    def test_a_batch_that_was_refused_its_cancel_is_looked_at(self):
        """It has just ended; its files are not read for nobody's sake, but it is seen off."""
        play = BatchPlay().out(1)
        play.stop(1)
        play.batch_calls()
        play.tell(CancelFailed(-1, failed(Cause.CONFLICT)))

        assert kinds(play.batch_calls()) == [CheckRuns]
        assert dropped(play.seen(batch_seen(Status.COMPLETED), -1)) == [-1]

    def test_lines_that_come_after_the_last_stop(self):
        """The files are being read; the batch ends as ever."""
        play = BatchPlay().files_at(1)
        play.stop(1)

        assert play.line(1) == []
        assert dropped(play.file_read()) == [-1]


class TestCreatesStopped:
    def test_an_open_shard_ends(self):
        """Nothing of it was sent."""
        play = BatchPlay()
        play.admit(1, 2)

        assert endings(stop_creates(play)) == dict.fromkeys((1, 2), Outcome.STOPPED)

        play.wait(IDLE_SECONDS)
        assert play.scheduler.roster.runs == {}

    @pytest.mark.parametrize("queue", [None, 1], ids=["for a permit", "for room"])
    def test_batches_that_wait_end(self, queue):
        """Also those that wait for room in the queue of their model."""
        play = BatchPlay(batch_lines_max=1, batch_queue_tokens=queue).closed(1, 2)

        deeds = stop_creates(play)

        assert endings(deeds) == dict.fromkeys((1, 2), Outcome.STOPPED)
        assert sorted(dropped(deeds)) == [-2, -1]
        assert play.scheduler.roster.runs == {}

    def test_batches_that_would_be_packed_again_end(self):
        """The end of one lets in another one, which is too large by now."""
        play = BatchPlay(batch_lines_max=2, batch_queue_tokens=4, batch_line_bytes=0)
        play.closed(1, 2, 3, 4, body_bytes=4)
        play.uploads()
        play.create_fails(Cause.RATE_LIMITED, -1, retry_after_seconds=600.0)
        play.created(-2)
        play.closed(5, 6, body_bytes=8)  # there is no room
        full = batch_seen(Status.FAILED, "token_limit_exceeded", queue_tokens_max=2)
        play.looked_at(full, -2)

        deeds = stop_creates(play)

        assert endings(deeds) == dict.fromkeys(range(1, 7), Outcome.STOPPED)
        assert play.scheduler.roster.runs == {}

    def test_a_batch_that_is_out_is_seen_to_its_end(self):
        """It is paid for. What it leaves undone does not go into another one."""
        play = BatchPlay().out(1, 2)
        assert stop_creates(play) == []

        play.looked_at(batch_seen(Status.EXPIRED, files=b"output"))
        play.batch_calls()
        assert endings(play.line(1)) == {1: Outcome.COMPLETED}
        assert endings(play.file_read(Status.EXPIRED)) == {2: Outcome.STOPPED}

    def test_no_batch_is_made_of_a_file_that_was_just_uploaded(self):
        """The upload costs nothing, the batch would."""
        play = BatchPlay().closed(1)
        play.batch_call()
        assert stop_creates(play) == []

        deeds = play.prepared()

        assert (endings(deeds), dropped(deeds)) == ({1: Outcome.STOPPED}, [-1])

    def test_a_create_whose_answer_is_lost_is_not_sent_again(self):
        """The batch may be there; nobody looks for it."""
        play = BatchPlay().closed(1)
        play.batch_call()
        play.prepared()
        play.take_create()
        stop_creates(play)

        assert endings(play.create_fails(LOST, -1)) == {1: Outcome.STOPPED}

    def test_tool_outputs_end_in_the_batch_that_is_not_made_any_more(self):
        """They would need a new batch, and nothing new is created."""
        play = BatchPlay().files_at(1)
        play.line(1, asks("a"))
        play.file_read()
        stop_creates(play)
        play.tool_gives("a")
        play.wait(IDLE_SECONDS)
        play.batch_call()

        assert endings(play.prepared(-2)) == {1: Outcome.STOPPED}
