"""Makes the official client from the environment."""

import os
from urllib.parse import urlsplit

from openai import AsyncOpenAI, DefaultAsyncHttpxClient, OpenAIError

from orchestrator.errors import ClientUnusable, KeyMissing, KeyUnusable, WebhookSecretMissing

# Named here, because the SDK takes a blank OPENAI_BASE_URL for an address.
OPENAI_URL = "https://api.openai.com/v1"

PORT_MAX = 65_535


def required_key() -> str:
    """The API key in the environment.

    Raises:
        KeyMissing: There is none, or it is blank.
        KeyUnusable: It has characters that no header can carry.
    """
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not key:
        raise KeyMissing
    if not (key.isascii() and key.isprintable()):
        raise KeyUnusable
    return key


def required_webhook_secrets() -> list[str]:
    """The secrets of the webhook endpoint in the environment, by the name that the SDK has for it.

    There may be several, with spaces or commas between them, while they are being changed.

    Raises:
        WebhookSecretMissing: There is none.
    """
    secrets = os.environ.get("OPENAI_WEBHOOK_SECRET", "").replace(",", " ").split()
    if not secrets:
        raise WebhookSecretMissing
    return secrets


def make_client(base_url: str | None = None) -> AsyncOpenAI:
    """The official client; OPENAI_API_KEY, OPENAI_BASE_URL and OPENAI_ORG_ID are read now.

    Raises:
        KeyMissing: There is no key, or it is blank.
        KeyUnusable: It can't be sent.
        ClientUnusable: The base url is none, or a proxy in the environment can't be used.
    """
    key = required_key()
    url = base_url or os.environ.get("OPENAI_BASE_URL", "").strip() or OPENAI_URL
    problem = _problem_with(url)
    if problem is not None:
        raise ClientUnusable(problem=problem)
    try:
        return AsyncOpenAI(api_key=key, base_url=url, max_retries=0)
    except (OpenAIError, ValueError, ImportError) as error:
        raise ClientUnusable(problem=str(error)) from error


def address_of(client: AsyncOpenAI) -> str:
    """Where the calls go, without a name and a password that may be in it."""
    url = client.base_url
    return f"{url.scheme}://{url.netloc.decode()}{url.path}"


def make_local_client(base_url: str) -> AsyncOpenAI:
    """A client for a server on this machine: any key will do, and no proxy is asked."""
    return AsyncOpenAI(
        api_key="emulator",
        base_url=base_url,
        max_retries=0,
        http_client=DefaultAsyncHttpxClient(trust_env=False),
    )


def _problem_with(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        port = parts.port or 0
    except ValueError as error:
        return f"the base url {url!r} is none ({error})"
    if parts.scheme not in {"http", "https"}:
        return f"the base url {url!r} does not begin with http:// or https://"
    host = parts.hostname or ""
    if not host or not host.isprintable() or " " in host or port > PORT_MAX:
        return f"the base url {url!r} names no host"
    return None
