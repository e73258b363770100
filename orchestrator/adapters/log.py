"""What happened, for people and programs: log.jsonl in the output folder, warnings on stderr.

Rules:

- Logging never raises and never stops an execution: a line that can't be written (a full disk, a
  closed file) is lost, because losing a line is better than losing a run.
- Keys never get in: what looks like one, what stands in a field named like one, and the secrets
  that were registered are masked, at any depth and inside of longer texts.
- structlog's global configuration is left alone: it belongs to the program that embeds us.
"""

import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any, cast

import structlog
from structlog.typing import EventDict, ExcInfo, FilteringBoundLogger, Processor, WrappedLogger

from orchestrator.errors import OutputFolderUnusable

FILE_MODE = 0o600  # for the user alone, like all of the output

# A server may send megabytes; a line is for reading.
TEXT_CHARACTERS_MAX = 20_000
ITEMS_MAX = 1_000
DEPTH_MAX = 6

MASK = "***"

# Shorter secrets ("none", "test", for servers that want no key) are ordinary words: they are masked
# where they are the whole value and left alone inside of texts.
SECRET_CHARACTERS_MIN = 8

_FIRST_FIELDS = ("timestamp", "level", "event")

_SECRET_FIELD = re.compile(
    r"(?:^|_)(?:api_?key|authorization|secret|password|(?:access_|refresh_|auth_)?token|cookie)$"
)
_WORD_STARTS = re.compile(r"(?<=[a-z])(?=[A-Z])|[- ]")  # clientSecret, X-Api-Key

# What `kept` names stays, to tell what was there.
_SECRET_TEXTS = (
    # Keys of OpenAI and of those who copy its style; webhook secrets.
    re.compile(r"\b(?P<kept>sk-|whsec_)[\w*+/=-]{8,}"),
    # Authorization headers.
    re.compile(r"(?P<kept>\b(?:Bearer|Basic) )[^\s\"',;]{4,}", re.IGNORECASE),
    # User and password in an address.
    re.compile(r"(?P<kept>\w://)[^/@\s]+(?=@)"),
    # A secret field in the text of a JSON, a dict, a query or an environment.
    re.compile(
        r"(?P<kept>(?:api[_-]?key|authorization|secret|password|(?:access|refresh|auth)_token)"
        r"\\*[\"']?\s?[:=]\s?\\*[\"']?)(?!Bearer |Basic )[^\s\"',;&}\\]{4,}",
        re.IGNORECASE,
    ),
)


@contextmanager
def execution_log(
    path: Path, *, level: str = "info", secrets: Iterable[str] = ()
) -> Iterator[FilteringBoundLogger]:
    """A logger that appends to a file, one JSON object a line, until the block is left.

    A line has `timestamp` (ISO 8601, UTC), `level`, `event`, the fields, and `exception` with the
    traceback where there is one. What is logged after the block is left is lost.

    Args:
        path: The file, made for the user alone. Lines of an earlier execution are kept.
        level: The least that is written: debug, info, warning, error or critical.
        secrets: Texts that must not be written, such as the API key.

    Raises:
        OutputFolderUnusable: The file can't be opened.
    """
    file = _LineFile(path)
    explained = structlog.processors.ExceptionRenderer()
    last = _Rendered(explained, _Mask(secrets), _json_line)
    try:
        yield _logger(file, [structlog.processors.TimeStamper(fmt="iso", utc=True), last], level)
    finally:
        file.close()


def quiet_log(secrets: Iterable[str] = ()) -> FilteringBoundLogger:
    """A logger that writes warnings and errors to stderr, each as one line of text."""
    explained = structlog.processors.ExceptionRenderer(_in_a_word)
    return _logger(_Stderr(), [_Rendered(explained, _Mask(secrets), _text_line)], "warning")


def silent_log() -> FilteringBoundLogger:
    """A logger for whoever finds out by other ways; it writes nothing."""
    return _logger(_Stderr(), [], "critical")


def _logger(output: object, processors: list[Processor], level: str) -> FilteringBoundLogger:
    proxy = structlog.wrap_logger(
        output,
        processors=[structlog.processors.add_log_level, *processors],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        context_class=dict,
        cache_logger_on_first_use=False,
    )
    return cast("FilteringBoundLogger", proxy.bind())


class _Rendered:
    """The last processor: from the fields of a line to its text. No exception gets out of it."""

    def __init__(
        self, explained: Processor, mask: "_Mask", line: Callable[[dict[str, Any]], str]
    ) -> None:
        self._explained = explained
        self._mask = mask
        self._line = line

    def __call__(self, logger: WrappedLogger, method: str, fields: EventDict) -> str:
        try:
            explained = dict(cast("EventDict", self._explained(logger, method, fields)))
            return self._line(self._mask.fields(explained))
        except Exception as error:  # noqa: BLE001 - by the code of a field's value, which may be anybody's
            lost = {"level": method, "event": "log.line_lost", "problem": type(error).__name__}
            return self._line(lost)


