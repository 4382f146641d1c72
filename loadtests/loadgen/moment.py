"""Moments that two processes of one machine can compare, in 32 bits: microseconds of the monotonic clock."""

from time import monotonic_ns

_BITS = 2**32


def moment() -> int:
    """Return the moment: it starts again at 0 after 71 minutes."""
    return monotonic_ns() // 1000 % _BITS


def since(earlier: int) -> int:
    """Return the microseconds since a moment of the last 71 minutes."""
    return (moment() - earlier) % _BITS
