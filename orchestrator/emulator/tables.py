"""Reads the small files that settings point to."""

import json
import tomllib
from pathlib import Path
from typing import Any

from orchestrator.emulator.mistakes import EmulatorMistake


def read_text(path: Path) -> str:
    """The file's text. Raises EmulatorMistake when it can't be read."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        message = f"{path}: can't be read ({error.strerror or error})"
        raise EmulatorMistake(message) from error
    except UnicodeDecodeError as error:
        message = f"{path}: not UTF-8 text (byte {error.start})"
        raise EmulatorMistake(message) from error


def read_table(path: Path) -> Any:
    """The content of a `.json` file, or of any other file as TOML.

    Raises EmulatorMistake with file and line when it can't be read.
    """
    text = read_text(path)
    try:
        return json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except ValueError as error:
        kind = "JSON" if path.suffix == ".json" else "TOML"
        message = f"{path}: not valid {kind}: {error}"
        raise EmulatorMistake(message) from error
