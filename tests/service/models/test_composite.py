"""Answers that are composed of several jobs: parts share batches and a deadline, and are given up together."""

import asyncio
import gc
import sys
import time
import weakref
from functools import partial

import numpy as np
import pytest
from PIL import Image

from service.engine.calls import Calls
from service.engine.job import Priority, jobs_in_batches
from service.errors import RequestError
from service.limits import PixelMemory
from service.models import composite
from service.models.composite import Composite
from service.models.inputs import EncodedImage, ImageCut
from service.predictor import deadline_after
from service.runtime import Runtime
from service.settings import Settings
from service.tasks import options_of
from service.vision.decoded import DecodedImage, decode_whole, size_of
from service.waiting import outcome, wait
from zoo import catalog

PHOTO = catalog.sample("chelsea").read_bytes()
OPTIONS = options_of("classify", {"top_k": 1})


@pytest.fixture(scope="module")
def runtime(models):
    runtime = Runtime(Settings(models=str(models), load="mobilenet_v2", max_batch=4, max_queue=20))
    runtime.repository.load()
    yield runtime
    runtime.stop()


@pytest.fixture(scope="module")
def model(runtime):
    return runtime.repository.get("classify", "mobilenet_v2")


class Halves(Composite[list]):
    """Asks about the whole image `times`, and about its left half."""

    def __init__(self, runtime, model, data=PHOTO, times=1):
        super().__init__(runtime.predictor._calls)
        self.model, self.data, self.times, self.settings = model, data, times, runtime.settings

    async def compose(self, steps):
        width, height = await steps.call("decode", partial(size_of, self.data))
        steps.check(self.model, self.times + 1)
        boxes = [(0, 0, width, height)] * self.times + [(0, 0, width / 2, height)]
        async with steps.decoded((width, height), partial(decode_whole, self.data)) as image:
            cuts = [ImageCut(image, box, self.model.card, OPTIONS, self.settings) for box in boxes]
            return await steps.ask(self.model, cuts)


def submit(runtime, model, input_, milliseconds=30_000, after=None):
    return runtime.predictor.submit(input_, model, deadline_after(milliseconds), Priority.HIGH, after)


def test_parts_are_answered_as_images_of_their_own(runtime, model):
    async def ask():
        job = submit(runtime, model, Halves(runtime, model))
        await wait([job], job.deadline)
        return job, await job.future

    job, (whole, half) = asyncio.run(ask())
    assert whole == EncodedImage(PHOTO, model.card, OPTIONS, runtime.settings).alone(model.session.run)
    assert (half.image.width, half.image.height) == (round(whole.image.width / 2), whole.image.height)
    assert [whole, half] == Halves(runtime, model).alone(), "without a queue the answers are the same"
    stages = [stage for stage, start, end in job.spans()]
    assert {"decode", "infer", "postprocess"} <= set(stages)
    assert [part.input.__class__ for part in jobs_in_batches([job])] == [ImageCut] * 2, "traces show their batches"
    assert job.batch_size >= 1
    assert model.batcher.pending == 0


@pytest.mark.parametrize(
    ("data", "times", "milliseconds", "reason"),
    [
        (PHOTO[:2000], 1, 30_000, "undecodable"),
        (b"no image", 1, 30_000, "not_an_image"),
        (PHOTO, 20, 30_000, "bad_option"),
        (PHOTO, 15, 15, "queue_full"),
    ],
)
def test_what_is_refused_leaves_nothing_behind(runtime, model, data, times, milliseconds, reason):
    async def ask():
        job = submit(runtime, model, Halves(runtime, model, data, times), milliseconds)
        await wait([job], job.deadline)
        return job.future.exception()

    refused = asyncio.run(ask())
    assert refused.reason == reason
    assert reason != "queue_full" or "these 16 rows included" in refused.detail
    assert model.batcher.pending == 0
    assert runtime.predictor._calls.memory.held == 0


def test_what_its_client_gives_up_frees_all_parts(runtime, model):
    async def ask():
        job = submit(runtime, model, Halves(runtime, model, times=15))
        while not model.batcher.pending:
            await asyncio.sleep(0.001)
        job.abandoned = True  # as `wait` does when the client hangs up
        return await job.future

    assert "deadline" in {getattr(answer, "reason", None) for answer in asyncio.run(ask())}
    assert model.batcher.pending == 0
    assert runtime.predictor._calls.memory.held == 0


@pytest.mark.parametrize("given_up", [False, True])
def test_the_images_of_a_request_do_not_refuse_each_other(runtime, model, given_up):
    """Together they are more than the queue takes, which no other trial would change."""

    async def ask():
        jobs = []
        for _ in range(3):
            jobs.append(submit(runtime, model, Halves(runtime, model, times=13), after=jobs[-1] if jobs else None))
        if given_up:
            waiting = asyncio.create_task(wait(jobs, jobs[0].deadline))
            await asyncio.sleep(0.02)
            waiting.cancel()  # as a server does when gRPC's client hangs up
            while composite._running or model.batcher.pending:
                await asyncio.sleep(0.01)
        else:
            await wait(jobs, jobs[0].deadline)
        assert all(job.after is None for job in jobs)
        return jobs

    jobs = asyncio.run(ask())
    if not given_up:
        assert [len(outcome(job)) for job in jobs] == [14] * 3
        assert jobs[2].spans()[0] == ("queue", jobs[2].submitted, jobs[2].steps[0][0].submitted)
        assert jobs[2].steps[0][0].submitted >= jobs[1].finished
    assert model.batcher.pending == 0
    assert runtime.predictor._calls.memory.held == 0


