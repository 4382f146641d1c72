"""What passes between LoadGen's process and its senders, through pipes: a `Plan` once, then fixed-size records."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Struct

from loadtests.exchange import Request
from loadtests.target import Target
from loadtests.transport import Asked

Records = npt.NDArray[Any]

# 16 bytes each, so that a write of one record is never torn apart and whole pages hold whole records.
RECORD = np.dtype([("id", "<u8"), ("value", "<u4"), ("extra", "<u4")])
READY = np.uint64(2**64 - 1)  # the `id` of a sender's first record


class Image(Struct, frozen=True):
    """A file that is sent as it is: held, or, where there are too many to hold, read when it is needed."""

    content_type: str
    data: bytes = b""
    path: str = ""

    def read(self) -> bytes:
        """Return the file."""
        return self.data if not self.path else Path(self.path).read_bytes()


class Plan(Struct, frozen=True):
    """What a sender needs to know.

    Attributes:
        target: the server, with task and model.
        options: of every request, such as `top_k`.
        images: by their index.
        connections: how many queries may be under way.
        timeout: seconds after which an answer is no longer waited for.
        answers: a file for the bodies of all answers, one behind the other, in the order of the records; empty: bodies
            are compared with those of the first time instead.
    """

    target: Target
    options: dict[str, str]
    images: list[Image]
    connections: int
    timeout: float
    answers: str = ""

    def encode(self) -> bytes:
        """Return it as it passes the pipe."""
        return msgspec.msgpack.encode(self, enc_hook=str)  # a path

    @staticmethod
    def decode(data: bytes) -> "Plan":
        """Read what `encode` returned."""
        return msgspec.msgpack.decode(data, type=Plan, dec_hook=lambda kind, text: kind(text))

    def requests(self) -> list[Asked]:
        """Return the requests that ask about the images."""
        return requests_of(self.target, self.options, self.images)


def requests_of(target: Target, options: Mapping[str, str], images: Sequence[Image]) -> list[Asked]:
    """Return the requests that ask a target about images; those that are not held are read when they are sent."""
    path = target.question_with(options)

    def request(image: Image) -> Request:
        return Request("POST", path, {"Content-Type": image.content_type}, image.read())

    return [partial(request, image) if image.path else request(image) for image in images]


def records(ids: npt.ArrayLike, values: npt.ArrayLike, extra: npt.ArrayLike = 0) -> bytes:
    """Encode records.

    Args:
        ids: LoadGen's, of the queries.
        values: indices of images on the way out, what became of the queries on the way back.
        extra: `moment()` on the way out. On the way back how late the query was sent, in microseconds; where bodies are
            kept, how long the answer's is, in bytes.
    """
    ids = np.asarray(ids, np.uint64)
    packed = np.zeros(ids.shape, RECORD)
    packed["id"], packed["value"], packed["extra"] = ids, values, extra
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
