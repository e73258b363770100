"""`orchestrator` and `python -m orchestrator`: run a command, and tell errors to people."""

import os
import sys
import threading
from typing import Any, NoReturn

import typer

from orchestrator.cli import exit_codes
from orchestrator.cli.app import app
from orchestrator.cli.telling import flush_all, tell_error
from orchestrator.errors import OrchestratorError

# For whoever reports a bug; everybody else gets a line.
TRACEBACK_VARIABLE = "ORCHESTRATOR_TRACEBACK"

# A tool's thread that was given up can't be stopped, and Python would wait for its end. Threads
# that merely end get this long.
THREADS_GRACE_SECONDS = 0.5

# What typer raises for words that it can't use. It has no name for it that all its versions share.
WORDS_UNUSABLE: type[Exception] = typer.BadParameter.__bases__[0]


def main() -> NoReturn:
    """Run the command line and end the process with its exit code."""
    _leave(run_command())


def run_command() -> int:
    """Run what the command line says; every error is a line or two that say what to do."""
    try:
        return int(app(standalone_mode=False) or 0)
    except OrchestratorError as error:
        tell_error(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        tell_error("interrupted")
        return exit_codes.INTERRUPTED
    except WORDS_UNUSABLE as error:
        return _tell_words_unusable(error)
    except Exception as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        cause = _first(error)
        tell_error(
            f"a bug of the program: {type(cause).__name__}: {cause}. "
            f"Please report it with what {TRACEBACK_VARIABLE}=1 makes it show."
        )
        return exit_codes.STOPPED_EARLY


def _tell_words_unusable(error: Any) -> int:
    message = " ".join(error.format_message().split()).rstrip(".")
    if message:  # there is none when a bare `orchestrator` has shown its help
        command = error.ctx.command_path if error.ctx is not None else "orchestrator"
        tell_error(f"{message}. See: {command} --help")
    return exit_codes.MISTAKE


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _leave(exit_code: int) -> NoReturn:
    flush_all()
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join(THREADS_GRACE_SECONDS)
            if thread.is_alive():
                os._exit(exit_code)
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
