"""The rows of an image buffer: who gets which, and who waits for one."""

import asyncio

from service.engine.assembly import ImageBuffer
from service.engine.job import Priority
from tests.service.engine.test_batcher import job


def test_the_first_free_row_is_taken_and_given_to_who_waits():
    async def main():
        buffer, jobs = ImageBuffer(3, 2, (1, 1, 3)), [job(value) for value in range(5)]
        jobs[4].priority = Priority.HIGH
        assert buffer.rows.shape == (5, 1, 1, 3)
        assert [buffer.take(one) for one in jobs] == [True, True, True, False, False]
        assert [one.row for one in jobs] == [0, 1, 2, -1, -1]
        assert buffer.free(1) is jobs[4]
        assert buffer.free(0) is jobs[3]
        assert [one.row for one in jobs[3:]] == [0, 1]
        assert buffer.take(jobs[3])
        assert buffer.free(1) is buffer.free(0) is None
        assert buffer.take(last := job(9))
        assert last.row == 0

    asyncio.run(main())
