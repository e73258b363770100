"""Room kept in reserve: a file that is given up when the disk is full, so that work ends well."""

import os
from pathlib import Path

BALLAST_NAME = "journal.ballast"

# A few thousand requests that are out can still be journaled in it.
BALLAST_BYTES = 4 * 2**20


class Ballast:
    """A file of no meaning in a folder.

    Raises:
        OSError: There is no room even for this.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / BALLAST_NAME
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, 0o600)
        try:
            # Chance can't be compressed, and what is written takes real blocks; a hole does not.
            rest = memoryview(os.urandom(BALLAST_BYTES))
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        except OSError:
            self.give_up()
            raise
        finally:
            os.close(descriptor)

    def give_up(self) -> bool:
        """Make room; whether there was any to make."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True
