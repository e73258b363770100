"""`orchestrator` and `python -m orchestrator`: run a command, and tell errors to people."""

import os
import sys

import typer

from orchestrator.cli import exit_codes
from orchestrator.cli.app import app
from orchestrator.errors import OrchestratorError

# For whoever reports a bug; everybody else gets a line.
TRACEBACK_VARIABLE = "ORCHESTRATOR_TRACEBACK"


def main() -> None:
    """Run the command line; every error is a line or two that say what to do."""
    try:
        app()
    except OrchestratorError as error:
        _end(str(error), error.exit_code)
    except KeyboardInterrupt:
        _end("interrupted", exit_codes.INTERRUPTED)
    except Exception as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        _end(
            f"a bug of the program: {type(error).__name__}: {error}. "
            f"Please report it with what {TRACEBACK_VARIABLE}=1 makes it show.",
            exit_codes.STOPPED_EARLY,
        )


def _end(message: str, exit_code: int) -> None:
    typer.echo(f"orchestrator: {message}", err=True)
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
