"""Reads the small TOML and JSON files that settings point to."""

import json
import tomllib
from pathlib import Path
from typing import Any

from orchestrator.emulator.mistakes import EmulatorMistake


def read_table(path: Path) -> Any:
    """The content of a `.json` file, or of any other file as TOML.

    Raises EmulatorMistake with file and line when it can't be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        return json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        message = f"{path}: can't be read ({error.strerror or error})"
        raise EmulatorMistake(message) from error
    except ValueError as error:
        kind = "JSON" if path.suffix == ".json" else "TOML"
        message = f"{path}: not valid {kind}: {error}"
        raise EmulatorMistake(message) from error
