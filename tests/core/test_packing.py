"""What goes into which batch, when a batch is closed, and how many are on their way at a time."""

import pytest

from orchestrator.core.actions import CreateRun, SubmitToolOutputs
from orchestrator.core.families import CHAT_URL, EMBEDDINGS_URL
from orchestrator.core.model import Outcome, Status
from orchestrator.core.states import State

from .batch_play import IDLE_SECONDS, BatchPlay, batch_seen, dropped
from .play import asks, ended, endings, kinds, results_of

# One token each, when lines have nothing around their bodies.
TOKEN = {"body_bytes": 4}


def carried(play):
    """What each batch carries, the oldest first."""
    batches = [run for run in play.scheduler.roster.runs.values() if run.shard is not None]
    return [list(batch.shard.runs) for batch in batches]


def queue_full(told=None, number=-1):
    return batch_seen(
        Status.FAILED, "token_limit_exceeded", queue_tokens_max=told, run_id=f"batch_{-number}"
    )


class TestShards:
    def test_requests_by_batch_do_not_go_out_by_themselves(self):
        """They wait for others; the lane of their model stays empty."""
        play = BatchPlay()
        play.admit(1, 2)

        assert play.scheduler.busy_lanes() == []
        assert play.scheduler.next_due() == IDLE_SECONDS

    def test_a_batch_is_of_one_url_and_one_model(self):
        """A batch names its url, and batches of several models are refused."""
        play = BatchPlay()
        play.admit(1, url=CHAT_URL, model="a")
        play.admit(2, url=EMBEDDINGS_URL, model="a")
        play.admit(3, url=CHAT_URL, model="b")
        play.admit(4, url=CHAT_URL, model="a")
        play.wait(IDLE_SECONDS)

        assert carried(play) == [[1, 4], [2], [3]]

    @pytest.mark.parametrize(
        ("rules", "size", "packed"),
        [
            ({"batch_lines_max": 2}, {}, [[1, 2], [3, 4], [5]]),
            ({"batch_bytes_max": 1_000, "batch_line_bytes": 200}, {"body_bytes": 300}, "pairs"),
            ({"batch_inputs_max": 5}, {"inputs": 2}, "pairs"),
            ({"batch_queue_tokens": 21, "batch_line_bytes": 2}, {"body_bytes": 38}, "pairs"),
        ],
        ids=["lines", "bytes", "texts to be embedded", "tokens of the queue"],
    )
    def test_a_shard_is_closed_when_one_more_would_be_too_much(self, rules, size, packed):
        """Within each of the limits; what is left over waits for more."""
        play = BatchPlay(**rules)
        play.admit(1, 2, 3, 4, 5, **size)

        assert carried(play) == [[1, 2], [3, 4]]
        play.wait(IDLE_SECONDS)
        assert carried(play) == ([[1, 2], [3, 4], [5]] if packed == "pairs" else packed)

    @pytest.mark.parametrize(
        ("rules", "size"),
        [
            ({"batch_lines_max": 2}, {}),
            ({"batch_bytes_max": 1_000, "batch_line_bytes": 200}, {"body_bytes": 300}),
            ({"batch_inputs_max": 4}, {"inputs": 2}),
            ({"batch_queue_tokens": 20, "batch_line_bytes": 2}, {"body_bytes": 38}),
        ],
        ids=["lines", "bytes", "texts to be embedded", "tokens of the queue"],
    )
    def test_a_limit_may_be_reached(self, rules, size):
        """It is what the server takes, not the first thing that it refuses."""
        play = BatchPlay(**rules).closed(1, 2, **size)

        assert carried(play) == [[1, 2]]

    def test_what_is_too_large_for_any_batch_goes_alone(self):
        """The server is to say so itself: it may take more than we think."""
        play = BatchPlay(batch_bytes_max=100, batch_inputs_max=1, batch_queue_tokens=1)
        play.closed(1, 2, body_bytes=500, inputs=3)

        assert carried(play) == [[1], [2]]

    def test_the_same_custom_id_is_not_twice_in_a_batch(self):
        """The lines of a batch are told apart by it."""
        play = BatchPlay()
        play.admit(1, 2, custom_id="twin")
        play.admit(3)
        play.wait(IDLE_SECONDS)

        assert carried(play) == [[1], [2, 3]]

    def test_tool_outputs_take_their_place(self):
        """A turn brings the conversation along: it is counted with what it takes by then."""
        play = BatchPlay(batch_bytes_max=100, batch_line_bytes=0)
        play.files_at(1)
        play.line(1, asks("a"))
        play.tool_gives("a", "x" * 60)
        play.admit(2, body_bytes=37)
        play.admit(3, body_bytes=2)
        play.file_read()
        play.wait(IDLE_SECONDS)

        assert carried(play) == [[1, 2], [3]]  # 60 + 2 of the conversation + 37, and 2


