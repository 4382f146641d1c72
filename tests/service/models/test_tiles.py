"""Tiles with a real detector: at least what SAHI finds, large objects as without tiles, and images of one tile."""

import asyncio
import io
from functools import partial

import pytest
from PIL import Image

from loadtests.tiles.scene import Known, iou, large, recall, scene
from service.errors import RequestError
from service.predictor import deadline_after
from service.runtime import Runtime
from service.settings import Settings
from service.waiting import outcome, wait
from tests.service.engine import apart
from tests.service.models.sahi_peer import PACKAGES, sliced

SIDE = 416  # of yolov4_tiny's input


@pytest.fixture(scope="module")
def runtime(models):
    runtime = Runtime(Settings(models=str(models), load="yolov4_tiny"))
    runtime.repository.load()
    yield runtime
    runtime.stop()


@pytest.fixture(scope="module")
def sahi(request):
    """Calls a function in a process in which SAHI is installed."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    try:
        with capture.global_and_fixture_disabled():  # the progress of a download is seen
            packages = apart.fetch("sahi", "0.12.0", "4 MB", PACKAGES, lambda text: print(f"\n{text}", flush=True))
    except apart.UnavailableError as error:
        pytest.skip(str(error))
    return partial(apart.call, packages, {})


def encoded(image: Image.Image, kind: str = "JPEG") -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **({"quality": 95, "subsampling": 0} if kind == "JPEG" else {"compress_level": 1}))
    return out.getvalue()


def ask(runtime, data, milliseconds=120_000, **given):
    """Answer as a server does: by jobs in the queue. Returns the job and its result, or its error."""
    predictor = runtime.predictor

    async def answered():
        model = runtime.repository.get("detect")
        options = predictor.options(model, given)
        job = predictor.submit(predictor.input(data, model, options), model, deadline_after(milliseconds))
        await wait([job], job.deadline)
        return job, outcome(job)

    return asyncio.run(answered())


def known(result) -> list[Known]:
    return [Known(each.label, each.box) for each in result.predictions]


def test_small_objects_are_found_at_least_as_well_as_by_sahi(runtime, models, sahi, tmp_path, capsys):
    image, truth = scene()
    file = tmp_path / "scene.png"
    file.write_bytes(encoded(image, "PNG"))
    job, result = ask(runtime, file.read_bytes(), tiles="auto")
    theirs = [Known(label, box) for label, _, box in sahi(sliced, str(models), "yolov4_tiny", file, SIDE)]
    ours, bare = known(result), known(ask(runtime, file.read_bytes())[1])
    shares = {"tiles": recall(truth, ours), "SAHI": recall(truth, theirs), "no tiles": recall(truth, bare)}
    with capsys.disabled():
        print(f"\nrecall of {len(truth)} small objects: {shares}; found {len(ours)}, by SAHI {len(theirs)}")
    assert shares["tiles"] >= max(shares["SAHI"], 0.95)
    assert shares["no tiles"] < 0.1, "otherwise the objects are not small"
    assert len(ours) <= 1.5 * len(truth), "a part of an object counts as one"
    spans = [stage for stage, _, _ in job.spans()]
    assert {"decode", "infer", "postprocess"} <= set(spans)


def test_large_objects_are_found_as_without_tiles(runtime):
    image, (cat,) = large()
    data = encoded(image)
    (without,) = [each for each in known(ask(runtime, data)[1]) if each.label == cat.label]
    found = [each for each in known(ask(runtime, data, tiles="auto")[1]) if each.label == cat.label]
    assert len(found) == 1, "its pieces are parts of it"
    assert iou(found[0], without) > 0.9
    assert iou(found[0], cat) > 0.75


@pytest.mark.parametrize("given", [{"tiles": "auto"}, {"tiles": "640x640"}, {"tiles": "auto", "tile_full": "false"}])
def test_an_image_of_one_tile_is_answered_as_without_tiles(runtime, photo, given):
    image = Image.open(io.BytesIO(photo("coffee"))).convert("RGB")
    image.thumbnail((400, 400))
    for kind in ("PNG", "JPEG"):
        data = encoded(image, kind)
        assert known(ask(runtime, data, **given)[1]) == known(ask(runtime, data)[1]) != []


def test_an_upright_image_is_cut(runtime, photo):
    """The orientation of EXIF is applied before the image is cut."""
    small = Image.open(io.BytesIO(photo("coffee"))).convert("RGB").resize((180, 120))
    image = Image.new("RGB", (1000, 600), (124, 130, 118))
    image.paste(small, (780, 440))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter clockwise
    out = io.BytesIO()
    image.transpose(Image.Transpose.ROTATE_90).save(out, "JPEG", quality=95, exif=exif)
    _, result = ask(runtime, out.getvalue(), tiles="auto")
    assert (result.image.width, result.image.height) == image.size
    boxes = [each.box for each in result.predictions if each.label == "cup"]
    assert boxes
    assert boxes[0] == pytest.approx((780 + 0.28 * 180, 440 + 0.04 * 120, 780 + 0.69 * 180, 440 + 0.73 * 120), abs=12)
    alone = runtime.predictor.predict(out.getvalue(), runtime.repository.get("detect"), {"tiles": "auto"})
    assert known(alone) == known(result), "without a queue the answer is the same"


@pytest.mark.parametrize(
    ("size", "settings", "milliseconds", "given", "reason", "message"),
    [
        ((900, 900), {}, 30_000, {"max_tiles": "5"}, "bad_option", "has 9 tiles"),
        ((900, 900), {"max_queue": 9}, 30_000, {}, "bad_option", "takes 10 places in the queue"),
        ((900, 900), {}, 40, {}, "queue_full", "the deadline is in"),
        ((900, 900), {"max_megapixels": 0.5}, 30_000, {}, "too_large", "0.5"),
    ],
)
def test_what_is_refused_is_refused_as_a_whole(models, size, settings, milliseconds, given, reason, message):
    runtime = Runtime(Settings(models=str(models), load="yolov4_tiny", **settings))
    runtime.repository.load()
    try:
        _, error = ask(runtime, encoded(Image.new("RGB", size)), milliseconds, tiles="auto", **given)
        assert isinstance(error, RequestError)
        assert (error.reason, message in error.detail) == (reason, True), error.detail
        assert runtime.repository.entries["yolov4_tiny"].model.batcher.pending == 0
    finally:
        runtime.stop()