def test_the_times_of_a_part_that_failed_are_not_counted(runtime, model):
    """It was perhaps never run, and would have taken as long as the machine is up."""

    class Damaged(ImageCut):
        def write(self, out, *, jpegs=False):
            time.sleep(0.05)  # so that it ends last
            raise RequestError("undecodable", "It is damaged.")

    class Two(Halves):
        async def compose(self, steps):
            async with steps.decoded((451, 300), partial(decode_whole, self.data)) as image:
                about = (image, (0, 0, 50, 50), self.model.card, OPTIONS, self.settings)
                return await steps.ask(self.model, [ImageCut(*about), Damaged(*about)])

    async def ask():
        job = submit(runtime, model, Two(runtime, model))
        await wait([job], job.deadline)
        return job

    job = asyncio.run(ask())
    assert outcome(job)[1].detail == "It is damaged."
    assert all(job.submitted <= start < end <= job.finished for _, start, end in job.spans())


def test_pixels_are_freed_at_once(runtime, model, monkeypatch):
    """Not by the garbage collector, which may not run for hundreds of requests."""
    images, original = [], decode_whole

    def decode(data):
        image = original(data)
        images.append(weakref.ref(image.stored()))
        return image

    async def ask(milliseconds):
        job = submit(runtime, model, Halves(runtime, model, times=10), milliseconds)
        await wait([job], job.deadline)
        assert model.batcher.pending or images[-1]() is None, "freed while the job still is there"
        return outcome(job)

    async def both():
        answers = [await ask(30_000)]
        monkeypatch.setattr(model.batcher, "check", lambda *_: None)  # so that the deadline passes while it waits
        answers.append(await ask(40))
        while model.batcher.pending:
            await asyncio.sleep(0.01)
        return answers

    monkeypatch.setattr(sys.modules[__name__], "decode_whole", decode)
    gc.collect()
    gc.disable()
    try:
        answered, late = asyncio.run(both())
        assert len(answered) == 11
        assert late.reason == "deadline"
        assert [image() for image in images] == [None] * len(images)
    finally:
        gc.enable()


def test_parts_that_are_given_up_are_not_logged_as_errors(runtime, model, caplog):
    """Asyncio would log each future whose error nobody reads."""

    async def ask():
        check, left = model.batcher.check, [5]

        def refuse(*about):
            left[0] -= 1
            if not left[0]:
                raise RequestError("queue_full", "It is full.")
            check(*about)

        model.batcher.check = refuse
        try:
            job = submit(runtime, model, Halves(runtime, model, times=10))
            await wait([job], job.deadline)
        finally:
            del model.batcher.check
        while model.batcher.pending:
            await asyncio.sleep(0.01)
        return outcome(job)

    assert asyncio.run(ask()).detail == "It is full."
    gc.collect()
    assert not caplog.records


def test_images_that_fill_the_memory_are_refused():
    memory = PixelMemory(100)
    first = memory.hold(1000)  # one always fits
    with pytest.raises(RequestError, match="ZOOSERVE_MAX_PIXELS_MB"):
        memory.hold(1)
    first.leave()
    assert memory.held == 1000, "its other user needs it"
    first.leave()
    memory.hold(50)
    memory.hold(50)
    assert memory.held == 100


def test_a_call_that_takes_too_long_is_refused_and_its_pixels_count_until_it_ends(models):
    import threading

    runtime = Runtime(Settings(models=str(models), load="lenet5", work_s=0.2))
    release = threading.Event()

    memory = PixelMemory(1)

    class Slow(Composite[None]):
        async def compose(self, steps):
            async with steps.decoded((10, 10), release.wait):
                raise AssertionError

    async def ask():
        runtime.repository.load()
        model = runtime.repository.get("classify", "lenet5")
        job = submit(runtime, model, Slow(Calls(runtime.workers, memory)))
        await wait([job], job.deadline)
        assert memory.held == 300, "the pixels are still being decoded"
        release.set()
        while memory.held:
            await asyncio.sleep(0.01)
        return job.future.exception()

    try:
        assert "ZOOSERVE_WORK_S" in asyncio.run(ask()).detail
    finally:
        runtime.stop()


def test_a_cut_has_the_pixels_of_its_part():
    image = DecodedImage(np.asarray(Image.effect_noise((40, 30), 90).convert("RGB")))
    part = image.cut((10.4, 5.0, 19.6, 5.2))
    assert (part.width, part.height) == (10, 1)
    assert np.array_equal(part.stored(), image.stored()[5:6, 10:20])
    assert np.array_equal(np.asarray(part.image()), part.stored())
