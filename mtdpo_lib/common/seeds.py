"""Seeds: one run seed, and named streams hashed from it, so that order, batch size and restarts change nothing."""

from __future__ import annotations

import hashlib


def stream(seed: int, *names: object) -> int:
    """A 63-bit seed for the stream called `names`, e.g. ``stream(0, "rollout", 1, problem.id, sample)``."""
    text = "\x1f".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def small_stream(seed: int, *names: object) -> int:
    """The same in 31 bits, for libraries that take no more (Trainer, NumPy)."""
    return stream(seed, *names) >> 32
