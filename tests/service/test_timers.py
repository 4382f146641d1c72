"""Timers that cost little: they call at their time, and not before, and not at all once they are cancelled."""

import asyncio
import gc
import weakref

import pytest
import uvloop

from service.timers import Alarm, Queue, queue_of

LOOPS = pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])


def run(new_loop, main) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())


class Calls:
    """Notes when it was called, in seconds since it was made."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._begin = self._loop.time()
        self.at: list[float] = []

    def __call__(self) -> None:
        self.at.append(self._loop.time() - self._begin)


@LOOPS
@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([(0, 0.05)], [0.05]),
        ([(0, 0.2), (0, 0.05)], [0.05]),  # to an earlier time
        ([(0, 0.05), (0.03, 0.1)], [0.13]),  # to a later one
        ([(0, 0.05), (0.03, None)], []),
        ([(0, 0.05), (0.02, None), (0.02, 0.1)], [0.14]),
        ([(0, 0.05), (0.1, 0.05)], [0.05, 0.15]),  # again
        ([(0, None)], []),
    ],
    ids=str,
)
def test_an_alarm_calls_once_at_the_last_time_that_was_set(new_loop, steps, expected):
    async def main() -> None:
        calls = Calls()
        alarm = Alarm(asyncio.get_running_loop(), calls)
        for wait, seconds in steps:
            await asyncio.sleep(wait)
            if seconds is None:
                alarm.clear()
            else:
                alarm.set(seconds)
            assert alarm.is_set == (seconds is not None)
        await asyncio.sleep(0.3)
        assert calls.at == pytest.approx(expected, abs=0.05)
        assert all(at > due - 0.002 for at, due in zip(calls.at, expected, strict=True))
        assert not alarm.is_set

    run(new_loop, main)


@LOOPS
def test_an_alarm_that_has_ended_calls_nothing_and_keeps_nobody(new_loop):
    class Owner:
        def __init__(self) -> None:
            self.alarm = Alarm(asyncio.get_running_loop(), self.call)

        def call(self) -> None:
            raise AssertionError("it was called")

    async def main() -> None:
        owner = Owner()
        there = weakref.ref(owner)
        owner.alarm.set(0.01)
        owner.alarm.end()
        gc.disable()
        try:
            del owner
            assert there() is None
        finally:
            gc.enable()
        await asyncio.sleep(0.05)

    run(new_loop, main)


def test_an_alarm_that_is_set_for_each_request_makes_few_timers_of_the_loop():
    async def main() -> None:
        loop, made = asyncio.get_running_loop(), 0
        call_at = loop.call_at

        def counted(*args, **more):
            nonlocal made
            made += 1
            return call_at(*args, **more)

        loop.call_at = counted
        alarm, queue = Alarm(loop, Calls()), Queue(loop, 0.05)
        for _ in range(1000):
            alarm.set(0.1)
            queue.add(Calls()).cancel()
            alarm.clear()
        await asyncio.sleep(0.2)
        assert made < 10

    run(asyncio.new_event_loop, main)


@LOOPS
def test_a_queue_calls_each_after_its_time_and_none_that_was_cancelled(new_loop):
    async def main() -> None:
        queue, calls = Queue(asyncio.get_running_loop(), 0.05), [Calls() for _ in range(6)]
        for number, call in enumerate(calls):
            entry = queue.add(call)
            if number % 2:
                entry.cancel()
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.1)
        for number, call in enumerate(calls):
            assert call.at == ([] if number % 2 else [pytest.approx(0.02 * number + 0.05, abs=0.04)])

    run(new_loop, main)


@LOOPS
def test_what_is_cancelled_by_another_at_the_same_time_is_not_called(new_loop):
    async def main() -> None:
        queue, calls = Queue(asyncio.get_running_loop(), 0.02), Calls()
        others = []
        queue.add(lambda: [other.cancel() for other in others])
        others.append(queue.add(calls))
        await asyncio.sleep(0.1)
        assert calls.at == []

    run(new_loop, main)


def test_an_error_of_one_leaves_the_others(caplog):
    async def main() -> None:
        queue = Queue(asyncio.get_running_loop(), 0.02)
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        queue.add(lambda: 1 / 0)
        calls = Calls()
        queue.add(calls)
        await asyncio.sleep(0.05)
        queue.add(calls)
        await asyncio.sleep(0.05)
        assert len(calls.at) == 2

    run(asyncio.new_event_loop, main)


def test_each_loop_has_a_queue_for_a_time():
    async def main() -> tuple[Queue, Queue]:
        loop = asyncio.get_running_loop()
        assert queue_of(loop, 1.0) is queue_of(loop, 1.0)
        return queue_of(loop, 1.0), queue_of(loop, 2.0)

    first, second = asyncio.run(main()), asyncio.run(main())
    assert len({id(queue) for queue in (*first, *second)}) == 4
