"""Messages between fronts and the engine: bursts of them, those that cannot be sent, and what nobody waits for."""

import asyncio
import errno
import socket
import threading
from contextlib import contextmanager

import numpy as np
import pytest

from service.engine.calls import Calls
from service.engine.job import Job
from service.errors import Reason, RequestError
from service.fronts import link as link_module
from service.fronts import outbox
from service.fronts.channel import Kind, packed
from service.limits import PixelMemory
from service.models.composite import Queued
from service.models.inputs import EncodedImage, TensorRows
from service.predictor import deadline_after
from tests.service.fronts.side import outcomes, sides, slow, submit, until

_MANY = 600


@pytest.fixture(scope="module")
def gru(mixed_store):
    """An engine and a front with a model of tensors."""
    with sides(mixed_store, 1, load="gru", max_batch=8, max_queue=2 * _MANY) as (engine, (front,)):
        yield engine, front


def ask_gru(front, count: int, rows: int = 1) -> list[Job]:
    model = front.registry.find("gru")
    given = {"x": np.zeros((rows, 6, 8), np.float32)}
    return [front.predictor.submit(TensorRows(given, rows), model, deadline_after(30_000)) for _ in range(count)]


def gated(engine, name: str, monkeypatch) -> tuple[threading.Event, list[int]]:
    """Let each run of a model wait for an event; also return the sizes of its batches, as they come."""
    batcher, event, sizes = engine.models.repository.find(name).batcher, threading.Event(), []
    run = batcher._runs_on[1]

    def waits(inputs):
        sizes.append(len(next(iter(inputs.values()))))
        event.wait(20)
        return run(inputs)

    monkeypatch.setattr(batcher, "_runs_on", dict.fromkeys(batcher._runs_on, waits))
    return event, sizes


@contextmanager
def asleep(loop):
    """An event loop that does nothing meanwhile, as one that has much to do."""
    begun, end = threading.Event(), threading.Event()

    def sleeps() -> None:
        begun.set()
        end.wait(20)

    loop.call_soon_threadsafe(sleeps)
    begun.wait(20)
    yield
    end.set()


@pytest.mark.parametrize("busy", ["front", "engine"])
def test_more_messages_than_a_socket_holds_wait(gru, busy):
    """Of the answers, where the front reads none, and of the requests, where the engine does."""
    engine, front = gru
    link = front.registry.links[0]
    before = link.connection

    async def ask() -> list:
        with asleep(link._loop if busy == "front" else engine.loop):
            jobs = ask_gru(front, _MANY)
            await asyncio.sleep(1.5)
        return await outcomes(jobs)

    found = asyncio.run(ask())
    assert {type(each) for each in found} == {dict}
    assert link.connection is before
    assert front.registry.find("gru").batcher.pending == 0


def test_a_front_that_reads_nothing_is_disconnected(gru, monkeypatch):
    engine, front = gru
    monkeypatch.setattr("service.fronts.front._READS_S", 0.2)
    link = front.registry.links[0]
    before = link.connection
    (seated,) = engine.engine._seated
    seated.channel._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # a few answers fill it

    async def ask() -> list:
        with asleep(link._loop):
            jobs = ask_gru(front, _MANY)
            await asyncio.to_thread(until, lambda: seated.parted)
        return await outcomes(jobs)

    assert {found.reason for found in asyncio.run(ask()) if isinstance(found, RequestError)} == {Reason.NOT_READY}
    until(lambda: link.connection not in {before, None} and front.registry.ready)


def test_an_answer_that_cannot_be_sent_fails_its_request(gru, monkeypatch):
    _, front = gru

    def no_files(kind, parts):
        if kind == Kind.ANSWER:
            raise OSError(errno.EMFILE, "Too many open files")
        return packed(kind, parts)

    monkeypatch.setattr(outbox, "packed", no_files)

    async def ask() -> list:
        return await outcomes(ask_gru(front, 3))

    assert {found.reason for found in asyncio.run(ask())} == {Reason.NOT_READY}
    monkeypatch.undo()
    until(lambda: front.registry.ready)
    assert asyncio.run(ask())[0].keys()


def test_many_rows_do_not_count_as_many_images(gru, monkeypatch):
    engine, front = gru
    event, _ = gated(engine, "gru", monkeypatch)

    async def ask() -> float:
        jobs = ask_gru(front, 1, rows=20_000)
        wait = front.workers.predicted_wait()
        event.set()
        await outcomes(jobs)
        return wait

    assert asyncio.run(ask()) < 2  # two milliseconds each would be 40 s


def test_tensors_that_nobody_waits_for_are_not_run(gru, monkeypatch):
    engine, front = gru
    event, sizes = gated(engine, "gru", monkeypatch)

    async def ask() -> None:
        jobs = ask_gru(front, 10, rows=8)
        (seated,) = engine.engine._seated
        await asyncio.to_thread(until, lambda: len(seated.jobs) == 10)
        for job in jobs:
            job.abandon()
        await asyncio.to_thread(until, lambda: all(job.abandoned for job in list(seated.jobs.values())))
        event.set()
        await outcomes(jobs)

    asyncio.run(ask())
    assert sum(sizes) <= 16


