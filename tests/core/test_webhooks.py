"""What one webhook does to one run: a check is brought forward, and nothing else."""

import pytest

from orchestrator.core import hearing
from orchestrator.core.actions import CheckRuns, FetchResult, TellOfWebhooks
from orchestrator.core.ears import GRACE_SECONDS, PROBE_SECONDS
from orchestrator.core.events import RunCreated, TimePassed, WebhookArrived
from orchestrator.core.families import WEBHOOKS, told_by
from orchestrator.core.model import Family
from orchestrator.core.rules import Rules
from orchestrator.core.states import State

from .play import BROKEN, Play, asks, ended, pending, request

GAP_SECONDS = 300.0
DONE = "response.completed"
IDLE, ACTION = "agent.session.idle", "agent.session.action_required"


class Hears(Play):
    """A play with webhooks. Before the first of them nothing is known of the endpoint."""

    def __init__(self, *, family=Family.RESPONSES, proven=True, **rules):
        super().__init__(family=family, webhook_gap_seconds=GAP_SECONDS, **rules)
        if proven:
            self.running(99)
            self.webhook("run_99", DONE if family is Family.RESPONSES else IDLE)
            self.call()
            self.seen(ended(run_id="run_99"), 99)
            if self.state(99) is State.FINISHED:
                self.call()
                self.fetched(ended(run_id="run_99"), 99)
            assert self.state(99) is None

    def webhook(self, run_id="run_1", kind=DONE):
        return self.tell(WebhookArrived(run_id, kind))

    @property
    def totals(self):
        return self.scheduler.totals

    def counted(self):
        totals = self.totals
        return {
            name: count
            for name in ("heard", "early", "late", "unknown", "missed")
            if (count := getattr(totals, f"webhooks_{name}"))
        }

    def gap(self, number=1):
        return self.scheduler.roster.runs[number].due_at - self.now


class TestARunAtWork:
    def test_is_looked_at_when_it_is_told_of(self):
        """At once, and not before."""
        play = Hears().running()
        assert play.call() is None
        play.webhook()

        assert isinstance(play.call(), CheckRuns)
        assert play.counted() == {"heard": 2}

    def test_waits_for_its_event(self):
        """Its checks are as far apart as was said, and never further."""
        play = Hears().running()

        assert 0.8 * GAP_SECONDS <= play.gap() <= GAP_SECONDS

    def test_is_not_left_alone_for_longer_than_its_result_is_kept(self):
        """A gap of an hour would lose what a lost event was about: 10 minutes are kept."""
        play = Play(webhook_gap_seconds=3_600.0).running()

        assert play.scheduler.roster.runs[1].due_at - play.now == 300.0

    def test_does_not_show_it_yet(self):
        """The event has overtaken the state: soon again, then at gaps that grow."""
        play = Hears().running()
        play.webhook()
        gaps = []
        for _ in range(6):
            play.call() or play.check_again()
            play.seen(pending("run_1"))
            gaps.append(play.gap())

        assert gaps == pytest.approx([0.5 * 1.5**n for n in range(6)])

    def test_is_being_checked(self):
        """The answer that is on its way may be older than the event: once more, at once."""
        play = Hears().running()
        play.webhook()
        play.call()
        play.webhook()
        play.seen(pending("run_1"))

        assert play.gap() == 0.0

    def test_waits_out_a_failed_check(self):
        """A server in trouble has said when; an event is no reason to press it."""
        play = Hears().running()
        play.webhook()
        play.call()
        play.check_fails(BROKEN, retry_after_seconds=20.0)
        play.webhook()

        assert play.call() is None
        assert play.gap() > 20.0

    def test_is_not_told_of_by_other_events(self):
        """Neither types that mean no end, nor those of another family."""
        play = Hears().running()
        for kind in ("response.in_progress", "agent.session.idle", "batch.completed", ""):
            play.webhook("run_1", kind)

        assert play.call() is None

    def test_was_told_of_twice(self):
        """One check, whether or not the receiver knew the second for a repeat."""
        play = Hears().running()
        play.webhook()
        play.webhook()
        play.call()
        play.seen(ended(run_id="run_1"))

        assert play.call() is None
        assert play.counted() == {"heard": 3}

    def test_is_not_wanted_any_more(self):
        """A run that is being cancelled is watched as ever."""
        play = Hears().running()
        play.stop()
        play.call()
        play.webhook("run_1", "response.cancelled")

        assert play.state() is State.CANCELLING


