"""Makes the official client from the environment, and closes it."""

import os

from openai import AsyncOpenAI, OpenAIError

from orchestrator.errors import KeyMissing, SettingUnusable


def make_client(*, base_url: str | None = None, api_key: str | None = None) -> AsyncOpenAI:
    """The official client; OPENAI_API_KEY, OPENAI_BASE_URL and OPENAI_ORG_ID are read now.

    Raises:
        KeyMissing: There is no key, or it is blank.
        SettingUnusable: The base url is none.
    """
    key = api_key if api_key is not None else os.environ.get("OPENAI_API_KEY", "")
    if not key.strip():
        raise KeyMissing
    url = base_url or os.environ.get("OPENAI_BASE_URL", "").strip() or None
    if url is not None and not url.startswith(("http://", "https://")):
        problem = "a base url begins with http:// or https://"
        cure = "Look at --base-url and OPENAI_BASE_URL."
        raise SettingUnusable(name="base_url", value=url, problem=f"{problem}. {cure}")
    try:
        return AsyncOpenAI(api_key=key.strip(), base_url=url, max_retries=0)
    except (OpenAIError, ValueError) as error:
        raise SettingUnusable(name="client", value=url, problem=str(error)) from error
