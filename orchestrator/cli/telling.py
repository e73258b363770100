"""Says a line to a person: on stdout what was asked for, on stderr what went wrong.

A stream that is closed, full or too narrow for a letter changes nothing: not the exit code, which
tells of the requests, and nobody gets a traceback for it.
"""

import os
import sys
from contextlib import suppress
from typing import TextIO


def tell(text: str) -> None:
    """A line on standard output."""
    _write(sys.stdout, text)


def tell_error(text: str) -> None:
    """A line on standard error, with our name."""
    _write(sys.stderr, f"orchestrator: {text}")


def printable(text: str) -> str:
    """Text without the line breaks and terminal codes that names and servers' words may hold."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def flush_all() -> None:
    """Write out what waits in the standard streams, or drop it where nobody takes it."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            _flush(stream)


def _write(stream: TextIO | None, text: str) -> None:
    if stream is None:  # it was closed before the program began
        return
    encoding = stream.encoding or "utf-8"  # a terminal may know only ASCII
    writable = printable(text).encode(encoding, "backslashreplace").decode(encoding)
    with suppress(OSError, ValueError):
        stream.write(writable + "\n")
    _flush(stream)


def _flush(stream: TextIO) -> None:
    try:
        stream.flush()
    except ValueError:  # closed
        return
    except OSError:
        # What could not be written would be tried again at exit, and end the program with 120.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