class TestAnEventThatIsEarly:
    def test_is_kept_for_the_run(self):
        """It has overtaken the answer to the create."""
        play = Hears().creating()
        play.webhook()
        assert play.counted() == {"heard": 1, "unknown": 1}
        play.tell(RunCreated(1, pending("run_1")))

        assert play.counted() == {"heard": 2, "early": 1}
        play.tell(TimePassed())
        assert isinstance(play.call(), CheckRuns)

    def test_is_of_no_use_when_the_answer_tells_all(self):
        """A server that answers a create with the end of its run."""
        play = Hears().creating()
        play.webhook()
        play.tell(RunCreated(1, ended(run_id="run_1")))

        assert play.state() is None

    def test_only_the_newest_are_kept(self, monkeypatch):
        """An endpoint hears of everybody's runs; what is remembered is bounded."""
        monkeypatch.setattr(hearing, "IDS_MAX", 3)
        play = Hears().creating()
        for run_id in ("run_1", "a", "b", "c", "x" * 300):
            play.webhook(run_id)
        play.tell(RunCreated(1, pending("run_1")))

        assert play.call() is None
        assert play.counted() == {"heard": 1, "unknown": 5}


class TestAnEventThatIsLate:
    def test_about_a_run_that_is_over(self):
        """It is counted, and means nothing."""
        play = Hears()
        play.webhook("run_99")

        assert play.counted() == {"heard": 1, "late": 1}

    def test_about_a_run_that_was_found_a_moment_ago(self):
        """It was on its way: that the check was first is no sign of silence."""
        play = Hears().running()
        play.wait(GAP_SECONDS)
        play.call()
        play.seen(ended(run_id="run_1"))
        play.wait(GRACE_SECONDS / 2)
        play.webhook()
        play.wait(GRACE_SECONDS)

        assert play.counted() == {"heard": 2}

    def test_about_a_session_that_waits_for_its_tools(self):
        """It asks for them already; a second call of the same tools is the last thing wanted."""
        play = Hears(family=Family.AGENT_SESSIONS).running()
        play.webhook("run_1", ACTION)
        play.call()
        play.seen(asks("a", run_id="run_1"))
        play.webhook("run_1", ACTION)

        assert play.state() is State.TOOLS
        assert play.counted() == {"heard": 2, "late": 1}


class TestSessions:
    def test_each_turn_has_its_event(self):
        """It wants a tool, is given the output, and ends; told of both, looked at twice."""
        play = Hears(family=Family.AGENT_SESSIONS).running()
        play.webhook("run_1", ACTION)
        play.call()
        play.seen(asks("a", run_id="run_1"))
        play.tool_gives("a")
        play.call()
        play.outputs_accepted(pending("run_1"))
        assert play.gap() > 0.8 * GAP_SECONDS
        play.webhook("run_1", IDLE)
        play.call()
        play.seen(ended(run_id="run_1", said="idle"))

        assert isinstance(play.call(), FetchResult)
        assert play.counted() == {"heard": 3}

    def test_the_next_end_overtakes_the_answer_to_the_outputs(self):
        """It is not taken for an old one: the session is looked at as soon as they are in."""
        play = Hears(family=Family.AGENT_SESSIONS).running()
        play.webhook("run_1", ACTION)
        play.call()
        play.seen(asks("a", run_id="run_1"))
        play.tool_gives("a")
        play.call()
        play.webhook("run_1", IDLE)
        play.outputs_accepted(pending("run_1"))

        assert play.gap() == 0.0

    def test_the_event_of_one_turn_is_lost_and_the_next_one_comes(self):
        """It is not taken for that of the turn before, which a check found a moment ago."""
        play = Hears(family=Family.AGENT_SESSIONS).running()
        play.wait(GAP_SECONDS)
        play.call()
        play.seen(asks("a", run_id="run_1"))
        play.tool_gives("a")
        play.call()
        play.outputs_accepted(pending("run_1"))
        play.webhook("run_1", ACTION)

        assert isinstance(play.call(), CheckRuns)

    @pytest.mark.parametrize("comes", ["before", "after"])
    def test_is_shown_as_idle_too_early(self, comes):
        """Its end, that was none, has no event; the event about the true end is not lost to it."""
        play = Hears(family=Family.AGENT_SESSIONS).running()
        play.wait(GAP_SECONDS)
        play.call()
        play.seen(ended(run_id="run_1", said="idle"))
        assert isinstance(play.call(), FetchResult)
        if comes == "before":
            play.webhook("run_1", IDLE)
        play.fetched(pending("run_1"))
        if comes == "after":
            assert play.gap() > 0.8 * GAP_SECONDS
            play.webhook("run_1", IDLE)
            assert isinstance(play.call(), CheckRuns)
        assert play.gap() <= 0.5
        play.wait(2 * GRACE_SECONDS)

        assert play.counted() == {"heard": 2}


