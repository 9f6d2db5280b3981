"""Seeds: one run seed, and named streams hashed from it, so that order, batch size and restarts change nothing."""

from __future__ import annotations

import hashlib


def digest(*parts: str | bytes, size: int = 8) -> str:
    """The blake2b hash of `parts` one after the other, in hexadecimal digits: `size` bytes, the same on every machine.

    >>> digest("a settings file", size=4)
    '40ddde5b'
    >>> digest("a settings", b" file", size=4) == digest("a settings file", size=4)
    True
    """
    hashed = hashlib.blake2b(digest_size=size)
    for part in parts:
        hashed.update(part.encode() if isinstance(part, str) else part)
    return hashed.hexdigest()


def stream(seed: int, *names: object) -> int:
    """A 63-bit seed for the stream called `names`.

    Each name gives numbers of its own: the sample of a problem is the same whatever was sampled before it.

    >>> stream(0, "rollout", 1, "problem-7", 2)
    1083746401950288116
    >>> stream(0, "rollout", 1, "problem-7", 2) == stream(0, "rollout", 1, "problem-7", 3)
    False
    """
    return int(digest("\x1f".join([str(seed), *map(str, names)])), 16) >> 1


def stream31(seed: int, *names: object) -> int:
    """The same in 31 bits, for libraries that take no more (Trainer, NumPy).

    >>> stream31(0, "adapter") == stream(0, "adapter") >> 32
    True
    """
    return stream(seed, *names) >> 32
