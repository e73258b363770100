"""Results on disk, one line each in the OpenAI Batch output format: there whole, or not at all.

Rules:

- A line is one write to the operating system, so a process that is killed leaves it out or in. What
  a full disk tore is cut off again at once; what a dying machine tore is cut when it is gone on
  with, and lines that the journal still has are written again.
- results.jsonl holds completed requests, errors.jsonl all others. Nothing is ever overwritten.
- A server's answer goes in as the text it came as. Text that is no JSON goes in as a string, so
  that every line can be parsed whatever a server sent.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

import msgspec

from orchestrator.core.model import Answer, Outcome, Result
from orchestrator.errors import OutputDamaged, OutputFailed, OutputFolderTaken, OutputFolderUnusable

RESULTS_NAME = "results.jsonl"
ERRORS_NAME = "errors.jsonl"
SUMMARY_NAME = "summary.json"

# Folders and files are for the user alone: they hold what was asked and answered.
FOLDER_MODE = 0o700
FILE_MODE = 0o600

BLOCK_BYTES = 64 * 1024  # read at a time when a torn line is looked for

# Raw line breaks stand only between the tokens of a JSON text, never in its strings.
_BREAKS_TO_SPACES = bytes.maketrans(b"\r\n", b"  ")

_JSON_VALUE = msgspec.json.Decoder(msgspec.Raw)


def prepare_folder(path: Path) -> None:
    """Make a folder for an execution's output, with all folders above it that are missing.

    A folder that is there already keeps its mode.

    Raises:
        OutputFolderTaken: It holds the output of another execution.
        OutputFolderUnusable: It can't be made or written to.
    """
    try:
        for folder in (*reversed(path.parents), path):
            if not folder.is_dir():
                folder.mkdir(FOLDER_MODE, exist_ok=True)
    except FileExistsError:
        raise OutputFolderUnusable(path=path, problem=f"{folder} is not a folder") from None
    except (OSError, ValueError) as error:  # a path with a NUL in it is a ValueError
        raise OutputFolderUnusable(path=path, problem=_reason(error)) from None
    if any(os.path.lexists(path / name) for name in (RESULTS_NAME, ERRORS_NAME, SUMMARY_NAME)):
        raise OutputFolderTaken(path=path)
    if not os.access(path, os.W_OK | os.X_OK):
        raise OutputFolderUnusable(path=path, problem="you may not write there")


class ResultFiles:
    """The two files of an execution's results; use it in a `with` block, or close it.

    Args:
        folder: Where they are.
        go_on: Whether they are there already.

    Raises:
        OutputFolderTaken: One of the files is there already, and is not to be gone on with.
        OutputFolderUnusable: The files can't be made or opened.
    """

    def __init__(self, folder: Path, *, go_on: bool = False) -> None:
        self._results = _LineFile(folder / RESULTS_NAME, go_on=go_on)
        try:
            self._errors = _LineFile(folder / ERRORS_NAME, go_on=go_on)
        except BaseException:
            self._results.close()
            if not go_on:
                self._results.path.unlink()
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

    @property
    def results_count(self) -> int:
        """Lines in results.jsonl."""
        return self._results.count

    @property
    def errors_count(self) -> int:
        """Lines in errors.jsonl."""
        return self._errors.count

    def record(self, result: Result) -> None:
        """Write the line of this result; it is in the file when this returns.

        Raises:
            OutputFailed: The line could not be written whole, so it is not there at all.
        """
        self.append(result_line(result), is_completed=result.outcome is Outcome.COMPLETED)

    def append(self, line: bytes, *, is_completed: bool) -> None:
        """Write this line of a result; as `record`."""
        (self._results if is_completed else self._errors).append(line)

    @property
    def sizes(self) -> tuple[int, int]:
        """Bytes in results.jsonl and in errors.jsonl."""
        return self._results.bytes_whole, self._errors.bytes_whole

    def sync(self) -> None:
        """Have what was written on the disk itself, so that it outlives the machine's death."""
        self._results.sync()
        self._errors.sync()

    @staticmethod
    def check(folder: Path, sizes: tuple[int, int]) -> None:
        """Look whether the files hold what they are known to hold; nothing is changed.

        Raises:
            OutputDamaged: A file is shorter than that, or ends in the middle of a line there.
        """
        for name, size in zip((RESULTS_NAME, ERRORS_NAME), sizes, strict=True):
            path = folder / name
            try:
                with path.open("rb") as file:
                    found = file.seek(0, os.SEEK_END)
                    file.seek(max(size - 1, 0))
                    is_whole = not size or file.read(1) == b"\n"
            except FileNotFoundError:
                found, is_whole = 0, True
            except OSError as error:
                raise OutputFolderUnusable(path=folder, problem=_reason(error)) from None
            if found < size or not is_whole:
                problem = f"{size:,} bytes of whole lines were written, {found:,} bytes are there"
                raise OutputDamaged(path=path, problem=problem)

    def mend(self, sizes: tuple[int, int], lines: Iterable[tuple[bool, bytes]]) -> None:
        """Write what a process that died left unwritten.

        Args:
            sizes: Bytes of both files that are known to be there.
            lines: What may have been written after these, or not: whether it belongs to
                results.jsonl, and the line, in the order of writing.

        Raises:
            OutputFailed: A line can't be written.
        """
        given: dict[bool, list[bytes]] = {True: [], False: []}
        for is_completed, line in lines:
            given[is_completed].append(line)
        for file, size, left in zip(
            (self._results, self._errors), sizes, (given[True], given[False]), strict=True
        ):
            there = file.lines_after(size)
            for line in left:
                if line not in there:
                    file.append(line)

    def close(self) -> None:
        """Close both files. Closing twice is fine."""
        self._results.close()
        self._errors.close()


