"""The right to write into a folder: one process at a time, until it ends in whatever way."""

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path
from weakref import WeakSet

from orchestrator.errors import FolderInUse

LOCK_NAME = "journal.lock"

# Somebody who asks whether it is held, holds it for a few microseconds.
TRIES = 5
TRY_AGAIN_SECONDS = 0.01


class FolderLock:
    """Holds a folder until it is released, or the process ends.

    Raises:
        FolderInUse: Another process holds it.
        OSError: Its file can't be made.
    """

    def __init__(self, folder: Path) -> None:
        # Not by way of a link: its target would be overwritten with our pid.
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(folder / LOCK_NAME, flags, 0o600)
        for _ in range(TRIES):
            with suppress(BlockingIOError):
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(TRY_AGAIN_SECONDS)  # noqa: TID251 - 50 ms at most, and before the work begins
            holder = os.pread(self._descriptor, 20, 0).decode("ascii", "replace").strip()
        else:
            os.close(self._descriptor)
            raise FolderInUse(path=folder, pid=holder or "unknown")
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, b"%d\n" % os.getpid(), 0)
        _held.add(self)

    def release(self) -> None:
        """Let others have it. Releasing twice is fine."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


_held: WeakSet[FolderLock] = WeakSet()


def _let_go_in_child() -> None:
    """A child that a tool has forked would hold the folder when we are long dead."""
    for lock in list(_held):
        lock.release()


os.register_at_fork(after_in_child=_let_go_in_child)


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
