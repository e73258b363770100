"""Manages the places that a server sends webhooks to, through the official client."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from urllib.parse import urlsplit

from openai import AsyncOpenAI

from orchestrator.apis.asking import ANSWER_SECONDS_MAX, asking, is_missing_place
from orchestrator.apis.client import address_of
from orchestrator.core.families import WEBHOOKS
from orchestrator.errors import (
    ServerRefused,
    ServerUnclear,
    WebhookEndpointsMissing,
    WebhookEndpointUnknown,
    WebhookUrlUnusable,
)

# What an endpoint is told of unless it is said: all that changes anything here, and no more.
EVENTS_USED = tuple(WEBHOOKS)

# A project has a few endpoints; a server that lists without an end is stopped here.
ENDPOINTS_MAX = 1_000
PAGE_ENDPOINTS_MAX = 100


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint as the server tells it; `secret` only where it was made just now."""

    id: str
    name: str
    url: str
    event_types: tuple[str, ...]
    created_at_unix: int | None
    secret_hint: str
    secret: str = field(default="", repr=False)


class WebhookEndpoints:
    """The endpoints of the project that the client's key belongs to.

    Every method raises KeyRefused, ServerRefused, ServerUnreachable or ServerUnclear,
    WebhookEndpointsMissing where the server has nothing of the kind, and WebhookEndpointUnknown
    where it has not the one that is named.
    """

    def __init__(self, client: AsyncOpenAI) -> None:
        self._client = client
        self._webhooks = client.webhooks

    async def create(self, url: str, *, name: str, event_types: Sequence[str]) -> Endpoint:
        """Make an endpoint; its secret is told now and never again.

        Raises:
            WebhookUrlUnusable: Nothing should be sent there.
        """
        check_url(url)
        with self._anywhere("make a webhook endpoint"):
            made = await self._webhooks.create(
                url=url,
                name=name,
                event_types=list(event_types),  # type: ignore[arg-type]  # the server judges them
                timeout=ANSWER_SECONDS_MAX,
            )
        return self._read_secret(made)

    async def list(self) -> list[Endpoint]:
        """All of them, in the server's order."""
        found: list[Endpoint] = []
        with self._anywhere("list its webhook endpoints"):
            pages = self._webhooks.list(limit=PAGE_ENDPOINTS_MAX, timeout=ANSWER_SECONDS_MAX)
            try:
                async for one in pages:
                    found.append(self._read(one))
                    if len(found) == ENDPOINTS_MAX:
                        break
            except (TypeError, AttributeError) as error:  # the client goes through it unseen
                problem = "its list is none"
                raise ServerUnclear(server=address_of(self._client), problem=problem) from error
        return found

    async def test(self, endpoint_id: str, event_type: str) -> int:
        """Ask for a sample of this type; gives the HTTP status that the endpoint answered."""
        async with self._at(endpoint_id, "send a test event"):
            result = await self._webhooks.test(
                endpoint_id,
                event_type=event_type,  # type: ignore[arg-type]  # the server judges it
                timeout=ANSWER_SECONDS_MAX,
            )
        status = getattr(result, "status_code", None)
        return status if isinstance(status, int) else 0

    async def rotate(self, endpoint_id: str, *, keep_old: bool) -> Endpoint:
        """Give it a new secret; the old one is good for 24 hours more, or not at all."""
        async with self._at(endpoint_id, "rotate the secret"):
            rotated = await self._webhooks.rotate_secret(
                endpoint_id,
                keep_old_secret_active_for_24_hours=keep_old,
                timeout=ANSWER_SECONDS_MAX,
            )
        return self._read_secret(rotated)

    async def delete(self, endpoint_id: str) -> None:
        """Remove it."""
        async with self._at(endpoint_id, "delete a webhook endpoint"):
            await self._webhooks.delete(endpoint_id, timeout=ANSWER_SECONDS_MAX)

    @contextmanager
    def _anywhere(self, what: str) -> Iterator[None]:
        """For calls that name no endpoint: what is missing then is the place itself."""
        try:
            with asking(self._client, what):
                yield
        except ServerRefused as error:
            if is_missing_place(error):
                server = address_of(self._client)
                raise WebhookEndpointsMissing(server=server, problem=error.problem) from error
            raise

    @asynccontextmanager
    async def _at(self, endpoint_id: str, what: str) -> AsyncIterator[None]:
        """For calls about an endpoint: it is missing, or the server has none at all."""
        server = address_of(self._client)
        if not endpoint_id.strip():
            raise WebhookEndpointUnknown(endpoint_id=endpoint_id, server=server)
        try:
            with asking(self._client, what):
                yield
        except ServerRefused as error:
            if not is_missing_place(error):
                raise
            await self.list()
            raise WebhookEndpointUnknown(endpoint_id=endpoint_id, server=server) from error

    def _read_secret(self, made: object) -> Endpoint:
        secret = getattr(made, "signing_secret", None)
        if not isinstance(secret, str) or not secret:
            problem = "there is no signing_secret in it"
            raise ServerUnclear(server=address_of(self._client), problem=problem)
        return replace(self._read(made), secret=secret)

    def _read(self, told: object) -> Endpoint:
        """The client doesn't check what a server says."""
        endpoint_id = getattr(told, "id", None)
        if not isinstance(endpoint_id, str) or not endpoint_id:
            problem = "an endpoint has no id"
            raise ServerUnclear(server=address_of(self._client), problem=problem)
        created_at = getattr(told, "created_at", None)
        types = getattr(told, "event_types", None)
        return Endpoint(
            id=endpoint_id,
            name=_text(getattr(told, "name", None)),
            url=_text(getattr(told, "url", None)),
            event_types=tuple(map(_text, types)) if isinstance(types, list) else (),
            created_at_unix=created_at if isinstance(created_at, int) else None,
            secret_hint=_text(getattr(told, "signing_secret_hint", None)),
        )


def check_url(url: str) -> None:
    """Raise WebhookUrlUnusable unless it begins with https://, or leads to this machine."""
    problem = None
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError as error:
        raise WebhookUrlUnusable(url=url, problem=f"it is no address ({error})") from error
    if parts.scheme not in {"http", "https"} or not host:
        problem = "it is no address of the web"
    elif not (url.isprintable() and " " not in url):
        problem = "it has characters that no address has"
    elif parts.username is not None:
        problem = "it has a name or a password in it"
    elif parts.scheme == "http" and not is_loopback(host):
        problem = "on its way anybody could read and change them"
    if problem is not None:
        raise WebhookUrlUnusable(url=url, problem=problem)


def _text(told: object) -> str:
    return told if isinstance(told, str) else ""


def is_loopback(host: str) -> bool:
    """Whether this names the machine that we are on."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
