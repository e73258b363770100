"""A small file system of its own, to be filled to the last byte and emptied again."""

import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

PIECES_BYTES = (65_536, 4_096, 1)


@dataclass
class SmallDisk:
    """The folder `path` is all of it."""

    path: Path

    def fill(self):
        """Until not even one byte more can be written."""
        with (self.path / "filler").open("ab", buffering=0) as file:
            for size in PIECES_BYTES:
                try:
                    while file.write(bytes(size)) == size:
                        pass
                except OSError:
                    continue

    def make_room(self):
        (self.path / "filler").unlink()


@contextmanager
def small_disk(folder, size_bytes):
    """A disk of this size; skips the test where none can be made, as it takes root to mount one.

    A mount namespace would do without root, but SQLite can't be led into one from outside.
    """
    place = folder / "disk"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "small", str(place)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"no small disk can be made here: {error}")
    if done.returncode:
        pytest.skip(f"no small disk can be made here: {done.stderr.strip()}")
    try:
        yield SmallDisk(place)
    finally:
        # Lazily: what a failed test left at work may still have files open there.
        subprocess.run(["umount", "--lazy", str(place)], check=True)
