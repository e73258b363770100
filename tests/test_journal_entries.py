"""Entries as the journal stores them: equal when they come back, whatever a server sent."""

from dataclasses import fields, replace
from typing import get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.adapters.journal.codec import KIND_OF, decoded, encoded
from orchestrator.adapters.journal.rows import storable, text_from
from orchestrator.core import events
from orchestrator.core.entries import CancelSent, CreateSent, Entry, OutputsSent
from orchestrator.core.failures import Cause, Failure
from orchestrator.core.model import (
    NO_USAGE,
    Answer,
    BatchSeen,
    RunError,
    Seen,
    Status,
    Times,
    ToolCall,
    ToolOutput,
    Usage,
)

# Halves of surrogate pairs and NULs are among them.
texts = st.text(st.characters(codec=None), max_size=20)
numbers = st.integers(-(2**31), 2**31).filter(bool)
counts = st.integers(0, 2**80)
seconds = st.none() | st.floats(allow_nan=False, allow_infinity=False)
errors = st.builds(RunError, texts, texts)
usages = st.just(NO_USAGE) | st.builds(Usage, counts, counts, counts, counts)
batches = st.builds(
    BatchSeen,
    counts,
    st.dictionaries(st.integers(1, 50_000), errors, max_size=2),
    st.booleans(),
    st.none() | counts,
    st.just(()),
)
sights = st.builds(
    Seen,
    run_id=texts,
    status=st.sampled_from(Status),
    said=texts,
    tool_calls=st.lists(st.builds(ToolCall, texts, texts, texts), max_size=2).map(tuple),
    usage=usages,
    error=st.none() | errors,
    look_again_seconds=seconds,
    finished_seconds_ago=seconds,
    continuation=st.none() | st.binary(),
    unanswerable=st.none() | errors,
    lives_seconds=seconds,
    batch=st.none() | batches,
    found=st.booleans(),
)
failures = st.builds(
    Failure, st.sampled_from(Cause), texts, texts, st.integers(0, 999), seconds, texts
)
entries = st.one_of(
    st.builds(CreateSent, numbers, counts, st.lists(numbers, max_size=3).map(tuple)),
    st.builds(OutputsSent, numbers),
    st.builds(CancelSent, numbers),
    st.builds(events.RunPrepared, numbers, st.binary()),
    st.builds(events.RunMissing, numbers),
    st.builds(events.ToolFinished, numbers, st.builds(ToolOutput, texts, texts, st.booleans())),
    st.builds(events.LineAnswered, numbers, numbers, sights | failures),
    *(
        st.builds(kind, numbers, sights)
        for kind in KIND_OF
        if any(field.name == "seen" for field in fields(kind))
    ),
    *(
        st.builds(kind, numbers, failures)
        for kind in KIND_OF
        if any(field.name == "failure" for field in fields(kind))
    ),
)


@given(entries)
def test_an_entry_comes_back_equal(entry):
    """Whatever is in its texts and however large its numbers are."""
    kind, data = encoded(entry)

    data.encode()  # SQLite takes nothing else
    assert decoded(entry.number, kind, data) == entry


@given(sights)
@example(Seen("r", Status.COMPLETED, "completed"))
def test_what_no_replay_needs_is_left_out(seen):
    """A server's answer may have megabytes; it is in the result file. Lines are read only once."""
    unread = iter([(1, seen)])
    told = replace(
        seen,
        answer=Answer(200, "req_1", b"{}"),
        times=Times(1.0, 2.0, 3.0),
        batch=BatchSeen(3, lines=unread),
    )

    kept = decoded(1, *encoded(events.RunSeen(1, told)))

    assert kept == events.RunSeen(1, replace(seen, batch=BatchSeen(3)))
    assert next(unread) == (1, seen)


def test_what_is_as_always_takes_no_room():
    """A run that was created is a few dozen bytes beside its name."""
    seen = Seen("resp_1", Status.PENDING, "queued")

    assert encoded(events.RunCreated(1, seen)) == (
        "run_created",
        '{"run_id":"resp_1","status":"pending","said":"queued"}',
    )
    assert encoded(events.RunMissing(1)) == ("run_missing", "{}")
    assert encoded(CreateSent(1)) == ("create_sent", "{}")


def test_every_entry_has_a_kind():
    """Only that a request is not wanted is never kept: each process is told so anew."""
    every = {kind for part in get_args(Entry) for kind in (get_args(part) or [part])}

    assert set(KIND_OF) == every - {events.StopRequested}
    assert len(set(KIND_OF.values())) == len(KIND_OF)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("run_dreamt", "{}"),
        ("run_seen", "{}"),
        ("run_seen", '{"run_id":"r","status":"dreaming","said":""}'),
        ("create_failed", '{"cause":"dream","message":""}'),
        ("line_answered", '{"batch":-1}'),
        ("tool_finished", "{"),
    ],
)
def test_what_this_version_does_not_know(kind, data):
    """It is an error, never an entry that says something else."""
    with pytest.raises(ValueError, match=r"\w"):
        decoded(1, kind, data)


@given(texts)
def test_any_text_can_be_stored(text):
    """SQLite takes text that UTF-8 can write, and anything else as bytes."""
    stored = storable(text)

    if isinstance(stored, str):
        stored.encode()
    assert text_from(stored) == text
