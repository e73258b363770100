"""`orchestrator webhooks`: make, list, test and delete the places that a server sends events to."""

import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import anyio
import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.apis.client import make_client
from orchestrator.apis.webhook_endpoints import (
    EVENTS_USED,
    Endpoint,
    WebhookEndpoints,
    check_url,
)
from orchestrator.cli import exit_codes
from orchestrator.cli.run import BaseUrl
from orchestrator.cli.secret_file import SecretFile, secret_file
from orchestrator.cli.telling import printable, tell
from orchestrator.errors import NotConfirmed

T = TypeVar("T")

COLUMNS_ELSEWHERE = 1_000  # where the output is no terminal

app = typer.Typer(
    name="webhooks",
    help="Manage the places that the server sends events about runs to.",
    no_args_is_help=True,
)

EndpointId = Annotated[str, typer.Argument(metavar="ID", help="Of the endpoint, as listed.")]
AsJson = Annotated[bool, typer.Option("--json", help="As one JSON object, for programs.")]
SecretPath = Annotated[
    Path | None,
    typer.Option(
        "--secret-file",
        metavar="FILE",
        help="New file for the secret, which is shown otherwise.",
    ),
]
EventTypes = Annotated[
    str | None,
    typer.Option(
        "--events",
        metavar="TYPE,TYPE",
        help="Types of events; without it, those that bring a check forward.",
    ),
]


@app.command()
def create(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where events go; begins with https.")],
    name: Annotated[str, typer.Option(help="For people.")] = "orchestrator",
    events: EventTypes = None,
    file: SecretPath = None,
    base_url: BaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Make an endpoint. Its secret is told once: receivers need it as OPENAI_WEBHOOK_SECRET.

    Exit codes: 0 made, 2 it can't be meant, 3 the server did not.
    """
    check_url(url)
    given = [piece.strip() for piece in (events or "").split(",") if piece.strip()]
    types = given or list(EVENTS_USED)
    with secret_file(file) as into:
        made = _ask(base_url, lambda all_: all_.create(url, name=name, event_types=types))
        _tell_secret(made, f"made {made.id}, which sends to {made.url}", into, file, as_json)


@app.command("list")
def list_endpoints(base_url: BaseUrl = None, as_json: AsJson = False) -> None:
    """List the endpoints of the project.

    Exit codes: 0 listed, 2 or 3 not.
    """
    endpoints = _ask(base_url, lambda all_: all_.list())
    if as_json:
        _tell_json({"endpoints": [_as_dict(endpoint) for endpoint in endpoints]})
    elif endpoints:
        _show(endpoints)
    else:
        tell("there are no webhook endpoints")


@app.command("test")
def send_sample(
    endpoint_id: EndpointId,
    event: Annotated[
        str, typer.Option(metavar="TYPE", help="Type of the sample.")
    ] = "response.completed",
    base_url: BaseUrl = None,
) -> None:
    """Have a sample sent to an endpoint. `orchestrator doctor` says whether it really arrives.

    Exit codes: 0 it was answered with 2xx, 1 otherwise, 2 there is no such endpoint, 3 the server
    could not.
    """
    status = _ask(base_url, lambda all_: all_.test(endpoint_id, event))
    tell(f"{endpoint_id} answered {status} to a sample of {event}")
    if not 200 <= status <= 299:  # noqa: PLR2004 - HTTP
        raise typer.Exit(exit_codes.SOME_DID_NOT)


@app.command()
def rotate(
    endpoint_id: EndpointId,
    keep_old: Annotated[
        bool, typer.Option("--keep-old", help="The old secret is good for 24 hours more.")
    ] = False,
    file: SecretPath = None,
    base_url: BaseUrl = None,
    as_json: AsJson = False,
) -> None:
    """Give an endpoint a new secret, which is told once.

    Exit codes: 0 done, 2 there is no such endpoint, 3 the server did not.
    """
    with secret_file(file) as into:
        made = _ask(base_url, lambda all_: all_.rotate(endpoint_id, keep_old=keep_old))
        old = "the old one is good for 24 hours more" if keep_old else "the old one is void"
        _tell_secret(made, f"{made.id} has a new secret; {old}", into, file, as_json)


@app.command()
def delete(
    endpoint_id: EndpointId,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    base_url: BaseUrl = None,
) -> None:
    """Delete an endpoint. Nothing is sent to it any more.

    Exit codes: 0 deleted, 1 you said no, 2 there is no such endpoint, 3 the server did not.
    """
    if not yes:
        if not sys.stdin.isatty():
            raise NotConfirmed(what=f"{endpoint_id} is to be deleted")
        try:
            wanted = typer.confirm(f"Delete {printable(endpoint_id)}?")
        except typer.Abort:  # Ctrl-C, or the terminal is gone
            raise KeyboardInterrupt from None
        if not wanted:
            raise typer.Exit(exit_codes.SOME_DID_NOT)
    _ask(base_url, lambda all_: all_.delete(endpoint_id))
    tell(f"deleted {endpoint_id}")


def _ask(base_url: str | None, what: Callable[[WebhookEndpoints], Awaitable[T]]) -> T:
    async def asked() -> T:
        async with make_client(base_url) as client:
            return await what(WebhookEndpoints(client))

    return anyio.run(asked)


def _tell_secret(
    made: Endpoint, what: str, into: SecretFile | None, file: Path | None, as_json: bool
) -> None:
    if into is not None:
        into.write(made.secret, endpoint_id=made.id)
    shown = {} if into is not None else {"signing_secret": made.secret}
    if as_json:
        _tell_json({**_as_dict(made), **shown})
        return
    tell(what)
    if into is not None:
        tell(f"its secret is in {file}; receivers need it as OPENAI_WEBHOOK_SECRET")
    else:
        tell("its secret, shown only now (receivers need it as OPENAI_WEBHOOK_SECRET):")
        tell(made.secret)


def _as_dict(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "id": endpoint.id,
        "name": endpoint.name,
        "url": endpoint.url,
        "event_types": endpoint.event_types,
        "created_at": _when(endpoint),
        "signing_secret_hint": endpoint.secret_hint,
    }


def _tell_json(value: object) -> None:
    tell(msgspec.json.encode(value).decode())


def _show(endpoints: Sequence[Endpoint]) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("id", "name", "url", "events", "made", "secret"):
        # What is typed elsewhere stays in one piece.
        table.add_column(name, overflow="fold", no_wrap=name == "id")
    for one in endpoints:
        unused = len([kind for kind in one.event_types if kind not in EVENTS_USED])
        used = len(one.event_types) - unused
        others = f" and {unused} others" if unused else ""
        events = f"{used} of the {len(EVENTS_USED)} used here{others}"
        cells = (one.id, one.name, one.url, events, _when(one) or "", one.secret_hint)
        table.add_row(*(Text(printable(cell)) for cell in cells))
    # Where lines are collected, none is folded.
    width = None if sys.stdout.isatty() else COLUMNS_ELSEWHERE
    Console(file=sys.stdout, width=width, highlight=False).print(table)


def _when(endpoint: Endpoint) -> str | None:
    if endpoint.created_at_unix is None:
        return None
    try:
        made = datetime.fromtimestamp(endpoint.created_at_unix, UTC).astimezone()
    except (ValueError, OverflowError, OSError):  # a server may say anything
        return None
    return made.isoformat(" ", "seconds")
