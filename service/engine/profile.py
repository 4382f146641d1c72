"""What a model costs on this machine, measured when it is loaded, and the batch size that follows from it."""

from collections.abc import Sequence
from time import perf_counter

import numpy as np
from msgspec import Struct

from service.engine.session import Session

_ENOUGH = 0.1  # seconds; a run that takes longer is all arithmetic, and a larger batch has nothing to save
_WORTH = 0.95  # a larger batch must make a picture at least this much cheaper, or it only adds latency


class Profile(Struct, frozen=True):
    """Measured cost of a model.

    Attributes:
        seconds: the shortest run measured, by batch size; "1" is always there.
        max_batch: the batch size that was chosen.
        chosen_by: `measured`, or `setting` where `ZOOSERVE_MAX_BATCH` decided.
    """

    seconds: dict[int, float]
    max_batch: int
    chosen_by: str


def measure(session: Session, sizes: Sequence[int], *, repeats: int = 2) -> dict[int, float]:
    """Run zeros through every batch size once to warm it up, then time it. Stops after a size that takes long.

    Args:
        session: the loaded graph.
        sizes: batch sizes, rising.
        repeats: timed runs of each.

    Returns:
        Seconds of the shortest timed run by batch size.
    """
    seconds: dict[int, float] = {}
    for size in sizes:
        if seconds and max(seconds.values()) > _ENOUGH:
            break
        images = np.zeros((size, session.height, session.width, 3), np.uint8)
        session.run(images)
        seconds[size] = min(_time(session, images) for _ in range(repeats))
    session.trim()  # the largest batch may have taken a gigabyte that the chosen one does not need
    return seconds


def choose(seconds: dict[int, float]) -> int:
    """Pick the batch size: the smallest from which no larger one makes a picture noticeably cheaper."""
    best = 1
    for size in sorted(seconds):
        if seconds[size] / size < _WORTH * seconds[best] / best:
            best = size
    return best


def _time(session: Session, images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> float:
    start = perf_counter()
    session.run(images)
    return perf_counter() - start
