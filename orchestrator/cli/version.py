"""`orchestrator --version`."""

from typing import Annotated

import typer

from orchestrator.cli.telling import tell
from orchestrator.version import __version__


def _show(wanted: bool) -> None:
    if wanted:
        tell(f"orchestrator {__version__}")
        raise typer.Exit


def show_version(
    version: Annotated[
        bool, typer.Option("--version", callback=_show, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Run thousands of OpenAI-style requests from one event loop."""
