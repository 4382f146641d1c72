"""What passes between LoadGen's process and its senders, through pipes: a `Plan` once, then fixed-size records."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from loadtests.target import Scheme, Target

Records = npt.NDArray[Any]

# 16 bytes each, so that a write of one record is never torn apart and whole pages hold whole records.
RECORD = np.dtype([("id", "<u8"), ("value", "<u4"), ("extra", "<u4")])
READY = np.uint64(2**64 - 1)  # the `id` of a sender's first record

# What became of a query: an HTTP status, a status of gRPC's from 1000 on, or one of these. 200 means: answered, and
# rightly.
TIMEOUT, BROKEN, WRONG, ABANDONED, UNREADABLE = 1, 2, 3, 4, 5
GRPC = 1000
_NAMES = {
    TIMEOUT: "no answer in time",
    BROKEN: "connection broke",
    WRONG: "wrong answer",
    ABANDONED: "never sent",
    UNREADABLE: "image not readable",
}
_GRPC_NAMES = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)


def outcome_name(outcome: int) -> str:
    """Return the name of what became of a query, such as `429`, `RESOURCE_EXHAUSTED` or `wrong answer`."""
    return _GRPC_NAMES[outcome - GRPC] if outcome >= GRPC else _NAMES.get(outcome, str(outcome))


class Where(Struct, frozen=True):
    """A `Target` in a form that passes a pipe; its fields are those of the target."""

    scheme: Scheme
    host: str
    port: int
    prefix: str
    api_key: str
    ca_file: str | None
    task: str
    model: str
    ip: str

    @classmethod
    def of(cls, target: Target) -> "Where":
        """Take it from a target."""
        fields = {name: getattr(target, name) for name in cls.__struct_fields__ if name != "ca_file"}
        return cls(**fields, ca_file=str(target.ca_file) if target.ca_file else None)

    def target(self) -> Target:
        """Make the target again."""
        fields = {name: getattr(self, name) for name in self.__struct_fields__ if name != "ca_file"}
        return Target(**fields, ca_file=Path(self.ca_file) if self.ca_file else None)


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
        where: the server.
        options: of every request, such as `top_k`.
        images: by their index.
        connections: how many queries may be under way.
        timeout: seconds after which an answer is no longer waited for.
        answers: a file for the bodies of all answers, one behind the other, in the order of the records; empty: bodies
            are compared with those of the first time instead.
    """

    where: Where
    options: dict[str, str]
    images: list[Image]
    connections: int
    timeout: float
    answers: str = ""


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
