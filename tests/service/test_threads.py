"""Threads by what they are for: one kind of work waits for its own only."""

import asyncio
import threading

from service.threads import LOADING, METRICS, Threads


def test_one_kind_of_work_does_not_wait_for_another():
    over = threading.Event()

    async def scene() -> None:
        slow = [asyncio.create_task(LOADING.run(over.wait)) for _ in range(50)]
        tensors = [asyncio.create_task(asyncio.to_thread(over.wait)) for _ in range(100)]
        await asyncio.sleep(0.05)
        async with asyncio.timeout(10):
            assert await METRICS.run(lambda: 5) == 5
            assert await Threads(1, "another").run(int, "7", base=8) == 7
        over.set()
        await asyncio.gather(*slow, *tensors)

    try:
        asyncio.run(scene())
    finally:
        over.set()