class TestProbes:
    def test_before_the_first_event_one_run_is_looked_at(self):
        """After ten seconds, then after twice as long: the others wait for their events."""
        play = Hears(proven=False)
        for number in (1, 2, 3):
            play.admit(number)
        creates = [play.call()]
        for _ in creates:
            play.tell(RunCreated(1, pending("run_1")))
        for number in (2, 3):
            play.call()
            play.tell(RunCreated(number, pending(f"run_{number}")))
        looks = []
        while play.now < 100:
            play.wait_until_due()
            for call in play.calls():
                looks.append((play.now, call.runs[0].number))
                play.seen(pending(call.runs[0].run_id), call.runs[0].number)

        assert looks == [(10, 1), (30, 2), (70, 3), (150, 1)]
        assert PROBE_SECONDS == 10

    def test_nobody_is_woken_when_nothing_is_in_flight(self):
        """An idle service costs nothing."""
        play = Hears()
        while play.scheduler.next_due() is not None:
            play.wait_until_due()

        assert play.now < 60

    def test_two_ends_without_a_word_are_enough_before_the_first(self):
        """Then all that are at work are looked at, and polled from then on."""
        play = Hears(proven=False)
        for number in (1, 2, 3):
            play.running(number)
        play.wait(PROBE_SECONDS)
        for _ in range(2):  # an end without its event makes suspicious: the next one at once
            [call] = play.calls()
            [run] = call.runs
            play.seen(ended(run_id=run.run_id), run.number)
            play.tell(TimePassed())
        [call] = play.calls()
        play.seen(pending("run_3"), 3)
        [deed] = play.wait(GRACE_SECONDS)

        assert deed == TellOfWebhooks(Family.RESPONSES, are_heard=False, why=deed.why)
        assert "none was ever heard" in deed.why
        assert play.gap(3) <= 1.0
        assert play.counted() == {"missed": 2}


def test_without_webhooks_nothing_is_kept_and_nothing_changes():
    """A million runs must not pay for what nobody asked for."""
    play = Play().running()
    play.tell(WebhookArrived("run_1", DONE))
    play.tell(WebhookArrived("run_2", DONE))

    assert play.call() is None
    assert play.scheduler.roster.hearing.size == 0
    assert play.scheduler.roster.runs[1].due_at - play.now == pytest.approx(0.5)


def test_two_runs_of_one_id():
    """A server that gives an id twice: the newer run is told, the older is checked all the same."""
    play = Hears()
    for number in (1, 2):
        play.admit(number)
        play.call()
        play.tell(RunCreated(number, pending("same")))
    play.webhook("same")
    [call] = play.calls()
    play.seen(ended(run_id="same"), call.runs[0].number)

    assert call.runs[0].number == 2
    assert play.state(1) is State.RUNNING
    play.wait(GAP_SECONDS)
    assert isinstance(play.call(), CheckRuns)


def test_types_are_read_in_either_spelling():
    """The vendor writes both."""
    assert told_by("batch.canceled") == told_by("batch.cancelled") == WEBHOOKS["batch.cancelled"]
    assert told_by("agent.session.in_progress") is None


def test_a_restart_does_not_count_as_silence():
    """What ended while no process listened had its events, and nobody to hear them."""
    before = Hears(proven=False).running(1)
    after = Hears(proven=False)
    after.now = 1_000.0
    replay = after.scheduler.replay()
    replay.admit(1, request("r1"), 0.0)
    replay.take(RunCreated(1, pending("run_1")), 1.0)
    replay.settle(after.now)
    after.call()
    after.seen(ended(run_id="run_1"))
    after.wait(2 * GRACE_SECONDS)

    assert before.counted() == after.counted() == {}


def test_rules_without_a_gap_have_no_webhooks():
    """It is the one switch."""
    assert Rules().webhook_gap_seconds is None
