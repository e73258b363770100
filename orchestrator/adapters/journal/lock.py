"""The right to write into a folder: one process at a time, until it ends in whatever way."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from orchestrator.errors import FolderInUse

LOCK_NAME = "journal.lock"

# Somebody who asks whether it is held, holds it for a few microseconds.
TRIES = 3


class FolderLock:
    """Holds a folder until it is released, or the process ends.

    Raises:
        FolderInUse: Another process holds it.
        OSError: Its file can't be made.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / LOCK_NAME
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        for _ in range(TRIES):
            with suppress(BlockingIOError):
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            holder = os.pread(self._descriptor, 20, 0).decode("ascii", "replace").strip()
        else:
            os.close(self._descriptor)
            raise FolderInUse(path=folder, pid=holder or "unknown")
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, b"%d\n" % os.getpid(), 0)

    def release(self) -> None:
        """Let others have it. Releasing twice is fine."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def is_held(folder: Path) -> bool:
    """Whether a process works in this folder."""
    try:
        descriptor = os.open(folder / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks: nobody can hold one
        return False
    else:
        return False
    finally:
        os.close(descriptor)
