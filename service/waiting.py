"""Waiting for the answers to one request's jobs: until they are there, the deadline passed, or the client hung up.

The endpoints of HTTP and the dataplane of the Open Inference Protocol wait here.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from time import perf_counter
from typing import Any

from service.engine.job import Job
from service.errors import Reason, RequestError

logger = logging.getLogger(__name__)
_WATCH_AFTER = 0.02  # seconds; a request that is answered sooner never pays for watching its connection


async def wait(
    jobs: Sequence[Job[Any]], deadline: float, hung_up: Callable[[], Coroutine[Any, Any, None]] | None = None
) -> bool:
    """Wait until every job is settled, the deadline passed, or the client hung up; whoever is cancelled abandons them.

    Args:
        jobs: that were submitted.
        deadline: theirs.
        hung_up: returns when the client hangs up; asked only where the answer takes its time.

    Returns:
        Whether the client hung up; its jobs are abandoned.
    """
    loop = asyncio.get_running_loop()
    gone = False
    watcher: asyncio.Task[None] | None = None

    def start_watching() -> None:
        nonlocal watcher
        if hung_up is not None:
            watcher = loop.create_task(watch(hung_up))

    async def watch(hung_up: Callable[[], Coroutine[Any, Any, None]]) -> None:
        nonlocal gone
        await hung_up()
        gone = True
        give_up()

    def give_up() -> None:
        for job in jobs:
            job.abandoned = True
            if not job.future.done():
                error = RequestError(Reason.DEADLINE, "The deadline passed before the answer was ready.")
                job.future.set_exception(error)

    timers = (loop.call_later(_WATCH_AFTER, start_watching), loop.call_later(deadline - perf_counter(), give_up))
    try:
        for job in jobs:
            with suppress(Exception):  # `outcome` reads it from the job's future
                await job.future
    finally:
        for timer in timers:
            timer.cancel()
        if watcher is not None:
            watcher.cancel()
        for job in jobs:
            job.abandoned = True  # also where this request's own task was cancelled
    return gone


def outcome(job: Job[Any]) -> Any:
    """What became of a job that was waited for. What is no refusal is a fault of ours: it is logged, not told."""
    error = job.future.exception()
    if error is None:
        return job.future.result()
    if isinstance(error, RequestError):
        error.forget()
        return error
    logger.error("a picture failed", exc_info=error)
    return RequestError(Reason.INTERNAL, "The server failed on this picture; its log says why.")
