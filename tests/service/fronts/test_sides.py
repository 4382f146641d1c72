"""What fronts and the engine do together: the same answers as one process, and nothing that one loses harms another."""

import asyncio
import os
from functools import partial
from time import sleep

import numpy as np
import pytest

from service.engine.calls import Calls
from service.engine.job import Job, Priority
from service.engine.lanes import Lanes
from service.engine.providers import CUDA
from service.errors import Reason, RequestError
from service.fronts import rows
from service.limits import PixelMemory
from service.models import model as model_module
from service.models import on_gpu
from service.models.inputs import TensorRows
from service.predictor import Predictor, deadline_after
from tests.service.engine.host import Host
from tests.service.fronts.side import FrontSide, outcomes, sides, slow, submit, until


@pytest.mark.parametrize(
    ("name", "photo", "options"),
    [
        ("lenet5", "lenet5/1/golden/digit_7.png", {"top_k": "3"}),
        ("mobilenet_v2", "mobilenet_v2/1/golden/coffee.png", {"localize": "true"}),
        ("yolov4_tiny", "mobilenet_v2/1/golden/coffee.png", {"score_threshold": "0.3"}),
        ("yolov4_tiny", "mobilenet_v2/1/golden/coffee.png", {"tiles": "300x300"}),
        ("u2netp", "mobilenet_v2/1/golden/coffee.png", {"mask": "rle"}),
        ("deeplabv3_mobilenet_v2", "mobilenet_v2/1/golden/coffee.png", {}),
    ],
)
def test_answers_are_those_of_one_process(all_models, models, name, photo, options):
    engine, (front, other) = all_models
    data = (models / photo).read_bytes()
    here = Predictor(engine.models.repository, engine.settings, Calls(engine.workers, PixelMemory(10**9)))
    expected = here.predict(data, engine.models.repository.find(name), options)

    async def ask() -> list:
        return await outcomes([submit(side, data, name=name, **options) for side in (front, other, front)])

    assert asyncio.run(ask()) == [expected] * 3
    assert expected.predictions


@pytest.fixture(scope="module")
def all_models(models):
    with sides(models, 2, run_threads=1, max_batch=1) as both:
        yield both


def test_the_engine_takes_the_memory_of_all_images_at_once(all_models):
    """Pages lie in the NUMA node of the process that writes to them first."""
    memory = all_models[0].models.repository.find("yolov4_tiny").assembly.memory
    assert os.fstat(memory.file).st_blocks * 512 >= memory.images.nbytes


@pytest.mark.parametrize("rows", [1, 3, 2000])
def test_tensors_go_through_memory_too(mixed_store, rows):
    with sides(mixed_store, 1, load="gru", max_batch=8) as (engine, (front,)):
        given = {"x": np.random.default_rng(rows).random((rows, 6, 8), np.float32)}
        expected = engine.models.repository.find("gru").run(given)

        async def ask() -> list:
            model = front.registry.find("gru")
            jobs = [front.predictor.submit(TensorRows(given, rows), model, deadline_after(20_000)) for _ in range(3)]
            return await outcomes(jobs)

        for found in asyncio.run(ask()):
            assert found.keys() == expected.keys()
            for output, value in expected.items():
                np.testing.assert_allclose(found[output], value, atol=1e-6)


def test_images_of_all_fronts_share_batches_and_more_than_there_are_rows_wait(two, digit, monkeypatch):
    engine, fronts = two
    sizes = slow(engine, monkeypatch, 0.02)

    async def ask() -> list:
        return await outcomes([submit(fronts[i % 2], digit) for i in range(60)])

    found = asyncio.run(ask())
    assert {result.predictions[0].label for result in found} == {"7"}
    assert sum(sizes) == 60
    assert max(sizes) == engine.models.repository.find("lenet5").batcher.max_batch
    assert all(front.registry.find("lenet5").batcher.pending == 0 for front in fronts)


