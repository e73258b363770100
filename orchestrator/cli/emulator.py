"""`orchestrator emulator`: a pretend OpenAI on this machine, to try things on without a key."""

import os
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.emulator.answers import read_answers
from orchestrator.emulator.deviations import parse_deviations
from orchestrator.emulator.durations import Fixed, parse_durations
from orchestrator.emulator.emulator import Emulator
from orchestrator.emulator.faults import parse_faults
from orchestrator.emulator.mistakes import EmulatorMistake
from orchestrator.emulator.rules import read_rules
from orchestrator.emulator.server import serve_forever, unix_now
from orchestrator.emulator.settings import (
    BATCH_EXPIRES_SECONDS_DEFAULT,
    QUEUE_SECONDS_DEFAULT,
    RUN_SECONDS_DEFAULT,
    Settings,
)
from orchestrator.emulator.tables import read_text

PORT_MAX = 65_535

# What a person can get wrong; see also the other commands.
EXIT_MISTAKE = 2


# Where OpenAI's own client looks for the secret of webhooks.
SECRET_VARIABLE = "OPENAI_WEBHOOK_SECRET"  # noqa: S105 - the name of the variable

FaultsOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE",
        help="Faults to play: NAME or NAME=RATE with commas between (the rate is 0.1 unless "
        "given), `all`, or a TOML or JSON file of name = rate.",
    ),
]
DeviationsOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME,NAME",
        help="What is otherwise than at OpenAI, as on servers that speak its API: names with "
        "commas between, or `all` of them that a client can live with.",
    ),
]
DurationsOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|SECONDS",
        help="How long an answer takes: seconds, or a CSV file (FILE or FILE:COLUMN) to draw "
        "from. Without it, half of the answers take less than 1.7 s.",
    ),
]
BatchSecondsOption = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        help="How long the lines of a batch take together, 2 s for validating and finalizing "
        "not included. Without it, 50 are worked on at a time.",
    ),
]
BatchExpireAfterOption = Annotated[
    int | None,
    typer.Option(metavar="LINES", help="Batches expire when so many of their lines are done."),
]
BatchExpiresOption = Annotated[
    float, typer.Option(metavar="SECONDS", help="How long after its creation a batch expires.")
]
EnqueuedTokensOption = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Prompt tokens that the unfinished batches of a model may have."
    ),
]
WebhookUrlOption = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Where to send webhooks about everything, on this machine, such as "
        "http://127.0.0.1:8089/. They are signed with the secret in --webhook-secret-file or "
        f"{SECRET_VARIABLE}.",
    ),
]
WebhookSecretOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="File with the secret that signs webhooks.")
]


def emulator(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; 0 takes a free one.")] = 8088,
    seed: Annotated[int, typer.Option(help="All chance comes from it.")] = 0,
    rpm: Annotated[int | None, typer.Option(help="Requests per minute and model.")] = None,
    tpm: Annotated[int | None, typer.Option(help="Tokens per minute and model.")] = None,
    faults: FaultsOption = None,
    deviations: DeviationsOption = None,
    durations: DurationsOption = None,
    answers: Annotated[
        Path | None,
        typer.Option(help='JSONL of {"custom_id" | "input" | "prompt": ..., "answer": ...}.'),
    ] = None,
    rules: Annotated[
        Path | None, typer.Option(help="TOML or JSON file of rules: what to answer to what.")
    ] = None,
    retention: Annotated[
        float, typer.Option(metavar="SECONDS", help="How long a finished run can be retrieved.")
    ] = 600.0,
    batch_seconds: BatchSecondsOption = None,
    batch_expire_after: BatchExpireAfterOption = None,
    batch_expires: BatchExpiresOption = BATCH_EXPIRES_SECONDS_DEFAULT,
    enqueued_tokens: EnqueuedTokensOption = None,
    webhook_url: WebhookUrlOption = None,
    webhook_secret_file: WebhookSecretOption = None,
) -> None:
    """Serve a pretend OpenAI on this machine. Stop it with Ctrl-C."""
    try:
        _check_port(port)
        settings = Settings(
            seed=seed,
            rpm=rpm,
            tpm=tpm,
            faults=parse_faults(faults) if faults is not None else {},
            deviations=parse_deviations(deviations) if deviations is not None else (),
            # A given duration is the whole time: nothing is queued on top of it.
            queue_seconds=QUEUE_SECONDS_DEFAULT if durations is None else Fixed(0.0),
            run_seconds=RUN_SECONDS_DEFAULT if durations is None else parse_durations(durations),
            answers=read_answers(answers) if answers is not None else {},
            rules=read_rules(rules) if rules is not None else (),
            retention_seconds=retention,
            batch_seconds=Fixed(batch_seconds) if batch_seconds is not None else None,
            batch_expire_after_lines=batch_expire_after,
            batch_expires_seconds=batch_expires,
            batch_enqueued_tokens=enqueued_tokens,
            webhook_url=webhook_url,
            webhook_secret=_webhook_secret(webhook_url, webhook_secret_file),
            epoch=unix_now(),
        )
        served = serve_forever(Emulator(settings), port, _announce)
    except EmulatorMistake as mistake:
        typer.echo(f"orchestrator emulator: {mistake}", err=True)
        raise typer.Exit(EXIT_MISTAKE) from None
    typer.echo(f"stopped; {served} calls served")


def _webhook_secret(url: str | None, file: Path | None) -> str | None:
    if file is not None:
        return read_text(file).strip()
    if url is None:
        return None
    # A receiver may be given several while they are being changed; the first is the newest.
    secrets = os.environ.get(SECRET_VARIABLE, "").replace(",", " ").split()
    if not secrets:
        message = (
            "webhooks are signed, and there is no secret: give one with --webhook-secret-file or "
            f"in {SECRET_VARIABLE}, the same that the receiver has"
        )
        raise EmulatorMistake(message)
    return secrets[0]


def _check_port(port: int) -> None:
    if not 0 <= port <= PORT_MAX:
        message = f"port must be from 0 to {PORT_MAX}, got {port}"
        raise EmulatorMistake(message)


def _announce(base_url: str) -> None:
    typer.echo(f"serving {base_url}  (use it with OPENAI_BASE_URL={base_url} and any key)")