def test_parts_that_nobody_waits_for_are_not_run(digits, digit, monkeypatch):
    with sides(digits, 1, max_batch=2, run_threads=1) as (engine, (front,)):
        event, sizes = gated(engine, "lenet5", monkeypatch)

        async def ask() -> None:
            model = front.registry.find("lenet5")
            image = front.predictor.input(digit, model, front.predictor.options(model, {}))
            whole = Job(image, deadline_after(20_000))
            steps = Queued(whole, Calls(front.workers, PixelMemory(10**9)))
            parts = asyncio.create_task(steps.ask(model, [image] * 12))
            await asyncio.sleep(0.5)
            whole.abandon()
            event.set()
            await parts

        asyncio.run(ask())
        assert sum(sizes) <= 4


def decode_until(event: threading.Event, monkeypatch) -> None:
    """Let the next image be decoded until an event."""
    write = EncodedImage.write

    def writes(image, row, **jpegs):
        monkeypatch.setattr(EncodedImage, "write", write)
        event.wait(20)
        return write(image, row, **jpegs)

    monkeypatch.setattr(EncodedImage, "write", writes)


def test_rows_are_not_given_to_a_new_connection_while_a_thread_writes_them(digits, digit, monkeypatch):
    with sides(digits, 1) as (engine, (front,)):
        link, written = front.registry.links[0], threading.Event()

        async def ask() -> None:
            model, before = front.registry.find("lenet5"), link.connection
            image = front.predictor.input(digit, model, front.predictor.options(model, {}))
            decode_until(written, monkeypatch)
            old = front.predictor.submit(image, model, deadline_after(20_000))
            await asyncio.sleep(0.1)
            engine.call(lambda: [each.channel.end() for each in engine.engine._seated])
            await asyncio.sleep(4 * link_module._AGAIN_S)
            assert link.connection is None, "it has the row in which the old image is still written"
            written.set()
            with pytest.raises(RequestError) as lost:
                await old.future
            assert lost.value.reason is Reason.NOT_READY
            await asyncio.to_thread(until, lambda: link.connection not in {before, None} and front.registry.ready)
            assert (await submit(front, digit).future).predictions[0].label == "7"

        asyncio.run(ask())


def test_a_process_whose_thread_never_gives_its_row_back_ends(digits, digit, monkeypatch):
    ended, written = threading.Event(), threading.Event()

    def end(code: int) -> None:
        ended.set()
        written.set()
        assert code == 1

    monkeypatch.setattr(link_module, "_HELD_S", 0.2)
    monkeypatch.setattr(link_module.os, "_exit", end)
    with sides(digits, 1) as (engine, (front,)):

        async def ask() -> None:
            model = front.registry.find("lenet5")
            image = front.predictor.input(digit, model, front.predictor.options(model, {}))
            decode_until(written, monkeypatch)
            old = front.predictor.submit(image, model, deadline_after(20_000))
            await asyncio.sleep(0.1)
            engine.call(lambda: [each.channel.end() for each in engine.engine._seated])
            await asyncio.to_thread(ended.wait, 10)
            await outcomes([old])

        asyncio.run(ask())
    assert ended.is_set()


def test_a_place_is_given_back_once(digits, digit, monkeypatch):
    with sides(digits, 1) as (engine, (front,)):
        slow(engine, monkeypatch, 0.3)
        (seated,) = engine.engine._seated

        async def ask() -> None:
            jobs = [submit(front, digit) for _ in range(2)]
            await asyncio.sleep(0.1)
            front.registry.close()
            await outcomes(jobs)

        asyncio.run(ask())
        until(lambda: seated.left)
        engine.call(engine.engine._leave, seated)
        assert engine.engine._places == [0]


def test_a_job_that_waits_without_a_row_keeps_no_front_from_connecting_again(digits, digit):
    with sides(digits, 1) as (engine, (front,)):
        link, busy = front.registry.links[0], threading.Event()

        async def ask() -> None:
            queue, before = front.registry.find("lenet5").batcher, link.connection
            front.workers.hand_over(queue, (), lambda: busy.wait(20))  # the only thread
            waits = submit(front, digit)
            engine.call(lambda: [each.channel.end() for each in engine.engine._seated])
            await asyncio.to_thread(until, lambda: link.connection not in {before, None} and front.registry.ready)
            assert queue.pending == 1
            busy.set()
            assert isinstance((await outcomes([waits]))[0], RequestError)
            assert (await submit(front, digit).future).predictions[0].label == "7"

        asyncio.run(ask())


def test_tensors_that_are_given_up_while_they_are_packed_are_not_run(gru, monkeypatch):
    engine, front = gru
    event, sizes = gated(engine, "gru", monkeypatch)
    packing, go_on = threading.Event(), threading.Event()

    def slow_packed(kind, parts):
        if kind == Kind.TENSORS:
            packing.set()
            go_on.wait(20)
        return packed(kind, parts)

    async def ask() -> None:
        first = ask_gru(front, 1, rows=8)
        await asyncio.to_thread(until, lambda: sizes)
        monkeypatch.setattr(outbox, "packed", slow_packed)
        late = ask_gru(front, 1, rows=8)
        await asyncio.to_thread(packing.wait, 20)
        late[0].abandon()
        go_on.set()
        (seated,) = engine.engine._seated
        await asyncio.to_thread(until, lambda: any(job.abandoned for job in list(seated.jobs.values())))
        event.set()
        await outcomes([*first, *late])

    asyncio.run(ask())
    assert sizes == [8]
