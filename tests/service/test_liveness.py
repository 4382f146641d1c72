"""When only a restart helps, the process says so: a run that never ends, a device that is lost."""

import asyncio
import json
import threading
import time

import numpy as np
import pytest

from service.engine.device_errors import BrokenDeviceError
from service.engine.session import Session
from service.errors import Reason
from service.health import Health
from service.http.ops.probes import Probes
from service.predictor import deadline_after
from service.runtime import Runtime
from service.settings import Settings
from service.tasks import options_of

LOST_DEVICE = "CUDA failure 700: an illegal memory access was encountered ; GPU=0"


@pytest.fixture
def runtime(models):
    runtime = Runtime(Settings(models=str(models), load="lenet5", watch_s=0, threads=2, stuck_s=0.3))
    runtime.repository.load()
    yield runtime
    runtime.stop()


async def ask(probes: Probes, probe: str) -> tuple[int, dict]:
    response = await getattr(probes, probe)(None)
    return response.status_code, json.loads(response.body)


async def classify(runtime, photo: bytes):
    model = runtime.repository.get("classify", "lenet5")
    image = runtime.predictor.image(photo, model, options_of("classify", {}))
    return await runtime.predictor.submit(image, model, deadline_after(30_000)).future


def replace_run(runtime, run) -> None:
    runtime.repository.entries["lenet5"].model.batcher._runs_on = {1: run}


def test_a_run_that_never_ends_makes_the_process_not_live(runtime, photo):
    release = threading.Event()
    real = runtime.repository.entries["lenet5"].model.session.run

    def stuck(images):
        release.wait(30)
        return real(images)

    async def scenario():
        probes = Probes(runtime, Health(runtime))
        assert await ask(probes, "livez") == (200, {"alive": True})
        replace_run(runtime, stuck)
        asked = asyncio.ensure_future(classify(runtime, photo("digit_7")))
        await asyncio.sleep(0.1)
        assert (await ask(probes, "livez"))[0] == 200
        end = time.monotonic() + 10
        while (await ask(probes, "livez"))[0] == 200:
            assert time.monotonic() < end
            await asyncio.sleep(0.05)
        assert "one run has not ended" in (await ask(probes, "livez"))[1]["problem"]
        release.set()
        assert (await asked).predictions[0].label == "7"
        await asyncio.sleep(0.1)
        assert (await ask(probes, "livez"))[0] == 200

    asyncio.run(scenario())


def test_a_lost_device_makes_it_not_ready_with_the_reason(runtime, photo):
    rows = []

    def broken(inputs):
        rows.append(len(inputs["images"]))
        raise BrokenDeviceError(LOST_DEVICE)

    async def scenario():
        probes = Probes(runtime, Health(runtime))
        replace_run(runtime, broken)
        answers = await asyncio.gather(*(classify(runtime, photo("digit_7")) for _ in range(8)), return_exceptions=True)
        assert {(answer.reason, answer.retry_after) for answer in answers} == {(Reason.NOT_READY, 1)}
        assert sum(rows) == 8, "nothing is tried again"
        for probe in ("readyz", "livez"):
            code, body = await ask(probes, probe)
            assert code == 503
            assert "illegal memory access" in body["problem"]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (LOST_DEVICE, BrokenDeviceError),
        ("CUDA error cudaErrorAssert: device-side assert triggered", BrokenDeviceError),
        ("CUDA failure 2: out of memory ; GPU=0", MemoryError),
        ("Failed to allocate memory for requested buffer of size 2147483648", MemoryError),
        ("Non-zero status code returned while running Conv node", RuntimeError),
    ],
)
def test_what_an_error_of_onnx_runtime_means(models, message, kind):
    session = Session(models / "lenet5" / "1" / "model.onnx", "cpu")

    class Fails:
        def run(self, *_):
            raise RuntimeError(message)

    session._session = Fails()
    with pytest.raises(kind) as error:
        session.run({"images": np.zeros((1, 28, 28, 3), np.uint8)})
    assert type(error.value) is kind
