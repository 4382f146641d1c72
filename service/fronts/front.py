"""A front, as the engine sees it: a connection, and the jobs that it waits for."""

import asyncio
import logging
import struct
from collections.abc import Callable
from typing import cast

import msgspec

from service.arrays import Tensors
from service.engine.job import Jobs
from service.errors import RequestError, refusal_of
from service.fronts.channel import Buffer, Channel, Kind
from service.fronts.messages import ANSWER, DONE, Failure
from service.fronts.outbox import Outbox
from service.fronts.rows import RemoteJob
from service.fronts.tensors import pack

logger = logging.getLogger(__name__)
_READS_S = 5.0  # in which a front must read a message
_encode = msgspec.json.Encoder().encode


class Front:
    """A front that is connected.

    Attributes:
        place: of it; -1: it waits for one.
        jobs: that it waits for, by the number of their model and their own.
        told: what it was told last of each model.
        followed: the number of the last table that it has followed.
        parted: whether nothing is sent to it any more. It may still write its rows, until it ends the connection.
        gone: whether it has ended the connection.
        left: whether its place has been given back.
    """

    def __init__(self, channel: Channel, end: Callable[["Front"], None]) -> None:
        self.channel = channel
        self.place = -1
        self.jobs: dict[tuple[int, int], RemoteJob] = {}
        self.told: dict[str, bytes] = {}
        self.followed = 0
        self.parted = self.gone = self.left = False
        self._end = end
        self._outbox = Outbox(channel, asyncio.get_running_loop())

    def done(self, model: int, jobs: Jobs) -> None:
        """Tell it that rows were run."""
        first = cast(RemoteJob, jobs[0])
        rows = struct.pack(f"<{len(jobs)}I", *[cast(RemoteJob, job).number for job in jobs])
        message = DONE.pack(Kind.DONE, first.threads, model, first.batch_size, first.run, first.ran) + rows
        self._try(lambda: self._outbox.send(message))

    def answer(self, model: int, job: RemoteJob, outputs: Tensors) -> None:
        """Send it the outputs of one job."""
        head = ANSWER.pack(model, job.number, job.batch_size, job.threads, job.run, job.ran)
        self.send(Kind.ANSWER, [head, *pack(outputs)])

    def settled(self, model: int, job: RemoteJob) -> None:
        """Tell it the error of a job, and forget the job."""
        key = model, job.number
        if self.jobs.get(key) is job:  # else the front has the outputs, and has sent the next image in that row
            del self.jobs[key]
        if job.error is not None:
            self.fail(model, job.number, job.error)
        if self.gone and not self.jobs:
            self._end(self)

    def late(self, model: int, job: RemoteJob, error: RequestError) -> None:
        """Tell it that the run of a job takes too long, and is not over."""
        self.fail(model, job.number, error, over=False)

    def fail(self, model: int, number: int, error: BaseException, *, over: bool = True) -> None:
        """Tell it why a job failed."""
        refusal = refusal_of(error, "input")
        failure = Failure(model, number, refusal.reason, refusal.detail, refusal.retry_after, over)
        self.send(Kind.FAILED, [_encode(failure)])
        refusal.forget()

    def send(self, kind: Kind, parts: list[Buffer], files: list[int] | None = None) -> None:
        """Send it a message, now or when it has read others."""
        self._try(lambda: self._outbox.send_body(kind, parts, files or []))

    def look(self) -> None:
        """Disconnect it if it does not read. On the event loop."""
        if not self.parted and self._outbox.stalled > _READS_S:
            logger.error("front %d does not read its messages and is disconnected", self.place)
            self.part()

    def part(self) -> None:
        """Send nothing any more, and let it end the connection."""
        self.parted = True
        self.channel.part()

    def lose(self) -> None:
        """Send nothing any more: it has ended. On the event loop."""
        self.parted = self.gone = True
        self._outbox.close()
        self.channel.end()

    def _try(self, send: Callable[[], None]) -> None:
        """Send something, or part from the front: then what it waits for fails, and does not wait for ever."""
        if self.parted:
            return
        try:
            send()
        except ConnectionError:  # it has ended, which `receive` tells as well
            self.part()
        except OSError:  # there are no descriptors left, for example
            logger.exception("front %d is disconnected", self.place)
            self.part()
