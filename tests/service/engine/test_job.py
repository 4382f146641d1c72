"""Whatever is raised while a job is done is its error, and that of no other."""

import asyncio
from time import perf_counter

import pytest

from service.engine.assembly import Concatenation
from service.engine.calls import Call, Calls
from service.engine.job import Input, Job
from service.engine.workers import Workers
from service.limits import PixelMemory


class Panic(BaseException):
    """What a library in Rust raises when it panics."""


class Raising(Input[int]):
    def __init__(self, error: BaseException | None) -> None:
        self.error = error

    def answer(self, outputs, row) -> int:
        if self.error is not None:
            raise self.error
        return row


def job(error: BaseException | None) -> Job[int]:
    return Job(Raising(error), perf_counter() + 60)


@pytest.mark.parametrize("error", [ValueError("broken"), Panic("broken"), StopIteration("broken")])
def test_an_error_of_any_kind_reaches_who_waits(error):
    async def main() -> None:
        jobs = [job(None), job(error), job(None)]
        Concatenation().answer(jobs, {}, 3)
        for one in jobs:
            one.settle()
        first, found, last = await asyncio.gather(*[one.future for one in jobs], return_exceptions=True)
        assert (first, last) == (3, 5)
        assert isinstance(found, Exception)
        assert error in (found, found.__cause__)

    asyncio.run(main())


def test_a_panic_in_a_call_ends_that_call():
    def panics() -> int:
        raise Panic("broken")

    async def main() -> None:
        workers = Workers(1)
        try:
            calls = Calls(workers, PixelMemory(1000))
            jobs = [Job(Call("decode", work), perf_counter() + 60) for work in (panics, lambda: 7)]
            for one in jobs:
                calls.submit(one)
            async with asyncio.timeout(10):
                found, answer = await asyncio.gather(*[one.future for one in jobs], return_exceptions=True)
            assert isinstance(found, RuntimeError)
            assert answer == 7
        finally:
            workers.close()

    asyncio.run(main())
