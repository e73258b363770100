"""What led the judgement about webhooks astray."""

from orchestrator.core.actions import CheckRuns
from orchestrator.core.ears import GRACE_SECONDS, PROBE_SECONDS, Ears
from orchestrator.core.events import RunCreated, TimePassed
from orchestrator.core.families import About
from orchestrator.core.model import Family

from .play import BROKEN, Play, ended, pending, request
from .test_webhooks import ACTION, Hears


def probe_in(play):
    return play.scheduler.roster.hearing._ears[Family.RESPONSES].probe_at - play.now


def test_time_before_the_first_run_is_no_silence():
    """An early event, on a machine that is up for days: probes were five minutes apart then."""
    play = Hears(proven=False)
    play.now = 1e6
    play.creating()
    play.webhook()
    play.tell(RunCreated(1, pending("run_1")))

    assert probe_in(play) == PROBE_SECONDS


def test_time_before_a_restart_is_no_silence():
    """Nor are the hours between runs that a replay tells of."""
    play = Hears(proven=False)
    play.now = 100_000.0
    replay = play.scheduler.replay()
    for number, at in ((1, 1.0), (2, 99_999.0)):
        replay.admit(number, request(f"r{number}"), 0.0)
        replay.take(RunCreated(number, pending(f"run_{number}")), at)
    replay.settle(play.now)
    play.webhook("run_1")

    assert probe_in(play) == PROBE_SECONDS


def test_a_probe_presses_no_server_in_trouble():
    """It has said when, as to an event; and the failing run does not take each probe for itself."""
    play = Hears(proven=False).running(1)
    play.wait(PROBE_SECONDS / 2)
    play.running(2)
    play.wait(PROBE_SECONDS / 2)
    assert play.call().runs[0].number == 1
    play.check_fails(BROKEN, retry_after_seconds=100.0)
    play.wait_until_due()

    call = play.call()
    assert isinstance(call, CheckRuns)
    assert call.runs[0].number == 2
    play.seen(pending("run_2"), 2)
    while play.now < 100:
        assert play.call() is None or play.scheduler.roster.runs[1].checks == 1
        play.wait_until_due()


def test_an_early_event_of_another_family():
    """An id of its own says nothing about this run, and nothing for its endpoint."""
    play = Hears(proven=False).creating()
    play.webhook("run_1", "batch.completed")
    play.tell(RunCreated(1, pending("run_1")))
    play.tell(TimePassed())

    assert play.call() is None
    assert play.counted() == {"unknown": 1}


def test_a_late_event_of_another_family_confirms_nothing():
    """The end that was found without a word stays one."""
    play = Hears(proven=False).running()
    play.check_again()
    play.seen(ended(run_id="run_1"))
    play.webhook("run_1", "batch.completed")
    play.webhook("run_1", ACTION)
    play.wait(10)

    assert play.counted() == {"late": 2, "missed": 1}


def test_all_kinds_come_back_together():
    """After an outage the runs may want no tools for days: they are not polled until they do."""
    ears = Ears(300.0)
    for at in (1.0, 2.0):
        for about in About:
            ears.lose(about, at, at)
    assert ears.are_deaf
    told = [ears.hear(About.END, 10.0 + n) for n in range(50)]

    assert not ears.are_deaf
    assert sum(why is not None for why in told) == 1
    for at in (100.0, 101.0):  # a kind that is never sent is found out again
        ears.lose(About.ACTION, at, at + GRACE_SECONDS)
    assert ears.are_deaf


def test_a_short_gap_costs_no_more_than_polling():
    """Whoever wants to lose a second at most is polled; a gap of 1 ms had 1,000 checks a second."""

    def checks_of(play):
        checks = 0
        play.running()
        while play.now < 60:
            play.wait_until_due()
            for _ in play.calls():
                checks += 1
                play.seen(pending("run_1"))
        return checks

    polled = checks_of(Play())
    for gap_seconds in (0.001, 1.0):
        assert checks_of(Play(webhook_gap_seconds=gap_seconds)) <= polled + 2
