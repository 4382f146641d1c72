"""How many users there are over time: of the share of the time that is over (0 to 1), and the most that there are."""

_STEPS = 10


def ramp(share: float, most: int) -> int:
    """Ten steps of the same length: a tenth of the users, two tenths, and so on, at least one."""
    return max(1, most * (int(share * _STEPS) + 1) // _STEPS)


def spike(share: float, most: int) -> int:
    """A tenth of the users, at least one; all of them in the middle fifth of the time."""
    return most if 0.4 <= share < 0.6 else max(1, most // 10)


SHAPES = {"ramp": ramp, "spike": spike}
