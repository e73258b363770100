"""Chance that depends on a seed and on what is decided, never on the order of decisions.

Concurrent calls arrive in any order. A draw keyed by what it is about (a request's digest, a run's
id) comes out the same whichever call was first, so a night with faults can be replayed.
"""

import hashlib


def digest(*parts: bytes | str | float) -> str:
    """32 hex digits that stand for these parts."""
    hashing = hashlib.blake2b(digest_size=16)
    for part in parts:
        hashing.update(part if isinstance(part, bytes) else str(part).encode())
        hashing.update(b"\x1f")  # so that ("ab", "c") and ("a", "bc") differ
    return hashing.hexdigest()


def draw(*parts: bytes | str | float) -> float:
    """A number strictly between 0 and 1, the same for the same parts."""
    # 52 bits plus a half: neither 0 nor 1 can come out, which a lognormal could not take.
    return ((int(digest(*parts)[:16], 16) >> 12) + 0.5) / 2**52