class TestClosing:
    def test_a_shard_is_closed_when_nothing_more_comes(self):
        """Each that comes is given the same time for the next one."""
        play = BatchPlay()
        play.admit(1)
        play.wait(1.5)
        play.admit(2)
        play.wait(1.5)
        assert carried(play) == []

        play.wait(0.5)

        assert carried(play) == [[1, 2]]

    def test_a_shard_is_closed_after_a_minute(self):
        """What comes slowly, but without an end, is not waited for for ever."""
        play = BatchPlay()
        for number in range(40):
            play.admit(number)
            play.wait(1.9)
            if carried(play):
                break

        assert play.now == pytest.approx(60.8)  # 60 s, and no look in between
        assert carried(play) == [list(range(32))]

    def test_a_stopped_request_leaves_its_shard(self):
        """It is in no file; a shard that nobody is left in is forgotten."""
        play = BatchPlay()
        play.admit(1, 2)
        play.admit(3, model="b")

        assert endings(play.stop(1)) == {1: Outcome.CANCELLED}
        assert endings(play.stop(3)) == {3: Outcome.CANCELLED}

        play.wait(IDLE_SECONDS)
        assert carried(play) == [[2]]
        assert play.scheduler.next_due() is None

    def test_a_request_that_has_no_time_left_leaves_its_shard(self):
        """Also while it waits for another batch its deadline holds."""
        play = BatchPlay(batch_deadline_seconds=10.0)
        play.files_at(1)
        play.now = IDLE_SECONDS + 9.0
        play.line(1, asks("a"))
        play.tool_gives("a")
        play.file_read()

        deeds = play.wait(1.0)

        assert endings(deeds) == {1: Outcome.TIMED_OUT}
        assert results_of(deeds)[1].error.code == "deadline_exceeded"
        assert "not finished 10 s" in results_of(deeds)[1].error.message
        play.wait(IDLE_SECONDS)
        assert play.scheduler.in_flight == 0

    def test_a_few_are_sent_by_themselves(self):
        """A batch of so few is not worth its day; each costs the full price."""
        play = BatchPlay(batch_direct_below=3)
        play.admit(1, 2)
        play.wait(IDLE_SECONDS)

        assert carried(play) == []
        assert play.call().number == 1
        play.created(1, ended(run_id="answer_1"))
        assert play.call().number == 2
        assert play.scheduler.totals.lines_sent == 0

    def test_as_many_as_asked_for_are_a_batch(self):
        """The number that is named is the first that is enough."""
        assert carried(BatchPlay(batch_direct_below=3).closed(1, 2, 3)) == [[1, 2, 3]]

    def test_what_is_sent_by_itself_stays_so(self):
        """Its tool outputs go out by themselves too, and have the deadline of a single call."""
        play = BatchPlay(batch_direct_below=2, deadline_seconds=100.0)
        play.closed(1)
        call = play.call()
        assert (type(call), call.deadline_at) == (CreateRun, IDLE_SECONDS + 100.0)
        play.created(1, asks("a"))

        play.tool_gives("a")

        assert kinds(play.calls()) == [SubmitToolOutputs]
        (result,) = results_of(play.outputs_accepted(ended())).values()
        assert result.usage.total_tokens == 7
        assert result.batch_usage.total_tokens == 0


