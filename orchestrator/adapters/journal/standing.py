"""Where an execution stands, as its journal tells it: while a process works on it, or after."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.adapters.journal.lock import is_held
from orchestrator.adapters.journal.reading import JournalReader
from orchestrator.adapters.journal.records import Facts, Session
from orchestrator.core import events
from orchestrator.core.entries import CreateSent, Entry, OutputsSent
from orchestrator.core.failures import Failure
from orchestrator.core.model import Outcome, Seen, Status


class Where(StrEnum):
    """Where a request stands that has not ended."""

    HERE = "here"  # it waits to be sent, for the first time or again
    IN_DOUBT = "in_doubt"  # a create was sent, and no answer to it is known
    THERE = "there"  # its run is on the server
    TOOLS = "tools"  # its run waits for tool outputs, or these are on their way


@dataclass(frozen=True, slots=True)
class Standing:
    """An execution at one moment.

    Attributes:
        facts: What was told when it began, None when it was killed before that.
        by_outcome: Requests that ended. Those that were reopened are not among them.
        unfinished: Requests that were admitted and have not ended, by where they stand.
        session: The last process's work; None where none began.
        is_alive: Whether a process works on it now.
        counts: What the last process counted, as it was stored about a second before.
    """

    facts: Facts | None
    by_outcome: Mapping[Outcome, int]
    unfinished: Mapping[Where, int]
    session: Session | None
    is_alive: bool
    counts: bytes | None


def standing(journal: JournalReader) -> Standing:
    """Where the execution of this journal stands.

    Raises:
        JournalUnusable: The journal is damaged.
    """
    by_outcome = {Outcome(outcome): count for outcome, count in journal.rows("outcomes")}
    unfinished = [row[0] for row in journal.rows("unfinished")]
    carried: defaultdict[int, list[int]] = defaultdict(list)
    for batch, number in journal.rows("unfinished_batches"):
        carried[batch].append(number)
    places = _places(unfinished, carried, (entry for _, entry in journal.entries()))
    sessions = journal.sessions()
    return Standing(
        facts=journal.facts,
        by_outcome=by_outcome,
        unfinished=Counter(places.values()),
        session=sessions[-1] if sessions else None,
        is_alive=is_held(journal.folder),
        counts=journal.last_counts,
    )


def _places(
    numbers: Iterable[int], carried: Mapping[int, list[int]], entries: Iterable[Entry]
) -> dict[int, Where]:
    places = dict.fromkeys(numbers, Where.HERE)
    in_batch: dict[int, int] = {}  # the batch that carries a request now
    for entry in entries:
        where = _after(entry)
        if entry.number > 0:
            if where is not None:
                places[entry.number] = where
            if isinstance(entry, events.LineAnswered):
                in_batch.pop(entry.number, None)
            continue
        numbers_here = carried.get(entry.number, [])
        if isinstance(entry, CreateSent) and entry.lines:
            in_batch.update(dict.fromkeys(_those_of(entry, numbers_here), entry.number))
        for number in numbers_here:
            # One that goes out with tool outputs is answered with nothing but its line.
            if in_batch.get(number) == entry.number and places[number] is not Where.TOOLS:
                places[number] = where or places[number]
    return places


def _those_of(sent: CreateSent, numbers: Iterable[int]) -> Iterator[int]:
    lines = frozenset(sent.lines)
    return (number for number in numbers if number in lines)


def _after(entry: Entry) -> Where | None:
    """Where a run stands after this; None where it stands as before."""
    match entry:
        case CreateSent():
            return Where.IN_DOUBT
        case events.RunPrepared() | events.CreateFailed() | events.LineAnswered(answer=Failure()):
            return Where.HERE  # the next call is an entry again
        case (
            events.RunCreated(seen=seen)
            | events.RunSeen(seen=seen)
            | events.OutputsAccepted(seen=seen)
            | events.ResultFetched(seen=seen)
            | events.CancelAccepted(seen=seen)
            | events.LineAnswered(answer=Seen() as seen)
        ):
            return _seen_at(seen)
        case OutputsSent() | events.ToolFinished() | events.OutputsFailed():
            return Where.TOOLS
        case _:
            return None


def _seen_at(seen: Seen) -> Where:
    if seen.status is Status.REQUIRES_ACTION:
        return Where.TOOLS
    over = {Status.FAILED, Status.EXPIRED, Status.CANCELLED}
    # It would have ended if it were not to be sent again; so would the lines of a batch.
    return Where.HERE if seen.status in over else Where.THERE
