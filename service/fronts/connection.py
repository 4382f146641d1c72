"""A front's connection to an engine, and what its requests are told when there is none."""

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING

from service.errors import Reason, RequestError
from service.fronts.channel import Channel
from service.fronts.memory import EngineMemory
from service.fronts.outbox import Outbox

if TYPE_CHECKING:
    from service.fronts.remote import FrontQueue


_SILENT_S = 1.0  # after which an engine that shows no life gets no work, where another does


class Connection:
    """A connection to the engine. Models belong to it: those of the next engine have other numbers.

    Attributes:
        loop: on which messages are received.
        channel: to receive.
        outbox: to send.
        memory: that the engine writes.
        place: of this front; -1: the engine has not given it one yet.
        queues: of the models that answer, by their number.
        ended: whether it has.
    """

    def __init__(self, channel: Channel, loop: asyncio.AbstractEventLoop) -> None:
        self.ended = False
        self.loop = loop
        self.channel, self.outbox = channel, Outbox(channel, loop)
        self.memory = EngineMemory()
        self.place = -1
        self.queues: dict[int, FrontQueue] = {}

    @property
    def silent(self) -> float:
        """Seconds since the engine last showed that it lives."""
        return perf_counter() - self.memory.values[EngineMemory.ALIVE]

    @property
    def responds(self) -> bool:
        """Whether the engine is there, shows that it lives, and has its device."""
        return not self.ended and self.silent < _SILENT_S and not self.memory.values[EngineMemory.LOST]


def engine_gone() -> RequestError:
    """Return the error of requests while there is no engine."""
    return RequestError(
        Reason.NOT_READY,
        "The engine that runs the models has ended, and is being started again. Try again shortly.",
        retry_after=1,
    )
