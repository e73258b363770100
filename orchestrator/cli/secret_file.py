"""Where a new secret goes: a file for the user alone, made before the secret is."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from orchestrator.errors import SecretFileUnusable

FILE_MODE = 0o600


class SecretFile:
    """An empty file that waits for a secret."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self.is_written = False

    def write(self, secret: str, *, endpoint_id: str) -> None:
        """Write the secret and a line break.

        Raises:
            SecretFileUnusable: It can't be written; the secret is lost then.
        """
        try:
            text = f"{secret}\n".encode()
            while text:
                text = text[os.write(self._descriptor, text) :]
            os.fsync(self._descriptor)
        except OSError as error:
            problem = error.strerror or str(error)
            cure = (
                f"Nobody has it now: make another one (orchestrator webhooks rotate {endpoint_id})."
            )
            raise SecretFileUnusable(path=self._path, problem=problem, cure=cure) from error
        self.is_written = True


@contextmanager
def secret_file(path: Path | None) -> Iterator[SecretFile | None]:
    """A new file for a secret, removed again where none was written; None for no path.

    Raises:
        SecretFileUnusable: It is there already, or can't be made.
    """
    if path is None:
        yield None
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
    except OSError as error:
        there = isinstance(error, FileExistsError)
        problem = "there is such a file already" if there else error.strerror or str(error)
        cure = "Give another name; a secret is never overwritten. Nothing was sent."
        raise SecretFileUnusable(path=path, problem=problem, cure=cure) from error
    file = SecretFile(path, descriptor)
    try:
        yield file
    finally:
        os.close(descriptor)
        if not file.is_written:
            with suppress(OSError):
                path.unlink()
