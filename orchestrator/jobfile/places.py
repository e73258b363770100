"""Looks where things are, and says what to do about a source that is missing or of another kind."""

from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from stat import S_ISREG
from typing import NoReturn

from orchestrator.errors import JobUnusable, SourceUnusable

JOB_FILE = "job.toml"

# The second is another name for the same thing.
JSON_LINES = (".jsonl", ".ndjson")

# What a person may have instead, and how lines are made of it.
CURES_BY_ENDING: Mapping[str, str] = {
    ".json": "If it is one array, make lines of it with `jq -c '.[]' {file} > {lines}`. If it has "
    "one object a line already, rename it to {lines}.",
    ".csv": "Make prompts of its column named text with `python3 -c 'import csv, json, sys; "
    '[print(json.dumps({{"prompt": row["text"]}})) for row in csv.DictReader(sys.stdin)]\' '
    "< {file} > {lines}`.",
    ".txt": "Make a prompt of each line with `jq -cR '{{prompt: .}}' {file} > {lines}`.",
    ".gz": "Unpack it with `gunzip -k {file}`.",
    ".zip": "Unpack it with `unzip {file}`.",
    ".zst": "Unpack it with `unzstd {file}`.",
}
CURE_FOR_OTHERS = """Give one JSON object a line, for example {{"prompt": "..."}}, in {lines}."""


def mode_of(path: Path) -> int | None:
    """What kind of thing is there, as `stat` has it; None where nothing is.

    Raises:
        SourceUnusable: It can't be found out.
    """
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        problem = getattr(error, "strerror", None) or str(error)
        cure = "Make it readable for you, or give another one."
        raise SourceUnusable(path=path, problem=problem, cure=cure) from None


def check_ending(path: Path, mode: int) -> None:
    """Refuse a regular file whose name says that it holds something else than JSON lines.

    A pipe has no ending; the request file says what is wrong with pipes.

    Raises:
        SourceUnusable: What it ends in, and how to make JSON lines of it.
    """
    ending = path.suffix.lower()
    if not S_ISREG(mode) or ending in JSON_LINES:
        return
    if path.name == JOB_FILE:
        problem = "these are the settings of a job"
        raise SourceUnusable(path=path, problem=problem, cure=f"Give its folder, {path.parent}.")
    template = CURES_BY_ENDING.get(ending, CURE_FOR_OTHERS)
    lines = quote(str(path.with_suffix(".jsonl")))
    raise SourceUnusable(
        path=path,
        problem="its name does not end in .jsonl",
        cure=template.format(file=quote(str(path)), lines=lines),
    )


def refuse_folder(folder: Path) -> NoReturn:
    """There is no job.toml in it."""
    files = _request_files(folder)
    cure = "Give a folder that has one, or a .jsonl file."
    if len(files) == 1:
        cure = f"Give the file itself ({files[0]}), or write a {JOB_FILE} beside it."
    elif files:
        cure = f"Give one of its files, for example {files[0]}, or write a {JOB_FILE} there."
    problem = f"the folder has no {JOB_FILE}"
    raise SourceUnusable(path=folder, problem=problem, cure=cure)


def refuse_missing_requests(path: Path, requests: Path, said: str | None) -> NoReturn:
    """There is no request file; `said` is what the job.toml at `path` calls it."""
    files = _request_files(path.parent)
    problem = f"there is no {requests.name} beside it"
    if said is not None:
        problem = f'there is no file for requests = "{said}"'
    cure = f"Put the requests into {requests}."
    if files:
        cure = f'Write requests = "{files[0].name}", or put them into {requests}.'
    raise JobUnusable(path=path, problem=problem, cure=cure)


def _request_files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix.lower() in JSON_LINES)
    except OSError:  # a folder that may be entered but not listed
        return []
