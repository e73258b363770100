"""What a replay makes of runs that an earlier process has cancelled, and of batches it left."""

import pytest

from orchestrator.core import invariants
from orchestrator.core.actions import CancelRun, CheckRuns, CreateRun, DropBatch
from orchestrator.core.entries import CancelSent, CreateSent, intent_of, is_kept
from orchestrator.core.events import (
    CreatesStopped,
    LineAnswered,
    RunCreated,
    RunPrepared,
    RunSeen,
    ToolFinished,
)
from orchestrator.core.model import Family, Outcome, Status, ToolOutput
from orchestrator.core.states import State

from .batch_play import BatchPlay, dropped
from .play import Play, asks, ended, ending, pending, request

CANCELLED_BEFORE = (CreateSent(1), RunCreated(1, pending()), CancelSent(1))


def replayed(*entries, numbers=(1,), now=10.0, **of):
    """A process that finds these entries; all of them are from its beginning."""
    of.setdefault("family", Family.RESPONSES)
    play = Play()
    play.now = now
    replay = play.scheduler.replay()
    for number in numbers:
        replay.admit(number, request(f"r{number}", **of), now)
    for entry in entries:
        replay.take(entry, 0.0)
    play.deeds = replay.settle(now)
    invariants.check(play.scheduler)
    return play


class TestCancelledBefore:
    def test_a_cancel_is_kept_before_it_leaves(self):
        """Else a process that is killed then leaves a cancelled run, and nobody knows why."""
        assert intent_of(CancelRun(1, "run_1", request("r1"))) == CancelSent(1)

    @pytest.mark.parametrize("is_in_the_journal", [True, False])
    def test_the_request_gets_another_run(self, is_in_the_journal):
        """It was its run that nobody wanted, for as long as nobody was there."""
        seen = RunSeen(1, ended(Status.CANCELLED))
        play = replayed(*CANCELLED_BEFORE, *([seen] if is_in_the_journal else []))
        if not is_in_the_journal:
            assert isinstance(play.call(), CheckRuns)
            assert play.tell(seen) == []
        play.wait(1)

        assert isinstance(play.call(), CreateRun)

    def test_it_is_no_failure(self):
        """However often it is interrupted, a request has all its attempts."""
        play = replayed(*CANCELLED_BEFORE, RunSeen(1, ended(Status.CANCELLED)))
        assert play.scheduler.roster.runs[1].attempts_failed == 0

    def test_a_result_that_was_quicker_counts(self):
        """What is paid is not thrown away."""
        play = replayed(*CANCELLED_BEFORE)
        play.call()
        assert ending(play.tell(RunSeen(1, ended()))).outcome is Outcome.COMPLETED

    def test_who_cancels_the_next_run_is_somebody_else(self):
        """What was cancelled on the server by other people ends as cancelled."""
        play = replayed(*CANCELLED_BEFORE, RunSeen(1, ended(Status.CANCELLED)))
        assert isinstance(play.call(), CreateRun)
        play.tell(RunCreated(1, pending("run_2")))
        play.wait_until_due()
        play.call()
        deeds = play.tell(RunSeen(1, ended(Status.CANCELLED, run_id="run_2")))
        assert ending(deeds).outcome is Outcome.CANCELLED

    def test_a_tool_that_went_on_meanwhile_changes_nothing(self):
        """Its output is of no use: another run asks for tools of its own."""
        wish, output = RunSeen(1, asks("a")), ToolFinished(1, ToolOutput("a", "too late"))
        seen = RunSeen(1, ended(Status.CANCELLED))
        play = replayed(*CANCELLED_BEFORE[:2], wish, CancelSent(1), seen, output)
        assert isinstance(play.call(), CreateRun)

    def test_nothing_new_is_created_when_that_is_over(self):
        """Then it has not ended, and the next process sends it again."""
        play = replayed(*CANCELLED_BEFORE)
        play.call()
        play.tell(CreatesStopped("budget_spent", "no more"))
        deeds = play.tell(RunSeen(1, ended(Status.CANCELLED)))
        assert ending(deeds).outcome is Outcome.STOPPED


class TestBatches:
    def test_a_line_that_comes_too_late_is_not_kept(self):
        """Its answer went nowhere: the next process reads it again."""
        event = LineAnswered(-1, 1, ended())
        assert not is_kept(event, None, None)
        assert is_kept(event, State.CREATING, None)

    def test_a_batch_that_others_will_read_is_not_over(self):
        """It was stopped because of an interrupt; its lines are there for the next process."""
        play = BatchPlay().files_at(1)
        play.stop(1)
        [drop] = [deed for deed in play.file_read() if isinstance(deed, DropBatch)]
        assert not drop.is_over

    def test_one_whose_lines_are_all_kept_is_over(self):
        """It is not looked at again for nothing."""
        play = replayed(
            CreateSent(-1, 1, (1,)),
            RunPrepared(-1, b"{}"),
            CreateSent(-1, 1),
            RunCreated(-1, pending("batch_1")),
            LineAnswered(-1, 1, asks("a")),
            family=Family.DIRECT,
            via_batch=True,
        )
        assert dropped(play.deeds) == [-1]
        assert play.state(1) is State.TOOLS
        assert play.scheduler.totals.batches_left == []
