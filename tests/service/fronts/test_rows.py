"""Rows: who waits for one, who is told that a run takes too long, and models whose unloading is given up."""

import asyncio
import contextlib
from heapq import heappop
from unittest.mock import Mock

import pytest

from service.engine.job import Job, Priority
from service.fronts.rows import ROW, RemoteJob


def test_who_waits_for_a_row_stays_before_those_who_came_later(two):
    queue = two[1][0].registry.find("lenet5").batcher
    free, queue._free = queue._free, []

    async def wait() -> list[bool]:
        jobs = [Job(ROW, 0.0, Priority.NORMAL) for _ in range(4)]
        high = Job(ROW, 0.0, Priority.HIGH)
        assert not any(queue._take_row(job) for job in [*jobs, high])
        assert heappop(queue._without)[-1] is high
        first = heappop(queue._without)[-1]
        assert not queue._take_row(first)  # another one had taken the row that became free
        return [heappop(queue._without)[-1] is job for job in jobs]

    assert all(asyncio.run(wait()))
    queue._free = free


@pytest.mark.parametrize("finished", [False, True])
def test_a_front_is_told_of_a_late_run_only_while_it_lasts(finished):
    """Afterwards its row may have the next image."""

    async def run() -> Mock:
        front = Mock()
        job = RemoteJob(ROW, 0.0, Priority.NORMAL, front, 1, 2)
        if finished:
            job.succeed(None)
        job.time_out()
        return front

    assert asyncio.run(run()).late.called != finished


def test_a_model_whose_unloading_is_given_up_goes_on_answering(two):
    engine, (one, _) = two
    usage, seen = engine.models.repository.find("lenet5").usage, one.registry.find("lenet5").usage

    async def give_up() -> None:
        closing = asyncio.create_task(usage.close())
        await asyncio.sleep(0)
        assert seen.closing
        closing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await closing

    asyncio.run(give_up())
    assert not seen.closing
