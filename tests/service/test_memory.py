"""What a request leaves behind when it is over: nothing that only the garbage collector would find."""

import asyncio
import gc
import time
from base64 import b64encode

import msgspec
import numpy as np
import pytest

from service.engine.job import Job
from service.models.inputs import TensorRows
from service.runtime import Runtime
from service.server import build_server
from service.settings import Settings

BROKEN = b"\xff\xd8\xff" + bytes(1000)


@pytest.fixture(scope="module")
def runtime(models):
    runtime = Runtime(Settings(models=str(models), load="lenet5", watch_s=0, threads=2))
    runtime.repository.load()
    yield runtime
    runtime.stop()


def all_jobs():
    return {id(each) for each in gc.get_objects() if type(each) is Job}


@pytest.fixture
def kept():
    """Counts the jobs of this test that are left, once the worker has let go of its own. Nothing is collected."""
    gc.collect()
    gc.disable()
    others = all_jobs()  # an error of another test may still hold its own

    def count():
        end = time.monotonic() + 1
        while (jobs := all_jobs() - others) and time.monotonic() < end:
            time.sleep(0.01)
        return len(jobs)

    yield count
    gc.enable()


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        (b"image/jpeg", BROKEN, 400),
        (b"application/json", msgspec.json.encode({"images": [b64encode(BROKEN).decode()] * 2}), 200),
    ],
    ids=["one", "several"],
)
def test_images_that_were_refused_are_not_kept(runtime, kept, kind, body, status):
    async def ask():
        app, sent = build_server(runtime, None), []

        bodies = [body]

        async def receive():
            if not bodies:
                await asyncio.Event().wait()  # the client stays
            return {"type": "http.request", "body": bodies.pop()}

        async def send(message):
            sent.append(message)

        path = {"type": "http", "method": "POST", "path": "/v1/classify", "query_string": b""}
        await app(path | {"headers": [(b"content-type", kind)]}, receive, send)
        await asyncio.sleep(0)  # the records are written after the answer
        return sent

    start, _ = asyncio.run(ask())
    assert start["status"] == status
    assert kept() == 0


def test_tensors_that_were_answered_are_not_kept(kept):
    async def make():
        job = Job(TensorRows({"x": np.zeros((2, 3))}, 2), 0.0)
        assert job.input.answer({"y": np.arange(5)}, 1)["y"].tolist() == [1, 2]

    asyncio.run(make())
    assert kept() == 0
