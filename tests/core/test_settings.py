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


def test_checks_get_a_lane_of_their_own_when_they_have_a_limit():
    """Otherwise they share the lane of their model."""
    assert Settings().rules().checks_lane is None
    assert Settings(checks_rpm=100).rules().checks_lane is not None
