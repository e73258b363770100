"""What the core knows of each API family: its endpoints and its ways.

Source of the numbers: the vendor's documentation as read in November 2026. The README's table of
families is made from `FACTS`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from orchestrator.core.model import Family

RESPONSES_URL = "/v1/responses"
CHAT_URL = "/v1/chat/completions"
EMBEDDINGS_URL = "/v1/embeddings"
COMPLETIONS_URL = "/v1/completions"
MODERATIONS_URL = "/v1/moderations"
THREADS_RUNS_URL = "/v1/threads/runs"  # creates thread and run in one call
SESSIONS_URL = "/v1/agents/sessions"
BATCHES_URL = "/v1/batches"

URLS = (
    RESPONSES_URL,
    CHAT_URL,
    EMBEDDINGS_URL,
    COMPLETIONS_URL,
    MODERATIONS_URL,
    THREADS_RUNS_URL,
    SESSIONS_URL,
)

# What a batch can carry (API reference; /v1/videos and /v1/images have no family here yet).
URLS_BY_BATCH = frozenset(
    {RESPONSES_URL, CHAT_URL, EMBEDDINGS_URL, COMPLETIONS_URL, MODERATIONS_URL}
)

# Runs on a thread that is there already; the id is the server's.
RUNS_ON_THREAD = re.compile(r"/v1/threads/(?P<thread>[^/?#]+)/runs")


@dataclass(frozen=True, slots=True)
class FamilyFacts:
    """The facts that scheduling needs.

    Attributes:
        runs_per_check: How many runs one status call can answer for.
        keeps_result_seconds: How long a finished run can still be fetched; this bounds the gap
            between two checks.
        waits_for_outputs: Whether the run stays on the server while its tools are at work, so
            that it can expire, be looked at and be cancelled meanwhile.
        fetches_result: Whether the result takes a call of its own.
        runs_again_when_expired: Whether a run that expired is started anew.
        finds_lost_creates: Whether a create whose answer was lost is looked for in a list before
            it is sent again.
        sends_webhooks: Whether we hear of its end without asking.
    """

    runs_per_check: int = 1
    keeps_result_seconds: float = float("inf")
    waits_for_outputs: bool = False
    fetches_result: bool = False
    runs_again_when_expired: bool = False
    finds_lost_creates: bool = False
    sends_webhooks: bool = False


FACTS: Mapping[Family, FamilyFacts] = MappingProxyType(
    {
        # No list endpoint; "roughly 10 minutes to enable polling" (guide on background mode).
        Family.RESPONSES: FamilyFacts(keeps_result_seconds=600, sends_webhooks=True),
        # A run that waits for tools expires about 10 minutes after its creation, and its messages
        # stay with the thread.
        # `GET /threads/{id}/runs` lists the runs of one thread, so the thread has to be known.
        Family.ASSISTANTS: FamilyFacts(
            waits_for_outputs=True,
            fetches_result=True,
            runs_again_when_expired=True,
            finds_lost_creates=True,
        ),
        # `GET /agents/sessions?metadata[...]&limit=100` returns full sessions.
        Family.AGENT_SESSIONS: FamilyFacts(
            runs_per_check=100,
            waits_for_outputs=True,
            fetches_result=True,
            finds_lost_creates=True,
            sends_webhooks=True,
        ),
        # `GET /batches?limit=100`; output files are kept for 30 days.
        Family.BATCH: FamilyFacts(
            runs_per_check=100, fetches_result=True, finds_lost_creates=True, sends_webhooks=True
        ),
        # Answers at once, so there is nothing to check.
        Family.DIRECT: FamilyFacts(),
    }
)


class About(StrEnum):
    """What a webhook tells of a run."""

    END = "end"
    ACTION = "action"  # it waits for tool outputs


# The types of webhooks that mean an end or a wish for tools (SDK 3.52, `types/webhooks`). All
# others (`agent.session.created`, `in_progress`, those of other APIs) change nothing here. They
# are no sign of life either: an endpoint may be subscribed to them and not to these.
WEBHOOKS: Mapping[str, tuple[Family, About]] = MappingProxyType(
    {
        "response.completed": (Family.RESPONSES, About.END),
        "response.failed": (Family.RESPONSES, About.END),
        "response.cancelled": (Family.RESPONSES, About.END),
        "response.incomplete": (Family.RESPONSES, About.END),
        "batch.completed": (Family.BATCH, About.END),
        "batch.failed": (Family.BATCH, About.END),
        "batch.expired": (Family.BATCH, About.END),
        "batch.cancelled": (Family.BATCH, About.END),
        "agent.session.idle": (Family.AGENT_SESSIONS, About.END),
        "agent.session.failed": (Family.AGENT_SESSIONS, About.END),
        "agent.session.action_required": (Family.AGENT_SESSIONS, About.ACTION),
    }
)


def told_by(webhook: str) -> tuple[Family, About] | None:
    """What a webhook of this type tells; None when it is nothing to us."""
    return WEBHOOKS.get(webhook.replace("canceled", "cancelled"))  # other APIs spell it so


def thread_of(url: str) -> str:
    """The thread that a url names, empty for all others."""
    found = RUNS_ON_THREAD.fullmatch(url)
    return found["thread"] if found else ""


def begins_with_preparation(family: Family, url: str) -> bool:
    """Whether the first call of a create makes what the run needs, and costs nothing."""
    return family is Family.BATCH or (family is Family.ASSISTANTS and url == THREADS_RUNS_URL)


def family_for(url: str, *, background: bool) -> Family:
    """The family that serves a request line, by its url and its body's `background`.

    Raises:
        KeyError: The url is none of ours.
    """
    if url == THREADS_RUNS_URL or thread_of(url):
        return Family.ASSISTANTS
    if url == SESSIONS_URL:
        return Family.AGENT_SESSIONS
    if url not in URLS:
        raise KeyError(url)
    return Family.RESPONSES if url == RESPONSES_URL and background else Family.DIRECT
