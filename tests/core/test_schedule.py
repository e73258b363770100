"""The schedule against a model that anybody can check: a sorted list."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from orchestrator.core.schedule import STALE_ENTRIES_MIN, Schedule

RUNS = 20
NUMBERS = st.integers(1, RUNS)
TIMES = st.integers(0, 10).map(float)  # few different ones, so that there are ties


class AgainstSortedList(RuleBasedStateMachine):
    """A run is moved by putting it again, as the scheduler does it."""

    def __init__(self):
        super().__init__()
        self.schedule = Schedule()
        self.planned = {}  # number -> (due_at, when it was put)
        self.puts = 0

    @rule(number=NUMBERS, due_at=TIMES)
    def put_or_move(self, number, due_at):
        self.puts += 1
        self.planned[number] = (due_at, self.puts)
        self.schedule.put(number, due_at)

    @rule(number=NUMBERS, due_at=TIMES)
    def move_so_often_that_stale_entries_are_swept(self, number, due_at):
        for _ in range(STALE_ENTRIES_MIN + 2 * RUNS):
            self.schedule.put(number, due_at)
        self.put_or_move(number, due_at)

    @rule(number=NUMBERS)
    def drop(self, number):
        self.planned.pop(number, None)
        self.schedule.drop(number)

    @rule(now=TIMES)
    def take_due(self, now):
        in_order = sorted(self.planned, key=self.planned.__getitem__)
        expected = [number for number in in_order if self.planned[number][0] <= now]

        assert self.schedule.take_due(now) == expected

        for number in expected:
            del self.planned[number]

    @invariant()
    def it_holds_what_the_list_holds(self):
        first = min((due_at for due_at, _ in self.planned.values()), default=None)
        assert self.schedule.next_due() == first
        assert len(self.schedule) == len(self.planned)
        assert {n for n in range(RUNS + 1) if n in self.schedule} == set(self.planned)

    @invariant()
    def stale_entries_are_bounded(self):
        assert len(self.schedule._heap) <= 2 * RUNS + STALE_ENTRIES_MIN


class TestScheduleIsASortedList(AgainstSortedList.TestCase):
    """Whatever is put, moved, dropped and taken, the order is that of a sorted list."""


@given(st.permutations(range(30)))
def test_ties_go_to_the_run_that_was_put_first(order):
    """Of runs due at the same time the one that was put first comes first."""
    schedule = Schedule()
    for number in order:
        schedule.put(number, 5.0)

    assert schedule.take_due(5.0) == list(order)


def test_a_moved_run_goes_to_the_end_of_its_tie():
    """Moving a run to the time it had already gives it a new, later ticket."""
    schedule = Schedule()
    schedule.put(1, 5.0)
    schedule.put(2, 5.0)
    schedule.put(1, 5.0)

    assert schedule.take_due(5.0) == [2, 1]


def test_a_swept_schedule_keeps_its_order():
    """The sweep throws away stale entries and nothing else."""
    schedule = Schedule()
    sizes = []
    for time in range(STALE_ENTRIES_MIN):
        for number in range(3):
            schedule.put(number, float(time - number))
            sizes.append(len(schedule._heap))

    assert max(sizes) <= 2 * 3 + STALE_ENTRIES_MIN
    assert any(after < before for before, after in pairwise(sizes))
    assert schedule.take_due(1e9) == [2, 1, 0]


def test_dropping_what_is_not_there_is_nothing():
    """A run that waits for an answer is in no schedule, and may be dropped all the same."""
    schedule = Schedule()
    schedule.drop(1)

    assert schedule.next_due() is None
    assert repr(schedule) == "<Schedule of 0, next at None>"
