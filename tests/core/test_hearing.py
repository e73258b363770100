"""Whether webhooks arrive is noticed by what happens to a crowd of runs, in virtual time."""

from math import exp

import pytest

from orchestrator.core.ears import GRACE_SECONDS, HEARD_TO_RETURN_MAX, PROBE_SECONDS
from orchestrator.core.model import Family

from .webhook_play import GAP_SECONDS, Crowd

MANY = 120  # the bars are measured with 2,000, in tests/test_hybrid.py
FEW_SECONDS = 2 * PROBE_SECONDS + GRACE_SECONDS


def about(seconds, sigma=0.5):
    """Lognormal durations around a median."""
    return lambda chance: seconds * exp(chance.gauss(0, sigma))


def soon(chance, _):
    return [chance.uniform(0.02, 0.3)]


def lossy(part):
    return lambda chance, _: [] if chance.random() < part else [0.1]


def never(chance, _):
    return []


def but_from(start, end=float("inf")):
    """Everything that ends in this time is never told of."""
    return lambda _, at: [] if start <= at < end else [0.1]


class TestWebhooksThatArrive:
    @pytest.mark.parametrize("seconds", [2.0, 60.0])
    def test_one_check_for_a_run(self, seconds):
        """The one that fetches the result; a few more tell that the silence before it is none."""
        crowd = Crowd(MANY, about(seconds), soon).play()

        assert crowd.calls <= MANY + 3
        assert max(crowd.late) < 0.5
        assert (crowd.totals.webhooks_heard, crowd.changes) == (MANY, [])

    @pytest.mark.parametrize("seconds", [2.0, 60.0])
    def test_a_twentieth_lost(self, seconds):
        """Those are found by the safety net, no later than its gap; nothing flaps."""
        crowd = Crowd(MANY, about(seconds), lossy(0.05)).play()

        assert crowd.calls_per_run <= 1.10
        assert max(crowd.late) <= GAP_SECONDS
        assert crowd.changes == []

    def test_sessions_are_looked_at_together(self):
        """An event looks at its whole group: fewer calls than events."""
        crowd = Crowd(MANY, about(60.0), soon, family=Family.AGENT_SESSIONS).play()

        assert crowd.calls_per_run < 1
        assert (max(crowd.late) < 0.5, crowd.changes) == (True, [])

    def test_late_ones(self):
        """Events that come half a minute late are worth waiting for when runs are long."""
        crowd = Crowd(MANY, about(60.0), lambda *_: [30.0]).play()

        assert round(crowd.calls_per_run, 1) == 1.0
        assert max(crowd.late) < 30.2

    def test_doubled_and_out_of_order(self):
        """A second delivery under another id finds nothing to do."""

        def often(chance, _):
            copies = 1 + (chance.random() < 0.1)
            return [chance.uniform(0, 20) if chance.random() < 0.1 else 0.1 for _ in range(copies)]

        crowd = Crowd(MANY, about(60.0), often).play()

        assert crowd.calls_per_run < 1.05
        assert crowd.totals.webhooks_late > 0
        assert crowd.changes == []

    def test_few_runs(self):
        """One at a time: after the first it is known how long a silence is usual."""
        crowd = Crowd(20, lambda _: 60.0, soon, per_second=1 / 65).play()

        assert crowd.calls <= 20 + 4
        assert max(crowd.late) < 0.5


class TestWebhooksThatDoNot:
    @pytest.mark.parametrize("runs", [1, 10, MANY])
    def test_an_endpoint_that_nobody_calls(self, runs):
        """It costs seconds, not gaps."""
        crowd = Crowd(runs, lambda _: 2.0, never).play()

        assert max(crowd.late) <= FEW_SECONDS
        polled = Crowd(runs, lambda _: 2.0, never, gap_seconds=None).play()
        assert crowd.calls <= polled.calls + 2

    def test_long_runs(self):
        """The silence is noticed after twice the time of a run, not after many gaps."""
        crowd = Crowd(MANY, about(60.0, sigma=0.1), never).play()

        [(at, are_heard, why)] = crowd.changes
        assert not are_heard
        assert at < 2 * 60 + FEW_SECONDS
        assert "none was ever heard" in why
        assert max(crowd.late) < 60 + FEW_SECONDS

    @pytest.mark.parametrize("family", [Family.RESPONSES, Family.AGENT_SESSIONS])
    def test_events_that_stop(self, family):
        """Within one gap it goes back to polling; what had ended meanwhile is found at once."""
        crowd = Crowd(MANY, about(60.0), but_from(150.0), family=family, per_second=0.4).play()

        [(at, are_heard, _)] = crowd.changes
        assert not are_heard
        assert 150 < at <= 150 + GAP_SECONDS
        assert max(crowd.late) <= GAP_SECONDS
        after = [late for number, late in crowd.late_of.items() if crowd.ended_at[number] > at]
        polled = 6 if family is Family.RESPONSES else 34  # what is left of a group waits longer
        assert max(after) < polled

    @pytest.mark.parametrize(
        "family",
        [Family.RESPONSES, pytest.param(Family.AGENT_SESSIONS, marks=pytest.mark.slow)],
    )
    def test_events_that_come_again(self, family):
        """Both decisions are made once, and from then on checks are saved again."""
        outage = but_from(150.0, 400.0)
        crowd = Crowd(600, about(30.0), outage, family=family, per_second=1).play()

        [(silent_at, *_), (back_at, are_heard, _)] = crowd.changes
        assert are_heard
        assert silent_at < 400 < back_at < 420
        again = [crowd.checks_of[number] for number in range(420, 600)]  # one a second
        if family is Family.RESPONSES:
            assert sum(again) / len(again) < 1.05

    def test_most_are_lost(self):
        """Somebody else gets half of our events: polling, and not to and fro."""
        crowd = Crowd(300, about(60.0), lossy(0.6), per_second=1).play()

        assert not crowd.changes[0][1]
        assert len(crowd.changes) <= 9  # the next return takes twice as many events each time
        assert crowd.totals.webhooks_missed > HEARD_TO_RETURN_MAX


def flaps(seeds):
    changes = 0
    for seed in seeds:
        crowd = Crowd(100, about(20.0), lossy(0.05), per_second=5, seed=seed).play()
        changes += len(crowd.changes)
    return changes


def test_chance_makes_nothing_flap():
    """A twentieth lost at random, in many short executions: none of them changes its mind."""
    assert flaps(range(4)) == 0


@pytest.mark.slow
def test_chance_makes_hardly_anything_flap():
    """In a thousand executions of a hundred runs."""
    assert flaps(range(1_000)) <= 4
