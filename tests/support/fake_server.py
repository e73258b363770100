"""A server made of one function, for answers that no honest server gives; no sockets."""

import asyncio
import json
from typing import Any

import httpx2

from support.emulator_client import BASE_URL, ThreadlessOpenAI


class FakeServer(httpx2.AsyncBaseTransport):
    """Answers each request with what `answer(request)` gives, and remembers the requests.

    That may be a response, an exception to be raised, a value for a JSON body with status 200, or
    a pair of seconds to wait and one of these. `None` is an answer that never comes.
    """

    def __init__(self, answer) -> None:
        self.requests: list[httpx2.Request] = []
        self.closed = False
        self._answer = answer

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        await request.aread()
        self.requests.append(request)
        given = self._answer(request)
        if isinstance(given, tuple):
            seconds, given = given
            await asyncio.sleep(seconds)
        if given is None:
            await asyncio.sleep(10**9)
        if isinstance(given, BaseException):
            raise given
        return given if isinstance(given, httpx2.Response) else answer_of(given)

    async def aclose(self) -> None:
        await asyncio.sleep(0)  # as closing a socket does
        self.closed = True

    @property
    def places(self) -> list[str]:
        """Method and path of each request, percent-encoded as it was sent."""
        return [f"{r.method} {r.url.raw_path.decode()}" for r in self.requests]

    @property
    def bodies(self) -> list[Any]:
        return [json.loads(r.content) if r.content else None for r in self.requests]


def answer_of(value: object, status: int = 200, headers=()) -> httpx2.Response:
    """A response; a body that is no bytes goes out as JSON."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return httpx2.Response(
        status, headers={"content-type": "application/json", **dict(headers)}, content=body
    )


def client_of(server: httpx2.AsyncBaseTransport, kind=ThreadlessOpenAI, **options):
    """OpenAI's client, talking to this server."""
    settings = {"api_key": "any", "base_url": BASE_URL, **options}
    return kind(http_client=httpx2.AsyncClient(transport=server), **settings)
