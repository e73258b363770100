"""Asks a server a single thing for a person at a terminal, and says what is wrong in words.

For calls outside of executions: they are few, cost nothing, and take no permit.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import openai
from openai import AsyncOpenAI

from orchestrator.apis.client import address_of
from orchestrator.apis.refusals import refusal
from orchestrator.core.failures import Cause
from orchestrator.errors import KeyRefused, ServerRefused, ServerUnclear, ServerUnreachable

# For one answer; whoever waits is a person.
ANSWER_SECONDS_MAX = 30.0

# 403 too: the key is known, and may not do this.
REFUSED_KEY = frozenset({Cause.AUTHENTICATION, Cause.PERMISSION})


@contextmanager
def asking(client: AsyncOpenAI, what: str) -> Iterator[None]:
    """Translate what the client raises while it is asked to do this.

    Raises:
        KeyRefused: The server doesn't take the key, or not for this.
        ServerRefused: Any other answer that is no success.
        ServerUnreachable: There was no answer.
        ServerUnclear: The answer is no JSON.
    """
    server = address_of(client)
    try:
        yield
    except openai.APIStatusError as error:
        failure = refusal(error.status_code, error.body or error.response.reason_phrase)
        problem = _masked(client, failure.message)
        if failure.cause in REFUSED_KEY:
            raise KeyRefused(server=server, problem=problem) from error
        raise ServerRefused(server=server, what=what, problem=problem) from error
    except openai.APIConnectionError as error:
        reason = error.__cause__ or error
        problem = f"{type(reason).__name__}: {reason}".rstrip(": ")
        raise ServerUnreachable(server=server, problem=_masked(client, problem)) from error
    except (openai.APIResponseValidationError, ValueError) as error:
        # The client lets malformed JSON through as the ValueError that it is.
        raise ServerUnclear(server=server, problem=_masked(client, str(error)[:200])) from error


async def count_models(client: AsyncOpenAI) -> int:
    """How many models the server lists; costs nothing, and wants a key. Raises as `asking` does."""
    with asking(client, "list its models"):
        page = await client.models.list(timeout=ANSWER_SECONDS_MAX)
    return len(getattr(page, "data", None) or ())


def is_missing_place(error: ServerRefused) -> bool:
    """Whether the refusal says that the server has no such place, or no such thing there."""
    cause = error.__cause__
    return isinstance(cause, openai.APIStatusError) and cause.status_code in {404, 405, 501}


def _masked(client: AsyncOpenAI, text: str) -> str:
    """Some servers quote the key that they refuse. What is said goes into a sentence of ours."""
    masked = text.replace(client.api_key, "***") if client.api_key else text
    return masked.rstrip(". ")
