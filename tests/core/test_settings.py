"""Settings are checked before anything is sent."""

import pytest

from orchestrator.core.settings import Settings
from orchestrator.errors import SettingUnusable


@pytest.mark.parametrize("name", ["rpm", "tpm", "checks_rpm", "connections", "attempts_max"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "600"])
def test_numbers_out_of_range_are_refused_by_name(name, value):
    """The message names the setting and what it must be."""
    with pytest.raises(SettingUnusable, match=rf"{name} = .* can't be used: it must be"):
        Settings(**{name: value})


def test_what_is_counted_is_whole():
    """There is no half connection."""
    with pytest.raises(SettingUnusable, match=r"connections = 1\.5 .* whole number"):
        Settings(connections=1.5)


def test_a_deadline_may_be_endless():
    """Who wants to wait for ever may say so."""
    assert Settings(deadline_seconds=float("inf")).rules().deadline_seconds == float("inf")


@pytest.mark.parametrize("via", ["bulk", "Batch", "", "batch "])
def test_there_is_one_other_way(via):
    """What is no way to send requests is refused with the word for the one there is."""
    with pytest.raises(SettingUnusable, match=r'via = .* no such way\. Say "batch"'):
        Settings(via=via)


@pytest.mark.parametrize("value", [-1, 1.5, True, "5", None])
def test_a_threshold_is_a_whole_number(value):
    """It may be 0, which is no threshold."""
    assert Settings(direct_below=0).rules().batch_direct_below == 0
    with pytest.raises(SettingUnusable, match=r"direct_below = .* whole number, 0 or greater"):
        Settings(direct_below=value)


@pytest.mark.parametrize("name", ["enqueued_tokens", "batch_lines", "max_in_flight"])
@pytest.mark.parametrize("value", [0, -1, 1.5, float("inf"), "9"])
def test_a_batch_has_whole_limits(name, value):
    """Limits of batches are whole numbers from 1."""
    with pytest.raises(SettingUnusable, match=f"{name} = "):
        Settings(**{name: value})


@pytest.mark.parametrize("name", ["run_deadline_seconds", "execution_deadline_seconds"])
def test_times_may_be_endless_and_are(name):
    """Without a word there is no such limit; whoever says so gets the same."""
    infinite = float("inf")
    assert getattr(Settings().rules(), name) == infinite
    assert getattr(Settings(**{name: infinite}).rules(), name) == infinite
    assert getattr(Settings(**{name: 5}).rules(), name) == 5
    with pytest.raises(SettingUnusable, match=f"{name} = 0"):
        Settings(**{name: 0})


@pytest.mark.parametrize("given", [{"max_cost_usd": 0}, {"max_tokens": 1.5}, {"max_tokens": -1}])
def test_a_budget_is_more_than_nothing(given):
    """Tokens are whole, and whoever may spend nothing need not begin."""
    with pytest.raises(SettingUnusable, match="max_"):
        Settings(**given)


def test_refusals_alike_are_counted_in_whole_numbers():
    """0 is no limit."""
    assert Settings(same_failures_max=0).rules().same_failures_max == 0
    with pytest.raises(SettingUnusable, match=r"same_failures_max = 1\.5"):
        Settings(same_failures_max=1.5)


def test_there_are_two_rules_for_lost_creates():
    """The default is to send again."""
    assert not Settings().rules().gives_up_lost
    assert Settings(lost_creates="give-up").rules().gives_up_lost
    with pytest.raises(SettingUnusable, match=r"lost_creates = 'ask' .* no such rule"):
        Settings(lost_creates="ask")


def test_batches_take_days_and_many_requests():
    """By batch more requests are in flight and a request has more time, unless told otherwise."""
    usual, batched = Settings(), Settings(via="batch")
    assert (usual.places, batched.places) == (1_000, 250_000)
    assert usual.rules().deadline_seconds == 3_600
    assert batched.rules().batch_deadline_seconds == 72 * 3_600
    assert Settings(via="batch", max_in_flight=5).places == 5
    given = Settings(via="batch", deadline_seconds=60).rules()
    assert given.deadline_seconds == given.batch_deadline_seconds == 60


def test_what_is_given_about_batches_reaches_the_engine():
    """Each setting is a bound that the packing keeps; tools make every line longer."""
    settings = Settings(via="batch", enqueued_tokens=9, batch_lines=8, direct_below=7)
    rules = settings.rules(line_bytes=1_000)
    assert (rules.batch_queue_tokens, rules.batch_lines_max, rules.batch_direct_below) == (9, 8, 7)
    assert rules.batch_line_bytes == Settings().rules().batch_line_bytes + 1_000


@pytest.mark.parametrize(
    "said", [{"enqueued_tokens": 5}, {"direct_below": 3}, {"delete_files": True}]
)
def test_nobody_forgets_to_say_batch(said):
    """What is for batches only is refused without them: the price would be twice as high."""
    with pytest.raises(SettingUnusable, match='Say via "batch" too'):
        Settings(**said)


def test_a_batch_has_at_most_fifty_thousand_lines():
    """More would be cut off silently."""
    with pytest.raises(SettingUnusable, match="50,000 lines at most"):
        Settings(via="batch", batch_lines=60_000)


def test_checks_get_a_lane_of_their_own_when_they_have_a_limit():
    """Otherwise they share the lane of their model."""
    assert Settings().rules().checks_lane is None
    assert Settings(checks_rpm=100).rules().checks_lane is not None
