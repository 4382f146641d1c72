"""The bodies of the messages between fronts and the engine. What is sent for every image has a fixed form."""

import struct

import msgspec
from msgspec import Raw, Struct

from service.engine.profile import Profile
from service.errors import Reason, RequestError
from service.fronts.memory import Layout
from service.models.entry import ModelEntry, State
from service.models.footprint import Footprint
from zoo.served_card import AnyServed, decode_served_card

READY = struct.Struct("<BBxxIId")
"""A job may be run: kind, priority, number of the model, of the row or the request, deadline (`perf_counter`)."""
DONE = struct.Struct("<BxHIIdd")
"""Rows were run: kind, threads, number of the model, size of the batch, begin and end of the run; the rows follow."""
TENSORS = struct.Struct("<IIdB7x")
"""Before the tensors of a request: number of the model, of the request, deadline, priority."""
ANSWER = struct.Struct("<IIIHxxdd")
"""Before the tensors of an answer: number of the model, of the row or request, size of the batch, threads, the run."""
GIVEN_UP = struct.Struct("<BxxxII")
"""Nobody waits for a request of tensors any more: kind, number of the model, of the request."""
FOLLOWED = struct.Struct("<BxxxI")
"""A table was followed: kind, its number."""
REQUESTS = 1 << 31
"""The first number of a request of tensors; smaller numbers are rows."""


class Welcome(Struct, frozen=True):
    """The engine's first message, with the descriptor of its memory: the place of the front, from 0."""

    place: int


class ServedModel(Struct, frozen=True):
    """A model that answers. The message has a descriptor of its memory."""

    number: int
    folder: str
    card: Raw
    provider: str
    profile: Profile
    layout: Layout


class EntryState(Struct, frozen=True):
    """The state of a model of the store, see `ModelEntry`; `card` is that of the entry, or null."""

    name: str
    state: State
    reason: str
    refused: str
    awaited: bool
    pinned: bool
    footprint: Footprint
    folder: str
    version: str
    card: Raw
    model: ServedModel | None = None


class Table(Struct, frozen=True):
    """What has changed among the models, in one message or several of the same number.

    Attributes:
        names: of all models, in order.
        changed: entries that are new or differ from what the front was told last.
        problem: see `Registry`.
    """

    number: int
    names: list[str]
    changed: list[EntryState]
    problem: str = ""


class Failure(Struct, frozen=True):
    """A job that failed: the number of its model, and of its row or request.

    Attributes:
        over: whether the engine is done with it. If not, its run takes too long, and may still use the row.
    """

    model: int
    number: int
    reason: Reason
    detail: str
    retry_after: float | None = None
    over: bool = True


class Call(Struct, frozen=True):
    """Something that the engine is asked to do with a model, or with all; `follow`: what others were asked for."""

    number: int
    what: str
    name: str | None = None
    deadline: float = 0.0
    held: list[str] = []


class Reply(Struct, frozen=True):
    """The end of a call: what it returned, or why it was refused."""

    number: int
    result: bool = False
    reason: Reason | None = None
    detail: str = ""
    retry_after: float | None = None


def entry_state(entry: ModelEntry, model: ServedModel | None) -> EntryState:
    """Describe an entry of the engine's repository."""
    card, stored = entry.card, entry.stored
    return EntryState(
        entry.name,
        entry.state,
        entry.reason,
        entry.refused,
        entry.awaited,
        entry.pinned,
        entry.footprint,
        str(stored.path),
        stored.version,
        Raw(msgspec.json.encode(card)),
        model,
    )


def card_of(raw: Raw) -> AnyServed | None:
    """Decode the card of a message."""
    data = bytes(raw)
    return None if data == b"null" else decode_served_card(data)


def error_of(message: Failure | Reply) -> RequestError:
    """Return the error that a message tells."""
    return RequestError(message.reason or Reason.INTERNAL, message.detail, retry_after=message.retry_after)
