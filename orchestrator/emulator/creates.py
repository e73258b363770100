"""Everything that was created and is to be paid, and what its caller made of it afterwards.

A test that kills its program compares this with what the program has on disk: what was created for
the same key twice, whose id never got to the caller, and what nobody ever came back for.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Where the metadata says which request this is, in the word that batches have for it.
KEY = "custom_id"


@dataclass(slots=True)
class Created:
    """One create whose work was done.

    Attributes:
        kind: What was created; `..._turn` where it goes on with a conversation.
        key: The `custom_id` in its metadata; the digest of its body where there is none.
        run_id: Its id, empty where answers have none.
        at_seconds: When.
        metadata: As it was sent.
        delivered: Whether its whole answer went out over a connection that was open, and the
            connection did not end with the answer unread. What a caller that dies makes of an
            answer that it has read can't be known here; nor, where the emulator is not served over
            a socket of its own, whether it was read.
        looked_at: Calls that asked for it by its id, for its messages or items too.
        listed: Lists that showed it, to whomever.
        continued: Tool outputs or other input that it took, and responses that go on from it.
        cancelled: Times that it was told to stop.
    """

    kind: str
    key: str
    run_id: str
    at_seconds: float
    metadata: Mapping[str, str]
    delivered: bool = False
    looked_at: int = 0
    listed: int = 0
    continued: int = 0
    cancelled: int = 0

    def summary(self) -> dict[str, Any]:
        """All of it as one JSON-ready value."""
        return {
            "kind": self.kind,
            "key": self.key,
            "run_id": self.run_id,
            "at_seconds": self.at_seconds,
            "metadata": dict(self.metadata),
            "delivered": self.delivered,
            "looked_at": self.looked_at,
            "listed": self.listed,
            "continued": self.continued,
            "cancelled": self.cancelled,
        }


class Creates:
    """All creates in their order. What is told of ids that are not among them means nothing."""

    def __init__(self) -> None:
        self._each: list[Created] = []
        self._by_id: dict[str, Created] = {}
        self._by_digest: Counter[str] = Counter()
        self._by_metadata: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def add(
        self,
        kind: str,
        run_id: str,
        body_digest: str,
        metadata: Mapping[str, str] | None,
        now: float,
    ) -> Created:
        """Note that a create call's work was done, whether or not its answer arrives."""
        self._by_digest[body_digest] += 1
        for name, value in (metadata or {}).items():
            self._by_metadata[name][value] += 1
        key = (metadata or {}).get(KEY, body_digest)
        created = Created(kind, key, run_id, now, metadata or {})
        self._each.append(created)
        if run_id:
            self._by_id[run_id] = created
        return created

    def looked_at(self, run_id: str) -> None:
        """Somebody asked for it by its id."""
        if (created := self._by_id.get(run_id)) is not None:
            created.looked_at += 1

    def listed(self, run_id: str) -> None:
        """A list showed it."""
        if (created := self._by_id.get(run_id)) is not None:
            created.listed += 1

    def continued(self, run_id: str) -> None:
        """It was given something to go on with, or something goes on from it."""
        if (created := self._by_id.get(run_id)) is not None:
            created.continued += 1

    def cancelled(self, run_id: str) -> None:
        """It was told to stop."""
        if (created := self._by_id.get(run_id)) is not None:
            created.cancelled += 1

    def page(self, after: int, limit: int) -> list[dict[str, Any]]:
        """Creates in order, from the one that follows number `after`; they count from 1."""
        some = self._each[after : after + limit]
        return [{"number": after + n, **one.summary()} for n, one in enumerate(some, 1)]

    def summary(self) -> dict[str, Any]:
        """How many there were, by what the bodies were and by what their metadata said."""
        return {
            "by_digest": dict(self._by_digest),
            "by_metadata": {name: dict(values) for name, values in self._by_metadata.items()},
        }
