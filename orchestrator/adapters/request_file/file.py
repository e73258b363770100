"""A JSONL file of requests: checked whole before anything is sent, then read line by line.

Rules:

- Nothing of the file stays in memory but 8 bytes a line while it is checked. A request knows where
  its body is; the body is read when the run is created.
- One descriptor is open all the time, so a file that is replaced meanwhile is still the old one
  for us. A file that is written to is found out by length and checksum.
- A mistake in a line that was good when it was checked is `InputChanged`, no longer the user's
  `LineUnusable`, whose message promises that nothing was sent.
"""

import io
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from shlex import quote
from types import TracebackType
from typing import NamedTuple, Self
from zlib import crc32

from orchestrator.adapters.request_file.bad_lines import BadLines, unusable
from orchestrator.adapters.request_file.duplicates import Duplicates
from orchestrator.adapters.request_file.jsontext import LineError
from orchestrator.adapters.request_file.line import RequestDefaults, Sendable, sendable
from orchestrator.core.model import Request
from orchestrator.errors import (
    InputChanged,
    RequestFileEmpty,
    SourceMissing,
    SourceUnusable,
)

# A line is in memory while it is looked at. The largest real ones hold images as base64; the API
# takes bodies of up to 50 MB of those.
LINE_BYTES_MAX = 64 * 2**20
DIGEST_BYTES = 16
BLOCK_BYTES = 256 * 1024  # per read; larger ones make no difference that could be measured

UTF8_BOM = b"\xef\xbb\xbf"

# Files of another kind tell it by their first bytes.
OTHER_KINDS = (
    (b"\xff\xfe", "it is UTF-16 text", "Save it as UTF-8."),
    (b"\xfe\xff", "it is UTF-16 text", "Save it as UTF-8."),
    (b"\x1f\x8b", "it is packed by gzip", "Unpack it first: gunzip -k FILE"),
    (b"PK\x03\x04", "it is a zip archive", "Unpack it first: unzip FILE"),
    (b"\x28\xb5\x2f\xfd", "it is packed by zstd", "Unpack it first: unzstd FILE"),
)


@dataclass(frozen=True, slots=True)
class FileSummary:
    """What a file asks for. `tokens` is the sum of the estimates, `digest` is of all its bytes."""

    requests: int
    by_url: Mapping[str, int]
    by_model: Mapping[str, int]
    tokens: int
    digest: str


class _Line(NamedTuple):
    number: int  # from 1
    offset: int  # in bytes
    text: bytes  # with its line break; cut when the line is too long


class _BodyInFile:
    """Where a body is: a million of these are alive at most, so they hold numbers only."""

    __slots__ = ("_checksum", "_file", "_length", "_line", "_offset")

    def __init__(self, file: "RequestFile", line: _Line) -> None:
        self._file = file
        self._line = line.number
        self._offset = line.offset
        self._length = len(line.text)
        self._checksum = crc32(line.text)

    def read(self) -> bytes:
        """The body as JSON text, completed by the defaults.

        Raises:
            InputChanged: The line is not what it was when the request was made.
        """
        text = self._file.bytes_at(self._offset, self._length)
        if len(text) != self._length or crc32(text) != self._checksum:
            raise InputChanged(path=self._file.path, line=self._line)
        try:
            return self._file.sendable(_Line(self._line, self._offset, text)).content
        except LineError as error:
            # Deep nesting can be too deep here and not when it was checked: the limit is what is
            # left of the stack.
            raise unusable(self._file.path, self._line, error) from None


class _Cursor(io.RawIOBase):
    """An own reading position on the file's one descriptor."""

    def __init__(
        self, file: "RequestFile", position: int, on_block: Callable[[bytes], None]
    ) -> None:
        self._file = file
        self._position = position
        self._on_block = on_block

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview[int]") -> int:  # type: ignore[override]  # what BufferedReader passes
        block = self._file.bytes_at(self._position, len(buffer))
        buffer[: len(block)] = block
        self._on_block(block)
        self._position += len(block)
        return len(block)