def result_line(result: Result) -> bytes:
    """The line of a result, with its line break."""
    line: dict[str, Any] = {
        "id": _line_id(result.custom_id),
        "custom_id": _encodable(result.custom_id),
        "response": None if result.answer is None else _response(result.answer),
        "error": None,
    }
    if result.outcome is not Outcome.COMPLETED:
        line["error"] = _error(result)
        line["outcome"] = result.outcome
        line["sent"] = result.sent > 0
        if result.run_id:
            line["run_id"] = _encodable(result.run_id)
    if result.lost:
        line["answers_lost"] = result.lost
    return msgspec.json.encode(line) + b"\n"


def cut_torn_line(path: Path) -> int:
    """Cut off what follows the last line break of a file that a dying machine left.

    Returns the number of bytes cut, 0 when the file is whole, empty or not there.

    Raises:
        OutputFailed: The file can't be read or cut.
    """
    try:
        with path.open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            whole = size
            while whole > 0:
                start = max(0, whole - BLOCK_BYTES)
                file.seek(start)
                found = file.read(whole - start).rfind(b"\n")
                whole = start + found + 1
                if found >= 0:
                    break
            if whole < size:
                file.truncate(whole)
            return size - whole
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise OutputFailed(path=path, problem=_reason(error)) from None


class _LineFile:
    """A file that is only ever longer by whole lines."""

    def __init__(self, path: Path, *, go_on: bool) -> None:
        self.path = path
        self.count = 0
        self.bytes_whole = 0
        self._descriptor = -1
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        if not go_on:
            flags |= os.O_EXCL
        try:
            is_new = not path.exists()
            self._descriptor = os.open(path, flags, FILE_MODE)
            self.bytes_whole = os.fstat(self._descriptor).st_size
            if is_new:
                _sync_folder(path.parent)
        except FileExistsError:
            raise OutputFolderTaken(path=path.parent) from None
        except OSError as error:
            raise OutputFolderUnusable(path=path.parent, problem=_reason(error)) from None

    def append(self, line: bytes) -> None:
        if self._descriptor < 0:
            raise OutputFailed(path=self.path, problem="it is closed")
        try:
            written = os.write(self._descriptor, line)
        except OSError as error:
            self._fail(_reason(error))
        if written < len(line):
            self._fail(f"only {written} of {len(line)} bytes of a line fitted; the disk is full?")
        self.bytes_whole += written
        self.count += 1

    def lines_after(self, size: int) -> frozenset[bytes]:
        self.bytes_whole -= cut_torn_line(self.path)
        try:
            with self.path.open("rb") as file:
                file.seek(size)
                return frozenset(file)
        except OSError as error:
            raise OutputFolderUnusable(path=self.path.parent, problem=_reason(error)) from None

    def sync(self) -> None:
        if self._descriptor >= 0:
            try:
                os.fsync(self._descriptor)
            except OSError as error:
                raise OutputFailed(path=self.path, problem=_reason(error)) from None

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _fail(self, problem: str) -> NoReturn:
        # Where even this fails, cut_torn_line does it later.
        with suppress(OSError):
            os.ftruncate(self._descriptor, self.bytes_whole)
        raise OutputFailed(path=self.path, problem=problem)


def _sync_folder(path: Path) -> None:
    """Have the names of new files on the disk itself."""
    folder = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _line_id(custom_id: str) -> str:
    """An id for the line: the same whenever it is asked for, as unique as the custom_id is."""
    digest = blake2b(custom_id.encode("utf-8", "surrogatepass"), digest_size=16)
    return f"batch_req_{digest.hexdigest()}"


def _response(answer: Answer) -> dict[str, Any]:
    return {
        "status_code": answer.status_code,
        "request_id": _encodable(answer.request_id),
        "body": _body(answer.body),
    }


def _body(body: bytes) -> msgspec.Raw | str | None:
    """The answer's JSON on one line; as a string where it is no JSON, None where there is none."""
    if not body.strip():
        return None
    try:
        body.decode()
        _JSON_VALUE.decode(body)
    except (ValueError, RecursionError):
        return body.decode("utf-8", "replace")
    return msgspec.Raw(body.strip().translate(_BREAKS_TO_SPACES))


def _error(result: Result) -> dict[str, str]:
    """What went wrong; never empty, because a line without error reads as a success."""
    code = message = ""
    if result.error is not None:
        code, message = result.error.code, result.error.message
    return {
        "code": _encodable(code or result.outcome),
        "message": _encodable(message or f"The outcome of this request is {result.outcome}."),
    }


def _encodable(text: str) -> str:
    """The text with "?" for what UTF-8 can't write: half of a surrogate pair from a server."""
    return text.encode("utf-8", "replace").decode()


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
