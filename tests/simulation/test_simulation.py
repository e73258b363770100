"""Executions that are killed, interrupted and in trouble at any moment keep every promise."""

import os
from pathlib import Path

import pytest
from simulation.canaries import CANARIES, singing
from simulation.many import broken, first_broken
from simulation.play import play

SEEDS = Path(__file__).with_name("seeds.txt")

IN_THE_FAST_SUITE = range(100_000, 100_008)
IN_CI = range(1_000)
FOR_A_CANARY = 200
KILLED_AND_INTERRUPTED = 27


def once_broken():
    lines = SEEDS.read_text().splitlines()
    return [int(line.split()[0]) for line in lines if line and not line.startswith("#")]


def shown(stories):
    return "\n\n".join(stories)


def test_one_seed(seed):
    """The seed that is given with --seed keeps every promise."""
    if seed is None:
        pytest.skip("give one with --seed")
    play(seed)


@pytest.mark.parametrize("number", IN_THE_FAST_SUITE)
def test_a_few_seeds(number):
    """Nothing is lost and nothing is paid twice, whatever happens to the processes."""
    play(number)


def test_a_seed_tells_the_same_story_each_time():
    """What fails can be played again: the same calls at the same times, the same lines."""
    first, second = play(KILLED_AND_INTERRUPTED), play(KILLED_AND_INTERRUPTED)

    assert len(first.processes) > 1
    assert _calls(first) == _calls(second)
    assert first.result_files == second.result_files


def _calls(played):
    return [tuple(record) for record in played.emulator.books.calls(0, 10**9)]


@pytest.mark.parametrize("number", once_broken())
def test_a_seed_that_was_once_broken(number):
    """What was mended stays mended."""
    play(number)


@pytest.mark.slow
def test_a_thousand_seeds():
    """The same, a thousand times."""
    stories = [story for _, story in broken(IN_CI, workers=os.cpu_count() or 1)]
    assert stories == [], shown(stories)


@pytest.mark.slow
@pytest.mark.parametrize("name", CANARIES)
def test_a_bug_put_in_on_purpose_is_found(name):
    """Within 200 seeds; or the seeds that are not broken would prove nothing."""
    with singing(name):
        assert first_broken(FOR_A_CANARY) is not None
