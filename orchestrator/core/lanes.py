"""What waits for a permit, per lane, and in which order it gets one.

A lane is what one bucket of the limiter serves: the calls of one model, or the checks of all when
those have a limit of their own. Queues may hold entries whose run has moved on; the scheduler
knows, and drops them when they surface.

Order of urgency: tool outputs (the run expires while it waits), cancels (the run costs money),
checks, result fetches, creates. One permit in `CREATE_SHARE` goes to a create even when others
wait, so that a crowd of running runs can't starve the new ones.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

CREATE_SHARE = 10

# The lane of batches, whose limits are no model's. No model has such a name.
BATCH_LANE = "(batches)"


class Want(StrEnum):
    """What a run waits to have done."""

    SUBMIT = "submit"
    CANCEL = "cancel"
    CHECK = "check"
    FETCH = "fetch"
    CREATE = "create"


BY_URGENCY = (Want.SUBMIT, Want.CANCEL, Want.CHECK, Want.FETCH, Want.CREATE)
CREATE_FIRST = (Want.CREATE, Want.SUBMIT, Want.CANCEL, Want.CHECK, Want.FETCH)


@dataclass(slots=True)
class Lane:
    """The runs, by number, that wait for a permit of one bucket."""

    name: str
    calls_since_create: int = 0
    waiting: dict[Want, deque[int]] = field(
        default_factory=lambda: {want: deque() for want in BY_URGENCY}
    )

    def __bool__(self) -> bool:
        return any(self.waiting.values())

    def __len__(self) -> int:
        return sum(map(len, self.waiting.values()))

    def by_urgency(self) -> Iterator[tuple[Want, deque[int]]]:
        """The queues that are not empty, the most urgent first."""
        starving = self.calls_since_create >= CREATE_SHARE - 1
        for want in CREATE_FIRST if starving else BY_URGENCY:
            if self.waiting[want]:
                yield want, self.waiting[want]

    def count(self, want: Want) -> None:
        """A call of this kind was handed out."""
        self.calls_since_create = 0 if want is Want.CREATE else self.calls_since_create + 1
