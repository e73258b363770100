"""The journal of an execution: what would be lost with the process, in SQLite beside the results.

    file = JournalFile(folder)        one process at a time; what was kept before can be read
    journal = Journal(file, ...)      this process works on it from now on; `run` writes
    journal.close()

`JournalReader.open(folder)` looks at it while a writer is at work, or after it was killed.
"""

from orchestrator.adapters.journal.ballast import BALLAST_NAME, Ballast
from orchestrator.adapters.journal.file import JournalFile
from orchestrator.adapters.journal.journal import InThread, Journal
from orchestrator.adapters.journal.lock import LOCK_NAME
from orchestrator.adapters.journal.opening import JOURNAL_NAME
from orchestrator.adapters.journal.reading import JournalReader
from orchestrator.adapters.journal.records import (
    EndedGroup,
    Facts,
    Known,
    Session,
    Unfinished,
    Unwritten,
)
from orchestrator.adapters.journal.standing import Standing, Where, standing
from orchestrator.adapters.journal.story import Admitted, Ended, Happening, story_of

__all__ = [
    "BALLAST_NAME",
    "JOURNAL_NAME",
    "LOCK_NAME",
    "Admitted",
    "Ballast",
    "Ended",
    "EndedGroup",
    "Facts",
    "Happening",
    "InThread",
    "Journal",
    "JournalFile",
    "JournalReader",
    "Known",
    "Session",
    "Standing",
    "Unfinished",
    "Unwritten",
    "Where",
    "standing",
    "story_of",
]
