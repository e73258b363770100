"""What an execution has counted, kept in its journal so that the next process counts on."""

from collections import Counter
from typing import Self

import msgspec

from orchestrator.ports import CallKind


class Counts(msgspec.Struct, kw_only=True):
    """Counts since the execution began, over all its processes."""

    totals: dict[str, int] = {}
    batches_by_end: dict[str, int] = {}
    webhooks: dict[str, int] = {}  # what came in, by what became of it
    calls: list[tuple[str, str, int]] = []  # kind, status, how many
    seconds: float = 0.0  # that processes were at work
    tasks_max: int = 0

    @classmethod
    def read(cls, stored: bytes | None) -> Self:
        """From the journal; nothing counted when there is nothing."""
        return cls() if stored is None else msgspec.json.decode(stored, type=cls)

    def stored(self) -> bytes:
        """For the journal."""
        return msgspec.json.encode(self)

    def counted_calls(self) -> Counter[tuple[CallKind, str]]:
        """Calls by kind and status."""
        return Counter({(CallKind(kind), status): count for kind, status, count in self.calls})