class RequestFile:
    """The requests of a JSONL file.

    Use it in a `with` block, or close it. Iterating gives the requests in the order of the file,
    read as they are asked for; several iterations don't disturb one another.

    Raises:
        SourceMissing, SourceUnusable: There is no such file, or it is of another kind.
        SettingUnusable: The defaults can't be used.
    """

    def __init__(self, path: str | Path, defaults: RequestDefaults | None = None) -> None:
        self.path = Path(path)
        self.defaults = RequestDefaults() if defaults is None else defaults
        self._checked = False
        self._bytes_expected: int | None = None  # the size when the check began
        self._descriptor = -1
        self._descriptor = _open(self.path)
        try:
            self._refuse_other_kinds()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Request]:
        return self.requests()

    def close(self) -> None:
        """Close the file; bodies can't be read any more. Closing twice is fine."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def digest(self) -> str:
        """Of what is in it, to be compared with that of a summary; reads the whole file."""
        hasher, position = blake2b(digest_size=DIGEST_BYTES), self._start()
        while block := self.bytes_at(position, BLOCK_BYTES):
            hasher.update(block)
            position += len(block)
        return hasher.hexdigest()

    def trust(self) -> None:
        """The file is known to be what was checked before: no line has to be looked at again."""
        self._checked, self._bytes_expected = True, self._size()

    def check(self, each: Callable[[int, Sendable], None] = lambda *_: None) -> FileSummary:
        """Look at every line, so that nothing is sent of a file that has a mistake in it.

        Args:
            each: Called with the number and the request of every good line.

        Raises:
            LineUnusable: Lines can't be sent; the first is reported in full, others by number.
            RequestFileEmpty: There is no line with anything in it.
            SourceUnusable: The file is a JSON array, or can't be read.
            InputChanged: The file was written to meanwhile.
        """
        self._checked, self._bytes_expected = False, self._size()
        bad, ids = BadLines(), Duplicates()
        by_url: Counter[str] = Counter()
        by_model: Counter[str] = Counter()
        tokens = 0
        hasher = blake2b(digest_size=DIGEST_BYTES)
        line = None
        for line in self._lines(hasher.update):
            if not by_url and not bad.count and line.text.lstrip().startswith(b"["):
                self._refuse_array()
            try:
                found = self.sendable(line)
            except LineError as error:
                bad.add(line.number, error)
                continue
            ids.add(found.custom_id)
            each(line.number, found)
            by_url[found.url] += 1
            by_model[found.model] += 1
            tokens += found.tokens
        if line is None:
            raise RequestFileEmpty(path=self.path)
        self._add_repeats(bad, ids)
        if bad.count:
            raise bad.complaint(self.path)
        self._checked = True
        return FileSummary(by_url.total(), dict(by_url), dict(by_model), tokens, hasher.hexdigest())

    def requests(self, wanted: Callable[[int], bool] = lambda _: True) -> Iterator[Request]:
        """The requests, read lazily; only those of lines (from 1) that are `wanted`.

        Raises:
            LineUnusable: The line can't be sent (when the file was not checked).
            InputChanged: The file is not what was checked.
        """
        for line in self._lines():
            if not wanted(line.number):
                continue
            try:
                found = self.sendable(line)
            except LineError as error:
                if self._checked:
                    raise InputChanged(path=self.path, line=line.number) from None
                raise unusable(self.path, line.number, error) from None
            yield Request(
                custom_id=found.custom_id,
                url=found.url,
                family=found.family,
                model=found.model,
                tokens=found.tokens,
                body=_BodyInFile(self, line),
                line=line.number,
                thread=found.thread,
                via_batch=found.via_batch,
                body_bytes=len(found.content),
                inputs=found.inputs,
                digest=found.digest(),
                output_tokens=found.output_tokens,
            )

    def sendable(self, line: _Line) -> Sendable:
        """What the line asks for; raises LineError."""
        if len(line.text) > LINE_BYTES_MAX:
            raise LineError(
                problem=f"it is longer than {LINE_BYTES_MAX // 2**20} MiB",
                cure="Write each request on its own line, and give large inputs by url or file id.",
            )
        return sendable(line.text.rstrip(), self.defaults, line.number)

    def bytes_at(self, offset: int, length: int) -> bytes:
        """A part of the file; shorter where the file ends."""
        with self._readable():
            return os.pread(self._descriptor, length, offset)

    def _start(self) -> int:
        return len(UTF8_BOM) if self.bytes_at(0, len(UTF8_BOM)) == UTF8_BOM else 0

    def _lines(self, on_block: Callable[[bytes], None] = lambda _: None) -> Iterator[_Line]:
        """The lines that are not blank; blank ones count. Every block that is read is told."""
        offset, number = self._start(), 0
        with io.BufferedReader(_Cursor(self, offset, on_block), BLOCK_BYTES) as reader:
            while text := reader.readline(LINE_BYTES_MAX + 1):
                number += 1
                length = len(text)
                if length > LINE_BYTES_MAX:
                    length += _skip_line(reader, text)
                if self._bytes_expected is not None and offset + length > self._bytes_expected:
                    raise InputChanged(path=self.path, line=number)
                if not text.isspace():
                    yield _Line(number, offset, text)
                offset += length
        if self._bytes_expected is not None and offset < self._bytes_expected:
            raise InputChanged(path=self.path, line=number + 1)

    def _add_repeats(self, bad: BadLines, ids: Duplicates) -> None:
        """Read the file again if any custom_id seems to be there twice."""
        if not (suspects := ids.suspects()):
            return
        for repeat in ids.confirmed(suspects, self._numbered_ids()):
            error = LineError(
                problem=f"line {repeat.first_line} has the same custom_id",
                cure="Give every request a custom_id of its own.",
            )
            error.custom_id = repeat.custom_id
            bad.add(repeat.line, error)

    def _numbered_ids(self) -> Iterator[tuple[int, str]]:
        for line in self._lines():
            try:
                yield line.number, self.sendable(line).custom_id
            except LineError:
                continue

    def _size(self) -> int:
        with self._readable():
            return os.fstat(self._descriptor).st_size

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _not_a_source(self.path, error.strerror) from None

    def _refuse_other_kinds(self) -> None:
        start = self.bytes_at(0, 4)
        for magic, problem, cure in OTHER_KINDS:
            if start.startswith(magic):
                cure_here = cure.replace("FILE", quote(str(self.path)))
                raise SourceUnusable(path=self.path, problem=problem, cure=cure_here)

    def _refuse_array(self) -> None:
        command = f"jq -c '.[]' {quote(str(self.path))} > {quote(self.path.stem)}.lines.jsonl"
        raise SourceUnusable(
            path=self.path,
            problem="this is a JSON array, not JSON lines",
            cure=f"Write one object a line: {command}",
        )


def _open(path: Path) -> int:
    """A descriptor of a regular file."""
    try:
        # O_NONBLOCK: opening a pipe would wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise SourceMissing(path=path) from None
    except OSError as error:
        raise _not_a_source(path, error.strerror) from None
    except ValueError as error:  # a NUL in the path
        raise _not_a_source(path, str(error)) from None
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise SourceUnusable(
            path=path, problem="it is a folder", cure="Give the .jsonl file that is in it."
        )
    raise SourceUnusable(
        path=path,
        problem="it is not a regular file, and lines must be read more than once",
        cure="Save what comes out of it to a file first.",
    )


def _not_a_source(path: Path, problem: str | None) -> SourceUnusable:
    cure = "Make it readable for you, or give another file."
    return SourceUnusable(path=path, problem=problem or "it can't be read", cure=cure)


def _skip_line(reader: "io.BufferedReader[_Cursor]", start: bytes) -> int:
    """Read to the end of a line that is too long; how many bytes that was."""
    skipped = 0
    piece = start
    while piece and not piece.endswith(b"\n"):
        piece = reader.readline(BLOCK_BYTES)
        skipped += len(piece)
    return skipped
