"""Waits for one request's jobs until they are done, the deadline has passed, or the client has hung up.

All protocols call it between submitting the jobs and encoding their answers.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from time import perf_counter

from service.engine.job import AnswerT, Job
from service.errors import ClientGone, Reason, RequestError, refusal_of
from service.timers import Entry, queue_of

HungUp = Callable[[], Awaitable[None]]
_WATCH_AFTER = 0.1  # seconds; watching the connections of faster requests would only cost time


async def wait(jobs: Sequence[Job[AnswerT]], deadline: float, hung_up: HungUp | None = None) -> None:
    """Wait until every job is done. Jobs that are not needed any longer are abandoned.

    Args:
        jobs: the submitted jobs.
        deadline: a time of `time.perf_counter()` in seconds. Jobs that are not done by then end with `deadline`.
        hung_up: returns when the client hangs up. Called only if the answer takes longer than a tenth of a second.

    Raises:
        ClientGone: the client hung up.
    """
    loop = asyncio.get_running_loop()
    disconnected = False
    watcher: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | Entry

    def abandon() -> None:
        for job in jobs:
            job.abandon()
            if not job.future.done():
                error = RequestError(Reason.DEADLINE, "The deadline passed before the answer was ready.")
                job.future.set_exception(error)

    async def watch(hung_up: HungUp) -> None:
        nonlocal disconnected
        await hung_up()
        disconnected = True
        abandon()

    def take_longer() -> None:
        nonlocal watcher, timer
        if hung_up is not None:
            watcher = loop.create_task(watch(hung_up))
        timer = loop.call_later(deadline - perf_counter(), abandon)

    left = deadline - perf_counter()
    soon = left <= _WATCH_AFTER
    timer = loop.call_later(left, abandon) if soon else queue_of(loop, _WATCH_AFTER).add(take_longer)
    try:
        for job in jobs:
            with suppress(Exception):  # `outcome` reads it from the job's future
                await job.future
    finally:
        timer.cancel()
        if watcher is not None:
            watcher.cancel()
        for job in jobs:
            job.abandon()  # also if this request's own task was cancelled
    if disconnected:
        raise ClientGone


def outcome(job: Job[AnswerT]) -> AnswerT | RequestError:
    """Return the answer of a job that is done, or its error; see `refusal_of`."""
    error = job.future.exception()
    if error is None:
        return job.future.result()
    refusal = refusal_of(error, "image")
    refusal.forget()
    return refusal
