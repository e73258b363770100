"""Everything that happened to one request, in order, by the clock on the wall."""

from bisect import bisect_left
from dataclasses import dataclass

from orchestrator.adapters.journal.reading import JournalReader
from orchestrator.adapters.journal.rows import storable, text_from
from orchestrator.core.entries import Entry
from orchestrator.core.model import Outcome


@dataclass(frozen=True, slots=True)
class Admitted:
    """The request got a place in flight."""

    number: int
    line: int
    model: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The request ended. Why is told unless it completed."""

    number: int
    outcome: Outcome
    code: str
    message: str
    run_id: str


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that happened to a request, or to a batch that carried it.

    Attributes:
        unix: When, in seconds since 1970.
        session: In which process's work.
    """

    unix: float
    session: int
    what: Admitted | Entry | Ended


def story_of(journal: JournalReader, custom_id: str) -> list[Happening]:
    """What happened to the request with this custom_id; nothing when it was not admitted yet.

    One that was reopened has several numbers, one after the other.

    Raises:
        JournalUnusable: The journal is damaged.
    """
    told: list[tuple[int, float, Admitted | Entry | Ended]] = []
    key = [storable(custom_id)]
    for row in journal.rows("attempts", key):
        number, line, model, seq, at, ended_seq, ended_at, outcome, code, message, run_id = row
        told.append((seq, at, Admitted(number, line, text_from(model))))
        if outcome is not None:
            texts = (text_from(text) for text in (code, message, run_id))
            told.append((ended_seq, ended_at, Ended(number, Outcome(outcome), *texts)))
    for seq, at, number, kind, data in journal.rows("entries_of", key):
        told.append((seq, at, journal.entry(number, kind, data)))
    told.sort(key=lambda each: each[0])

    sessions = journal.sessions()
    last_seqs = [session.last_seq for session in sessions]
    happened = []
    for seq, at, what in told:
        session = sessions[bisect_left(last_seqs, seq)]
        unix = session.started_unix + at - session.base_seconds
        happened.append(Happening(unix, session.number, what))
    return happened
