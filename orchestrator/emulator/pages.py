"""Lists a page at a time: so many things after the one that was named."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

from orchestrator.emulator.calls import Call
from orchestrator.emulator.refusals import refuse_invalid

LIMIT_DEFAULT = 20
LIMIT_MAX = 100


class Identified(Protocol):
    """What stands in a list and can be named as the one to go on after."""

    @property
    def id(self) -> str:
        """Its id."""


ThingT = TypeVar("ThingT", bound=Identified)


def page_of(
    call: Call,
    things: Sequence[ThingT],
    *,
    default: int = LIMIT_DEFAULT,
    most: int = LIMIT_MAX,
) -> tuple[Sequence[ThingT], bool]:
    """The asked-for page of these ordered things, and whether more follow.

    Raises the 400 for a limit or an `after` that can't be meant.
    """
    limit = read_limit(call, default=default, most=most)
    start = 0
    after = call.query.get("after")
    if after:
        ids = [thing.id for thing in things]
        if after not in ids:
            refuse_invalid(f"Invalid 'after': there is no '{after}' here.", param="after")
        start = ids.index(after) + 1
    return things[start : start + limit], len(things) > start + limit


def read_limit(call: Call, *, default: int = LIMIT_DEFAULT, most: int = LIMIT_MAX) -> int:
    """How many things one page holds."""
    given = call.query.get("limit", "")
    if not given:
        return default
    if not (given.isascii() and given.isdecimal() and 1 <= int(given) <= most):
        message = f"Invalid 'limit': expected a whole number from 1 to {most}, got {given!r}."
        refuse_invalid(message, param="limit")
    return int(given)