def test_on_a_gpu_a_batch_is_gathered_from_the_rows_of_all_fronts(digits, models, monkeypatch):
    """The buffers lie in the CPU's memory here; lanes, sizes and padding are those of a GPU."""
    monkeypatch.setattr(model_module, "choose", lambda _: CUDA)
    monkeypatch.setattr(on_gpu, "Lanes", partial(Lanes, make_stream=Host))
    monkeypatch.setattr(on_gpu, "pin", lambda _: None)
    monkeypatch.setattr(rows, "pin", lambda _: None)
    photos = [path.read_bytes() for path in sorted((models / "lenet5/1/golden").glob("*.png"))]
    with sides(digits, 2, max_batch=8) as (engine, fronts):
        batches = []
        assembly = engine.models.repository.find("lenet5").assembly
        real = assembly.compute

        def noted(jobs, run):
            batches.append([job.number for job in jobs])
            sleep(0.02)
            return real(jobs, run)

        monkeypatch.setattr(assembly, "compute", noted)

        async def ask(count: int) -> list:
            return await outcomes([submit(fronts[i % 2], photos[i % len(photos)]) for i in range(count)])

        expected = [result.predictions for result in asyncio.run(ask(len(photos)))]
        found = asyncio.run(ask(80))
        for i, result in enumerate(found):
            assert [p.class_id for p in result.predictions] == [p.class_id for p in expected[i % len(photos)]]
            assert result.predictions[0].score == pytest.approx(expected[i % len(photos)][0].score, abs=1e-4)
        assert max(map(len, batches)) > 4
        assert any(b[-1] - b[0] >= len(b) for b in batches), "all rows of all batches followed each other"
        assert all(b == sorted(b) for b in batches)


def test_what_is_no_image_hurts_no_other(two, digit):
    _, fronts = two

    async def ask() -> list:
        return await outcomes([submit(fronts[0], digit[: 40 if i % 3 == 1 else None]) for i in range(30)])

    for i, found in enumerate(asyncio.run(ask())):
        assert getattr(found, "reason", None) == (Reason.UNDECODABLE if i % 3 == 1 else None)


def test_priorities_and_deadlines_hold_across_fronts(two, digit, monkeypatch):
    engine, (one, other) = two
    slow(engine, monkeypatch, 0.1)
    done = []

    def noted(job: Job, name: str) -> Job:
        job.future.add_done_callback(lambda _: done.append(name))
        return job

    async def ask() -> list:
        jobs = [noted(submit(one, digit), "running") for _ in range(1)]
        await asyncio.sleep(0.03)
        jobs += [noted(submit(one, digit, priority=Priority.LOW), "low") for _ in range(4)]
        jobs += [submit(one, digit, 60, Priority.LOW)]
        await asyncio.sleep(0.03)
        jobs += [noted(submit(other, digit, priority=Priority.HIGH), "high") for _ in range(4)]
        return await outcomes(jobs)

    found = asyncio.run(ask())
    assert done == ["running"] + ["high"] * 4 + ["low"] * 4
    assert found[5].reason is Reason.DEADLINE


def test_admission_sees_what_other_fronts_wait_for(two, digit, monkeypatch):
    engine, (one, other) = two
    slow(engine, monkeypatch, 0.05)

    async def ask() -> None:
        jobs = [submit(one, digit) for _ in range(40)]
        until(lambda: other.registry.find("lenet5").batcher.wait() > 0)
        with pytest.raises(RequestError, match="all work ahead") as refused:
            submit(other, digit, 1)
        assert refused.value.reason is Reason.QUEUE_FULL
        assert refused.value.retry_after >= 1
        await outcomes(jobs)

    asyncio.run(ask())


def test_the_queue_is_one_for_all_fronts(digits, digit, monkeypatch):
    with sides(digits, 2, max_queue=5) as (engine, (one, other)):
        slow(engine, monkeypatch, 0.05)

        async def ask() -> None:
            jobs = [submit(one, digit) for _ in range(4)]
            with pytest.raises(RequestError, match=r"4 requests wait for this model \(of at most 5\)"):
                front_check(other, 2)
            await outcomes([*jobs, submit(other, digit)])

        asyncio.run(ask())


def front_check(front: FrontSide, rows: int) -> None:
    front.registry.find("lenet5").batcher.check(deadline_after(20_000), rows)


def test_what_nobody_waits_for_is_not_run(two, digit, monkeypatch):
    engine, (one, _) = two
    sizes = slow(engine, monkeypatch, 0.1)

    async def ask() -> list:
        jobs = [submit(one, digit)]
        await asyncio.sleep(0.03)
        jobs += [submit(one, digit) for _ in range(3)]
        await asyncio.sleep(0.03)
        for job in jobs[1:]:
            job.abandon()
        jobs.append(submit(one, digit))
        return await outcomes(jobs)

    found = asyncio.run(ask())
    assert sum(sizes) == 2
    assert [isinstance(each, RequestError) for each in found] == [False, True, True, True, False]
