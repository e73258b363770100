"""Refusals in OpenAI's words: the status, and the error body that the client library reads."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from orchestrator.emulator.calls import JSON_HEADERS, Reply, json_reply

HTTP_UNAVAILABLE = 503


@dataclass(slots=True, eq=False)
class Refusal(Exception):  # noqa: N818 - it is an answer of the pretend API, no error of ours
    """The call is answered with an error body instead of a result.

    `about_missing_run` marks what some servers have another status for.
    """

    status: int
    message: str
    type: str = "invalid_request_error"
    code: str | None = None
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    about_missing_run: bool = False

    def reply(self) -> Reply:
        """The HTTP side of the refusal."""
        error = {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
        }
        plain = json_reply({"error": error}, self.status)
        return Reply(plain.status, {**JSON_HEADERS, **self.headers}, plain.body)


def refuse_invalid(message: str, *, param: str | None = None, code: str | None = None) -> NoReturn:
    """The request itself is wrong; sending it again does not help."""
    raise Refusal(400, message, param=param, code=code)


def refuse_missing(param: str) -> NoReturn:
    """A parameter that has to be there isn't."""
    message = f"Missing required parameter: '{param}'."
    refuse_invalid(message, param=param, code="missing_required_parameter")


def refuse_not_found(message: str, *, code: str | None = None) -> NoReturn:
    """There is no such thing, or there is no such thing any more."""
    raise Refusal(404, message, code=code)


def refuse_missing_run(message: str, *, code: str | None = None) -> NoReturn:
    """There is no such run (or what it is part of), or there is no such run any more."""
    raise Refusal(404, message, code=code, about_missing_run=True)


def refuse_unauthorised(message: str) -> NoReturn:
    """No key, or a wrong one. The key is never repeated."""
    raise Refusal(401, message, code="invalid_api_key")


def refuse_by_fault(status: int) -> NoReturn:
    """500 and 503 as they come from an API that has trouble of its own."""
    if status == HTTP_UNAVAILABLE:
        message = "The server is currently overloaded with other requests. Sorry about that!"
        raise Refusal(status, message, type="server_error", code="server_is_overloaded")
    message = "The server had an error while processing your request. Sorry about that!"
    raise Refusal(status, message, type="server_error", code="server_error")
