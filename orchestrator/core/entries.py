"""What a journal keeps of an execution, so that a replay brings every run back to where it stood.

Two kinds of entries: intents, which are there before their call leaves, and what happened. What
only looked at a run and found nothing new is left out; so is what time alone brings about.
"""

from dataclasses import dataclass

from orchestrator.core import events


@dataclass(frozen=True, slots=True)
class CreateSent:
    """A call of a create goes out. Without an answer after it, nobody knows what came of it.

    `group` is the one that the run is created into. `lines` are the runs that a batch carries, in
    the order of its file; given when the file is written.
    """

    number: int
    group: int = 0
    lines: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class OutputsSent:
    """All tool outputs of a turn go out."""

    number: int


Intent = CreateSent | OutputsSent
Happened = events.RunEvent | events.LineAnswered
Entry = Intent | Happened
