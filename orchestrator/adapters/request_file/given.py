"""Requests that a program gives as Python mappings, held to the same rules as lines of a file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.adapters.request_file import jsontext
from orchestrator.adapters.request_file.jsontext import LineError
from orchestrator.adapters.request_file.line import RequestDefaults, sendable
from orchestrator.core.model import Request
from orchestrator.errors import RequestUnusable


@dataclass(frozen=True, slots=True)
class BodyInMemory:
    """A body that has no file to stay in."""

    content: bytes = field(repr=False)

    def read(self) -> bytes:
        """The body as JSON text."""
        return self.content


def request_from(
    given: Mapping[str, Any] | Request, defaults: RequestDefaults, number: int
) -> Request:
    """The request that a mapping asks for, which has what a line of a request file may have.

    `number` counts the requests from 1; one without custom_id is called line-`number`. A `Request`
    comes back as it is.

    Raises:
        RequestUnusable: It can't be sent; the message says what is wrong and what to do.
    """
    if isinstance(given, Request):
        return given
    try:
        text = jsontext.encoded(given)
        found = sendable(text, defaults, number)
    except LineError as error:
        raise RequestUnusable(
            custom_id=error.named, problem=error.problem, cure=error.cure
        ) from None
    except (TypeError, ValueError, RecursionError) as error:
        raise RequestUnusable(
            custom_id="", problem=str(error), cure="Give values that JSON has."
        ) from None
    return Request(
        custom_id=found.custom_id,
        url=found.url,
        family=found.family,
        model=found.model,
        tokens=found.tokens,
        body=BodyInMemory(found.content),
        thread=found.thread,
        via_batch=found.via_batch,
        body_bytes=len(found.content),
        inputs=found.inputs,
        output_tokens=found.output_tokens,
    )
