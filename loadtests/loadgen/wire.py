"""What passes between LoadGen's process and its senders, through pipes: a `Plan` once, then fixed-size records."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

Records = npt.NDArray[Any]

# 16 bytes each, so that a write of one record is never torn apart and whole pages hold whole records.
RECORD = np.dtype([("id", "<u8"), ("value", "<u4"), ("unused", "<u4")])
READY = np.uint64(2**64 - 1)  # the `id` of a sender's first record

# What became of a query: an HTTP status, or one of these. 200 means: answered, and rightly.
TIMEOUT, BROKEN, WRONG, ABANDONED = 1, 2, 3, 4
NAMES = {TIMEOUT: "no answer in time", BROKEN: "connection broke", WRONG: "wrong answer", ABANDONED: "never sent"}


class Plan(Struct, frozen=True):
    """What a sender needs to know: where to, what, over how many connections, and how long to wait, in seconds."""

    host: str
    port: int
    path: str
    photos: list[tuple[str, bytes]]  # content type and file
    connections: int
    timeout: float


def records(ids: npt.ArrayLike, values: npt.ArrayLike) -> bytes:
    """Encode records: `id` with the index of a photo on the way out, with what became of it on the way back."""
    ids = np.asarray(ids, np.uint64)
    packed = np.zeros(ids.shape, RECORD)
    packed["id"], packed["value"] = ids, values
    return packed.tobytes()


class Reader:
    """Puts records together out of what a pipe delivers."""

    def __init__(self, take: Callable[[Records], None]) -> None:
        """Prepare to call `take` with the records, one or more at a time, in their order."""
        self._take = take
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Take bytes as they come."""
        data = self._rest + data
        whole = len(data) - len(data) % RECORD.itemsize
        self._rest = data[whole:]
        if whole:
            self._take(np.frombuffer(data, RECORD, whole // RECORD.itemsize))
