"""What each look at a run teaches, and what it does not."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.groups import Groups
from orchestrator.core.learned import Kind, Learned
from orchestrator.core.looking import Looking
from orchestrator.core.model import Family, Outcome, Request, RunError, Seen, Status
from orchestrator.core.rules import Rules
from orchestrator.core.runs import Run, Stop
from orchestrator.core.states import State

URLS = {
    Family.RESPONSES: "/v1/responses",
    Family.ASSISTANTS: "/v1/threads/thread_1/runs",
    Family.AGENT_SESSIONS: "/v1/agents/sessions",
}


class Told(Learned):
    """Remembers what it was told."""

    def __init__(self):
        super().__init__(1.0)
        self.told = []

    def still_running(self, kind, known_age, age):
        self.told.append(("at work", kind, known_age, age))

    def ended(self, kind, known_age, age):
        self.told.append(("ended", kind, known_age, age))


class NoBody:
    def read(self):
        return b"{}"


def run_of(family=Family.RESPONSES, **changes):
    request = Request("a", URLS[family], family, "gpt-5-nano", 1, NoBody())
    run = Run(1, request, state=State.CHECKING, began_at=100.0, pending_at=103.0)
    for name, value in changes.items():
        setattr(run, name, value)
    return run


def looking_with(learned):
    return Looking(Rules(), Groups(), learned, lambda: 0.5)


SEEN = Seen("resp_1", Status.COMPLETED, "completed")
KIND = Kind("responses", "gpt-5-nano", "/v1/responses")
STOP = Stop(Outcome.STOPPED, RunError("", ""), cancel_remote=True)


@pytest.mark.parametrize(
    ("ago", "early", "late"),
    [
        (None, 3, 9),
        (2.0, 6, 8),
        (0.0, 8, 9),
        (5.5, 3, 4.5),
        (-30.0, 3, 9),  # its clock is wrong
        (900.0, 3, 9),
    ],
)
def test_a_stamp_only_narrows_what_we_know_ourselves(ago, early, late):
    """The server's whole seconds are believed within our own two looks, and never beyond."""
    learned = Told()
    seen = replace(SEEN, finished_seconds_ago=ago)
    looking_with(learned).found_ended(run_of(), seen, None, 109.0)

    assert learned.told == [("ended", KIND, early, late)]


def test_an_event_says_it_better_than_looks_that_are_far_apart():
    """Of a run that was looked at because of its event, the end is known by some seconds."""
    learned = Told()
    run = run_of()
    run.pending_at = run.began_at
    looking_with(learned).found_ended(run, SEEN, 160.0, 161.0)
    run.pending_at = 158.0
    looking_with(learned).found_ended(run, SEEN, 160.0, 161.0)

    assert learned.told == [("ended", KIND, 55.0, 60.0), ("ended", KIND, 58.0, 60.0)]


def test_runs_on_threads_are_one_kind():
    """The thread in the url does not keep runs apart; what follows tool outputs is kept apart."""
    learned = Told()
    looking_with(learned).found_running(run_of(Family.ASSISTANTS), 109.0)
    looking_with(learned).found_running(run_of(Family.ASSISTANTS, turns=1), 109.0)

    [(_, first, _, _), (_, second, _, _)] = learned.told
    assert first == Kind("assistants", "gpt-5-nano", "/v1/threads/runs")
    assert second == first._replace(after_outputs=True)


@pytest.mark.parametrize(
    "run",
    [
        run_of(stop=STOP),
        run_of(state=State.STOPPING),
        run_of(state=State.CREATING),
        run_of(Family.AGENT_SESSIONS),
        run_of(pending_at=90.0),
    ],
    ids=["cancelled by us", "being cancelled", "just created", "in a group", "not seen at work"],
)
def test_what_tells_nothing_teaches_nothing(run):
    """Only looks at single runs that were left alone count."""
    learned = Told()
    looking_with(learned).found_running(run, 109.0)
    looking_with(learned).found_ended(run, SEEN, None, 109.0)

    assert learned.told == []


def test_a_run_of_an_earlier_process_does_not_count_twice():
    """The first look after a restart teaches nothing, those after it do."""
    learned = Told()
    looking, run = looking_with(learned), run_of()
    looking.begun_before(run)
    looking.found_running(run, 109.0)
    run.pending_at = 109.0
    looking.found_ended(run, SEEN, None, 112.0)

    assert learned.told == [("ended", KIND, 9.0, 12.0)]


@settings(max_examples=20)
@given(st.floats(0.01, 3_000), st.floats(0, 3_000), st.none() | st.floats(0, 2_000))
def test_no_gap_outlasts_half_the_retention_nor_a_hint(seconds, age, hint):
    """Whatever was learned, a finished result is found while it is kept, and hints are minded."""
    learned = Learned(50.0)
    for _ in range(20):
        learned.ended(KIND, seconds * 0.99, seconds)

    gap = looking_with(learned).gap_seconds(run_of(), hint, 100.0 + age)

    assert 0 < gap <= 300
    assert gap >= min(hint or 0.0, 300)
