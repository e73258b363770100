"""Makes the official client from the environment."""

import os

from openai import AsyncOpenAI, DefaultAsyncHttpxClient, OpenAIError

from orchestrator.errors import KeyMissing, SettingUnusable


def required_key() -> str:
    """The API key in the environment.

    Raises:
        KeyMissing: There is none, or it is blank.
    """
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not key:
        raise KeyMissing
    return key


def make_client(base_url: str | None = None) -> AsyncOpenAI:
    """The official client; OPENAI_API_KEY, OPENAI_BASE_URL and OPENAI_ORG_ID are read now.

    Raises:
        KeyMissing: There is no key, or it is blank.
        SettingUnusable: The base url is none.
    """
    key = required_key()
    url = base_url or os.environ.get("OPENAI_BASE_URL", "").strip() or None
    cure = "Look at --base-url and OPENAI_BASE_URL."
    if url is not None and not url.startswith(("http://", "https://")):
        problem = "a base url begins with http:// or https://"
        raise SettingUnusable(name="base_url", value=url, problem=problem, cure=cure)
    try:
        return AsyncOpenAI(api_key=key, base_url=url, max_retries=0)
    except (OpenAIError, ValueError) as error:
        problem = str(error)
        raise SettingUnusable(name="base_url", value=url, problem=problem, cure=cure) from error


def make_local_client(base_url: str) -> AsyncOpenAI:
    """A client for a server on this machine: any key will do, and no proxy is asked."""
    return AsyncOpenAI(
        api_key="emulator",
        base_url=base_url,
        max_retries=0,
        http_client=DefaultAsyncHttpxClient(trust_env=False),
    )