class TestQueue:
    """Prompt tokens of all batches of a model; these lines have one each."""

    def play(self, **rules):
        return BatchPlay(batch_line_bytes=0, **rules)

    def test_what_does_not_fit_waits_until_there_is_room(self):
        """A batch that the server would refuse is not sent."""
        play = self.play(batch_queue_tokens=3)
        play.admit(1, 2, 3, 4, 5, **TOKEN)
        play.wait(IDLE_SECONDS)

        assert play.uploads() == [[1, 2, 3]]
        play.created(-1)
        assert play.batch_calls() == []
        play.looked_at(batch_seen(Status.COMPLETED, files=b"output"))
        play.batch_calls()
        for number in (1, 2, 3):
            play.line(number)
        assert dropped(play.file_read()) == [-1]
        assert play.uploads() == [[4, 5]]

    def test_several_fit_together(self):
        """As long as there is room, batches are on their way side by side; the rest in turn."""
        play = self.play(batch_queue_tokens=5)
        play.admit(1, 2, custom_id="a", body_bytes=8)
        play.admit(3, 4, custom_id="b", body_bytes=4)
        play.wait(IDLE_SECONDS)
        assert carried(play) == [[1], [2, 3], [4]]

        assert play.uploads() == [[1], [2, 3]]

        play.created(-1)
        play.created(-2)
        play.looked_at(batch_seen(Status.EXPIRED), -1)
        assert play.uploads() == [[4]]

    def test_each_model_has_its_own(self):
        """Limits are per model."""
        play = self.play(batch_queue_tokens=1)
        play.admit(1, model="a", **TOKEN)
        play.admit(2, model="b", **TOKEN)
        play.wait(IDLE_SECONDS)

        assert play.uploads() == [[1], [2]]

    def test_a_limit_that_a_refusal_tells_is_kept(self):
        """The same lines are packed again, into batches that fit."""
        play = self.play().out(1, 2, 3, **TOKEN)

        assert dropped(play.looked_at(queue_full(told=2))) == [-1]

        assert [play.state(n) for n in (1, 2, 3)] == [State.WAITING] * 3
        play.wait(0.5)
        play.wait(IDLE_SECONDS)
        assert carried(play) == [[1, 2], [3]]
        assert play.uploads() == [[1, 2]]

    @pytest.mark.parametrize(
        ("told", "packed"),
        [
            # Alone in the queue, and yet refused: others use it too, or it counts otherwise.
            (None, [[1, 2, 3], [4]]),  # 3/4 of the 4 that were too much
            (100, [[1, 2, 3, 4]]),  # no less than an eighth of what it says
        ],
    )
    def test_a_queue_that_refuses_what_should_fit_is_taken_for_smaller(self, told, packed):
        """Nobody else is known of: it is tried again after minutes, with less at a time."""
        play = self.play(batch_queue_retry_seconds=300.0).out(1, 2, 3, 4, **TOKEN)
        play.looked_at(queue_full(told))

        play.wait(300.0)
        assert carried(play) == []
        play.wait(0.5)
        play.wait(IDLE_SECONDS)

        assert carried(play) == packed

    @pytest.mark.parametrize("told", [3, None])
    def test_our_own_batches_make_room_soon(self, told):
        """When others of ours fill the queue, the end of one of them is waited for."""
        play = self.play(batch_lines_max=2).closed(1, 2, 3, 4, **TOKEN)
        assert play.uploads() == [[1, 2], [3, 4]]
        play.created(-1)
        play.created(-2)
        play.looked_at(queue_full(told, number=-2), -2)
        play.seen(batch_seen(Status.PENDING, hint=60.0), -1)

        play.wait(0.5)
        play.wait(IDLE_SECONDS)
        assert [1, 2] in carried(play)
        assert play.batch_calls() == []  # there is no room yet

        play.looked_at(batch_seen(Status.EXPIRED), -1)
        assert play.uploads() == [[3, 4]]

    def test_what_others_fill_is_tried_again_after_minutes(self):
        """When what we have is not much of the limit that is told, our own end makes no room."""
        play = self.play(batch_lines_max=2, batch_queue_retry_seconds=300.0)
        play.closed(1, 2, 3, 4, **TOKEN)
        play.uploads()
        play.created(-1)
        play.created(-2)
        play.looked_at(queue_full(told=100, number=-2), -2)
        play.seen(batch_seen(Status.PENDING, hint=600.0), -1)

        play.wait(300.0)
        assert carried(play) == [[1, 2]]
        play.wait(0.5)
        play.wait(IDLE_SECONDS)
        assert play.uploads() == [[3, 4]]

    def test_what_was_packed_before_is_packed_again(self):
        """A batch that waits for room, and is larger than what is known by then, is taken apart."""
        play = self.play(batch_lines_max=4, batch_queue_tokens=4)
        play.admit(*range(1, 9), **TOKEN)
        play.wait(IDLE_SECONDS)
        assert play.uploads() == [[1, 2, 3, 4]]
        play.created(-1)
        assert carried(play) == [[1, 2, 3, 4], [5, 6, 7, 8]]

        deeds = play.looked_at(queue_full(told=3))

        assert dropped(deeds) == [-1]  # the other one was never sent, nobody knows of it
        assert carried(play) == [[5, 6, 7]]
        play.wait(0.5)
        play.wait(IDLE_SECONDS)
        assert carried(play) == [[5, 6, 7], [8, 1, 2], [3, 4]]

    def test_a_line_that_is_too_large_for_the_queue_fails(self):
        """There will never be room for it."""
        play = self.play().out(1, body_bytes=40)

        (result,) = results_of(play.looked_at(queue_full(told=9))).values()

        assert (result.outcome, result.error.code) == (Outcome.FAILED, "token_limit_exceeded")

    def test_a_held_batch_that_nobody_wants_leaves_the_queue(self):
        """What waits behind it takes its place; nothing of it was ever sent."""
        play = self.play(batch_queue_tokens=3)
        play.admit(1, 2, 3, 4, 5, **TOKEN)
        play.admit(6, custom_id="r5", **TOKEN)
        play.wait(IDLE_SECONDS)
        assert carried(play) == [[1, 2, 3], [4, 5], [6]]
        play.uploads()
        play.created(-1)

        play.stop(4)
        assert dropped(play.stop(5)) == [-2]

        assert endings(play.looked_at(batch_seen(Status.EXPIRED))) == {}
        assert play.uploads() == [[6]]

    def test_many_held_batches_are_packed_again(self):
        """None of them fits any more; they are taken apart one after the other."""
        play = self.play(batch_lines_max=2, batch_queue_tokens=2)
        play.checked = False  # after each event it would take seconds
        play.admit(*range(1_000), **TOKEN)
        play.wait(IDLE_SECONDS)
        play.uploads()
        play.created(-1)

        play.looked_at(queue_full(told=1))

        play.checked = True
        assert play.uploads() == [[2]]
        left = [number for numbers in carried(play) for number in numbers]
        assert sorted(left) == [2, *range(4, 1_000)]  # the first pair was taken apart
