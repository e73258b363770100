"""What the core knows of each API family: its endpoints and its limits.

Source of the numbers: the vendor's documentation as read in November 2026.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from orchestrator.core.model import Family

RESPONSES_URL = "/v1/responses"
CHAT_URL = "/v1/chat/completions"
EMBEDDINGS_URL = "/v1/embeddings"
COMPLETIONS_URL = "/v1/completions"
MODERATIONS_URL = "/v1/moderations"

URLS = (RESPONSES_URL, CHAT_URL, EMBEDDINGS_URL, COMPLETIONS_URL, MODERATIONS_URL)


@dataclass(frozen=True, slots=True)
class FamilyFacts:
    """The facts that scheduling needs.

    `runs_per_check` is how many runs one status call can answer for, `keeps_result_seconds` how
    long a finished run can still be fetched, which bounds the gap between two checks.
    """

    runs_per_check: int
    keeps_result_seconds: float


FACTS: Mapping[Family, FamilyFacts] = MappingProxyType(
    {
        # No list endpoint; "roughly 10 minutes to enable polling" (guide on background mode).
        Family.RESPONSES: FamilyFacts(runs_per_check=1, keeps_result_seconds=600),
        # Answers at once, so there is nothing to check.
        Family.DIRECT: FamilyFacts(runs_per_check=1, keeps_result_seconds=float("inf")),
    }
)


def family_for(url: str, *, background: bool) -> Family:
    """The family that serves a request line, by its url and its body's `background`.

    Raises:
        KeyError: The url is none of `URLS`.
    """
    if url not in URLS:
        raise KeyError(url)
    return Family.RESPONSES if url == RESPONSES_URL and background else Family.DIRECT
