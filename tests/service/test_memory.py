"""What a request leaves behind: nothing that only the garbage collector would find, and memory that is used again."""

import asyncio
import gc
import io
import time
from base64 import b64encode
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest
from PIL import Image
from starlette.applications import Starlette

from service.engine.job import Job
from service.models.inputs import TensorRows
from service.runtime import Runtime
from service.server import build_server
from service.settings import Settings
from tests.conftest import serving

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
        app, sent = build_server(runtime, Starlette()), []

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


def pages(processes: list[psutil.Process]) -> int:
    """How many pages these processes were given so far."""
    stats = [Path(f"/proc/{process.pid}/stat").read_text() for process in processes]
    return sum(int(stat.rpartition(")")[2].split()[7]) for stat in stats)


def test_the_pixels_of_an_image_take_the_memory_of_those_before(models, tmp_path, photo):
    """With a small model alone, glibc would give the memory back after each image, and take new pages for the next."""
    data = io.BytesIO()
    Image.open(io.BytesIO(photo("coffee"))).convert("RGB").resize((640, 480)).save(data, "JPEG")
    with serving(tmp_path / "log", ZOOSERVE_MODELS=str(models), ZOOSERVE_LOAD="lenet5") as server:
        server.wait(200)

        def ask(count: int) -> None:
            for _ in range(count):
                assert server.client.post("/v1/classify", content=data.getvalue()).status_code == 200

        ask(100)
        processes = psutil.Process(server.process.pid).children(recursive=True)
        before = pages(processes)
        ask(100)
        assert pages(processes) - before < 100 * 20  # the pixels alone are 225
