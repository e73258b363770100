"""The files that the pretend API keeps: uploaded ones, and those that batches leave behind."""

from collections import Counter
from dataclasses import dataclass
from math import inf
from typing import Any


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file; times are the emulator's, in seconds, `expires_at` is inf for never."""

    id: str
    filename: str
    purpose: str
    created_at: float
    expires_at: float
    content: bytes


class Files:
    """All files by id, in the order in which they came, and a tally of what ever was."""

    def __init__(self) -> None:
        self._files: dict[str, StoredFile] = {}
        self._counts: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._deleted: Counter[str] = Counter()
        self._sent: Counter[str] = Counter()
        self._expires_first = inf

    def add(self, file: StoredFile) -> None:
        """Keep a new file."""
        self._files[file.id] = file
        self._counts[file.purpose] += 1
        self._bytes[file.purpose] += len(file.content)
        self._expires_first = min(self._expires_first, file.expires_at)

    def find(self, file_id: str, now: float) -> StoredFile | None:
        """The file, unless it was never there, is deleted or has expired."""
        self._forget(now)
        return self._files.get(file_id)

    def newest_first(self, now: float) -> list[StoredFile]:
        """Every file there is; those of one moment in the opposite order of their coming."""
        self._forget(now)
        files = sorted(self._files.values(), key=lambda file: file.created_at)
        files.reverse()
        return files

    def delete(self, file: StoredFile) -> None:
        """Let go of a file."""
        del self._files[file.id]
        self._deleted[file.purpose] += 1

    def sent(self, file: StoredFile) -> None:
        """Note that somebody was given the content."""
        self._sent[file.purpose] += len(file.content)

    def summary(self, now: float) -> dict[str, Any]:
        """By purpose: files ever made and their bytes, deleted by call, there now, bytes given."""
        self._forget(now)
        there = Counter(file.purpose for file in self._files.values())
        return {
            purpose: {
                "created": count,
                "bytes": self._bytes[purpose],
                "deleted": self._deleted[purpose],
                "there": there[purpose],
                "bytes_downloaded": self._sent[purpose],
            }
            for purpose, count in self._counts.items()
        }

    def _forget(self, now: float) -> None:
        if now < self._expires_first:
            return
        self._files = {key: file for key, file in self._files.items() if now < file.expires_at}
        self._expires_first = min((file.expires_at for file in self._files.values()), default=inf)
