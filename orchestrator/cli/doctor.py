"""`orchestrator doctor`: whether the server can be used, and whether its webhooks arrive here."""

import signal
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated

import anyio
import typer

from orchestrator.adapters.clock import LoopClock
from orchestrator.apis.asking import count_models, is_missing_place
from orchestrator.apis.client import address_of, make_client, required_webhook_secrets
from orchestrator.apis.webhook_endpoints import WebhookEndpoints, check_url
from orchestrator.cli import exit_codes
from orchestrator.cli.run import BaseUrl
from orchestrator.cli.telling import tell
from orchestrator.cli.webhook_trial import Trial, try_webhooks
from orchestrator.errors import (
    OrchestratorError,
    ServerRefused,
    SettingUnusable,
)
from orchestrator.jobfile.address import address_of as listening_address

WAIT_SECONDS_DEFAULT = 15.0
WAIT_SECONDS_MAX = 600.0

ListenAt = Annotated[
    str | None,
    typer.Option("--webhooks", metavar="HOST:PORT", help="Receive webhooks here, to try them."),
]
PublicUrl = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Where the server finds that place. An endpoint is made for it, and removed again.",
    ),
]
OfEndpoint = Annotated[
    str | None,
    typer.Option(
        metavar="ID",
        help="Try this endpoint instead of a new one, with the secret in OPENAI_WEBHOOK_SECRET.",
    ),
]
Wait = Annotated[float, typer.Option(metavar="SECONDS", help="How long to wait for what was sent.")]


def doctor(
    base_url: BaseUrl = None,
    webhooks: ListenAt = None,
    url: PublicUrl = None,
    endpoint: OfEndpoint = None,
    wait: Wait = WAIT_SECONDS_DEFAULT,
) -> None:
    """Say whether the server takes the key and, with --webhooks, whether its events arrive.

    Nothing is created that costs anything.

    Exit codes: 0 all works, 1 webhooks don't arrive or the server is unclear, 2 something can't be
    meant, 3 the server can't be used.
    """
    trial = _trial(webhooks, url, endpoint, wait)
    # As Ctrl-C, so that an endpoint is removed again; without it the process would just be gone.
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        works = anyio.run(_examine, base_url, trial)
    finally:
        signal.signal(signal.SIGTERM, before)
    if not works:
        raise typer.Exit(exit_codes.SOME_DID_NOT)


async def _examine(base_url: str | None, trial: Trial | None) -> bool:
    """Tell what works; False where something doesn't. Raises why a server can't be used."""
    async with make_client(base_url) as client:
        knows_key = await _ask_for_models(address_of(client), partial(count_models, client))
        if trial is None:
            return knows_key
        try:
            finding = await try_webhooks(WebhookEndpoints(client), trial, tell)
        except OrchestratorError as error:
            if error.exit_code == exit_codes.MISTAKE:
                raise
            tell(f"fails: {error}")
            return False
    tell(f"{'works' if finding.works else 'fails'}: {finding.told}")
    return finding.works and knows_key


async def _ask_for_models(server: str, count_them: Callable[[], Awaitable[int]]) -> bool:
    """The cheapest call that wants a key; False where it proves nothing."""
    clock = LoopClock()
    began_at = clock.now()
    try:
        count = await count_them()
    except ServerRefused as error:
        if not is_missing_place(error):
            raise
        tell(
            f"unclear: {server} has no list of models ({error.problem}). The base url may be "
            "wrong; if the server is like that, whether it takes the key is not known"
        )
        return False
    tell(f"works: {server} took the key within {clock.now() - began_at:.2f} s; {count:,} models")
    return True


def _trial(
    webhooks: str | None, url: str | None, endpoint: str | None, wait: float
) -> Trial | None:
    place = listening_address("--webhooks", webhooks)
    if place is None:
        for name, value in (("--url", url), ("--endpoint", endpoint)):
            if value is not None:
                problem = "it says where webhooks go, and nobody receives any"
                cure = "Add --webhooks HOST:PORT."
                raise SettingUnusable(name=name, value=value, problem=problem, cure=cure)
        return None
    if (url is None) == (endpoint is None):
        problem = "the server has to find it"
        cure = "Give either --url, its address for the server, or --endpoint, the ID of one."
        raise SettingUnusable(name="--webhooks", value=webhooks, problem=problem, cure=cure)
    if not 0 < wait <= WAIT_SECONDS_MAX:
        problem = f"it is not above 0 and up to {WAIT_SECONDS_MAX:g} seconds"
        raise SettingUnusable(name="--wait", value=wait, problem=problem, cure="Say another time.")
    secrets: list[str] = []
    if url is not None:
        check_url(url)
    else:
        secrets = required_webhook_secrets()
    return Trial(place, url or "", endpoint or "", tuple(secrets), wait)