class _Mask:
    """Makes values plain and masks the secrets in them."""

    def __init__(self, secrets: Iterable[str]) -> None:
        known = {secret.strip() for secret in secrets} - {""}
        self._secrets = sorted(known, key=len, reverse=True)  # one may be part of another

    def fields(self, fields: Mapping[Any, Any]) -> dict[str, Any]:
        return cast("dict[str, Any]", self._plain(fields, depth=0))

    def _plain(self, value: object, depth: int) -> object:
        if value is None or isinstance(value, bool | int):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else repr(value)  # JSON knows no infinity
        if isinstance(value, str):
            return self._text(value)
        if depth < DEPTH_MAX and isinstance(value, Mapping):
            items = islice(value.items(), ITEMS_MAX)
            return {self._text(str(k)): self._field(str(k), v, depth + 1) for k, v in items}
        if depth < DEPTH_MAX and isinstance(value, list | tuple | set | frozenset):
            return [self._plain(item, depth + 1) for item in islice(value, ITEMS_MAX)]
        return self._text(repr(value))

    def _field(self, name: str, value: object, depth: int) -> object:
        words = _WORD_STARTS.sub("_", name).lower()
        if value is not None and _SECRET_FIELD.search(words):
            return MASK
        return self._plain(value, depth)

    def _text(self, text: str) -> str:
        if text in self._secrets:
            return MASK
        for secret in self._secrets:
            if len(secret) >= SECRET_CHARACTERS_MIN:
                text = text.replace(secret, MASK)
        # Cut only now: half a secret is not recognised any more.
        if len(text) > TEXT_CHARACTERS_MAX:
            text = f"{text[:TEXT_CHARACTERS_MAX]}... ({len(text):,} characters)"
        for pattern in _SECRET_TEXTS:
            text = pattern.sub(rf"\g<kept>{MASK}", text)
        return text


def _json_line(fields: dict[str, Any]) -> str:
    ordered = {name: fields.pop(name) for name in _FIRST_FIELDS if name in fields}
    return json.dumps(ordered | fields, ensure_ascii=False, separators=(",", ":"))


def _text_line(fields: dict[str, Any]) -> str:
    fields.pop("timestamp", None)
    level, event = fields.pop("level"), fields.pop("event")
    said = [f"orchestrator: {level}: {_on_one_line(event)}"]
    said += [f"{name}={_quoted(str(value))}" for name, value in fields.items()]
    return " ".join(said)


def _quoted(text: str) -> str:
    return repr(text) if not text or " " in text else _on_one_line(text)


def _on_one_line(text: str) -> str:
    """The text without line breaks, and without the escape codes that would rule a terminal."""
    return text if text.isprintable() else repr(text)


def _in_a_word(exc_info: ExcInfo) -> str:
    return f"{exc_info[0].__name__}: {exc_info[1]}"


class _LineFile:
    """The way to the file: one write to the operating system a line, from any thread."""

    def __init__(self, path: Path) -> None:
        self._lock = Lock()
        self._torn = False
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        try:
            self._descriptor = os.open(path, flags, FILE_MODE)
        except (OSError, ValueError) as error:  # a path with a NUL in it is a ValueError
            problem = (error.strerror if isinstance(error, OSError) else None) or str(error)
            raise OutputFolderUnusable(path=path, problem=problem) from None

    def msg(self, line: str) -> None:
        # A half of a surrogate pair is written as JSON's own escape for it.
        whole = line.encode("utf-8", "backslashreplace") + b"\n"
        with self._lock, suppress(OSError):  # also after the end: there is no file -1
            if self._torn:  # what a full disk tore is ended, so that it spoils no other line
                whole = b"\n" + whole
            written = os.write(self._descriptor, whole)
            self._torn = written < len(whole)

    debug = info = warning = error = critical = msg

    def close(self) -> None:
        with self._lock, suppress(OSError):
            descriptor, self._descriptor = self._descriptor, -1
            if descriptor >= 0:
                os.close(descriptor)


class _Stderr:
    """Whatever is the standard error stream when a line comes."""

    def msg(self, line: str) -> None:
        with suppress(OSError, ValueError):  # closed, or it can't write the characters
            if sys.stderr is not None:
                sys.stderr.write(line + "\n")
                sys.stderr.flush()

    warning = error = critical = msg
