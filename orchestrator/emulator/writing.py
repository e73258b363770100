"""How an API writes ids and times: as OpenAI does, or as a server that speaks it otherwise."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from uuid import UUID

from orchestrator.emulator.deviations import Deviation

Time = int | float | str


class Api(StrEnum):
    """The APIs that are known to be written in more than one way."""

    ASSISTANTS = "assistants"
    SESSIONS = "sessions"


@dataclass(frozen=True, slots=True)
class Writing:
    """How ids are made of a prefix and 32 hex digits, and times of unix seconds."""

    id_of: Callable[[str, str], str]
    time_of: Callable[[float], Time]


def _prefixed(prefix: str, digits: str) -> str:
    return prefix + digits


def _plain(_prefix: str, digits: str) -> str:
    return digits


def _uuid(_prefix: str, digits: str) -> str:
    return str(UUID(digits))


def _iso(unix: float) -> str:
    return datetime.fromtimestamp(unix, UTC).isoformat()


OPENAI = Writing(_prefixed, int)


def writing_of(api: Api, deviations: Collection[Deviation]) -> Writing:
    """How this API is written by a server with these deviations."""
    if api is Api.SESSIONS:
        return Writing(_uuid, _iso) if Deviation.SESSIONS_PLAIN in deviations else OPENAI
    plain = Deviation.ASSISTANTS_PLAIN_IDS in deviations
    floats = Deviation.ASSISTANTS_FLOAT_TIMES in deviations
    return Writing(_plain if plain else _prefixed, float if floats else int)
