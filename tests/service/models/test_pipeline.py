"""Pipelines in one process: crops are cut as they should be, and answered as images of their own."""

import asyncio
import io
from time import perf_counter

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from service.engine.job import Priority
from service.errors import Reason, RequestError
from service.models.pipeline import crops_of
from service.predictor import deadline_after
from service.results import Detection
from service.runtime import Runtime
from service.settings import Settings
from service.tasks import TASKS
from service.waiting import outcome, wait
from zoo import catalog
from zoo.pipeline_card import Crops

PHOTO = catalog.sample("chelsea").read_bytes()
CARD = 'name = "mine"\ntitle = "Mine"\n'
DETECTOR = 'detect = { model = "yolov4_tiny", options = { score_threshold = 0.2 } }\n'
KAT = 'detect = { model = "yolov4_tiny", classes = ["kat"] }\n'
TILED = 'detect = { model = "yolov4_tiny", options = { tiles = "208x208", score_threshold = 0.2 } }\n'
OF_CROPS = 'second = { task = "detect", model = "yolov4_tiny", options = { tiles = "auto" } }'


@pytest.fixture(scope="module")
def store(models, tmp_path_factory):
    """The default models, and pipelines of every kind."""
    folder = tmp_path_factory.mktemp("pipelines")
    for model in models.iterdir():
        (folder / model.name).symlink_to(model)
    (folder / "pipelines").mkdir()
    for name, detect, more in (
        ("classes", DETECTOR, 'second = { task = "classify", model = "mobilenet_v2" }'),
        ("features", DETECTOR, 'second = { task = "embed", model = "mobilenet_v2" }'),
        ("cut_out", DETECTOR, 'second = { task = "segment", model = "u2netp", options = { mask = "none" } }'),
        ("again", DETECTOR, 'second = { task = "detect", model = "yolov4_tiny" }\ncrops = { pad = 0.0 }'),
        ("best", DETECTOR, 'second = { task = "classify", model = "lenet5" }\ncrops = { max_crops = 1 }'),
        ("large", DETECTOR, 'second = { task = "classify", model = "lenet5" }\ncrops = { min_size = 4000 }'),
        ("wrong_task", DETECTOR, 'second = { task = "segment", model = "lenet5" }'),
        ("no_model", DETECTOR, 'second = { task = "classify", model = "nothing" }'),
        ("no_class", KAT, 'second = { task = "classify", model = "lenet5" }'),
        ("no_option", DETECTOR, 'second = { task = "classify", model = "lenet5", options = { topk = 1 } }'),
        ("tiled", TILED, 'second = { task = "classify", model = "lenet5" }'),
        ("tiled_crops", DETECTOR, OF_CROPS),
        ("no_room", DETECTOR, 'second = { task = "classify", model = "lenet5" }\ncrops = { max_crops = 31 }'),
        ("not_valid", DETECTOR, "second = 1"),
        ("lenet5", DETECTOR, 'second = { task = "classify", model = "lenet5" }'),
    ):  # fmt: skip
        card = CARD.replace("mine", name) + detect + more
        (folder / "pipelines" / f"{name}.toml").write_text(card)
    return folder


@pytest.fixture(scope="module")
def runtime(store):
    runtime = Runtime(Settings(models=str(store), max_batch=4, max_queue=30))
    runtime.repository.load()
    yield runtime
    runtime.stop()


def bound(runtime, name, **params):
    pipelines = runtime.pipelines
    card = pipelines.find(name)
    return pipelines.bind(card, [find() for find in pipelines.finds(card)], params)


def ask(runtime, pipeline, *images, milliseconds=60_000):
    """Answer images together through the queue; each a result or an error."""

    async def answer():
        deadline = deadline_after(milliseconds)
        inputs = [runtime.pipelines.image(data, pipeline) for data in images]
        jobs = [runtime.predictor.submit(each, pipeline.detector, deadline, Priority.NORMAL) for each in inputs]
        await wait(jobs, deadline)
        return [outcome(job) for job in jobs]

    return asyncio.run(answer())


def cropped(box, data=PHOTO) -> bytes:
    """Cut a part out of a photo, as a PNG."""
    out = io.BytesIO()
    Image.open(io.BytesIO(data)).convert("RGB").crop(box).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize("name", ["classes", "features", "cut_out", "again"])
def test_the_answer_is_the_detectors_with_the_second_models_to_each_crop(runtime, name):
    pipeline = bound(runtime, name)
    (answer,) = ask(runtime, pipeline, PHOTO)
    predictor, second = runtime.predictor, pipeline.card.second
    alone = predictor.predict(PHOTO, pipeline.detector, {"score_threshold": 0.2})
    assert (answer.pipeline, answer.model, answer.task, answer.image) == (name, "yolov4_tiny", "detect", alone.image)
    assert len(answer.predictions) > 1
    assert [Detection(p.class_id, p.label, p.score, p.box) for p in answer.predictions] == alone.predictions
    for found in answer.predictions:
        expected = predictor.predict(cropped(found.crop), pipeline.second, second.options, second.task)
        one, other = (msgspec.json.decode(msgspec.json.encode(each)) for each in (found.second, expected))
        if second.task == "segment":
            assert one["image"] == other["image"]
            assert [each["label"] for each in one["predictions"]] == [each["label"] for each in other["predictions"]]
        elif second.task == "embed":
            vectors = [np.array(each["predictions"][0]["embedding"]) for each in (one, other)]
            assert np.allclose(*vectors, atol=1e-4)
        else:
            for each in (one, other):
                for prediction in each["predictions"]:
                    prediction["score"] = round(prediction["score"], 4)
            assert one == other, "as if the crop had been sent"
    assert runtime.pipelines.predict(PHOTO, name, {}).predictions[0].crop == answer.predictions[0].crop


def test_crops_of_all_images_share_batches(runtime):
    pipeline = bound(runtime, "classes")
    runs = runtime.metrics.batch_size.labels("mobilenet_v2")
    before = sum(bucket.get() for bucket in runs._buckets), runs._sum.get()
    answers = ask(runtime, pipeline, *[PHOTO] * 4)
    count, rows = sum(bucket.get() for bucket in runs._buckets) - before[0], runs._sum.get() - before[1]
    assert rows == sum(len(answer.predictions) for answer in answers)
    assert count < rows


def test_crops_of_a_burst_wait_for_places_and_none_is_refused(runtime, monkeypatch):
    pipeline = bound(runtime, "classes")
    monkeypatch.setattr(pipeline.second.batcher, "max_queue", 1)
    answers = ask(runtime, pipeline, *[PHOTO] * 4)
    assert [len(answer.predictions) > 1 for answer in answers] == [True] * 4
    assert all(found.error is None and found.second for answer in answers for found in answer.predictions)


@pytest.mark.parametrize(("name", "skipped"), [("best", [None, "max_crops"]), ("large", ["min_size", "min_size"])])
def test_what_was_not_asked_says_why(runtime, name, skipped):
    (answer,) = ask(runtime, bound(runtime, name), PHOTO)
    assert [found.skipped for found in answer.predictions[:2]] == skipped
    assert [found.second is None for found in answer.predictions[:2]] == [reason is not None for reason in skipped]


def test_where_nothing_is_found_the_answer_is_empty(runtime):
    (answer,) = ask(runtime, bound(runtime, "classes", score_threshold=1.0), PHOTO)
    assert answer.predictions == []


def test_one_bad_image_does_not_harm_the_others(runtime):
    good, cut, bad = ask(runtime, bound(runtime, "best"), PHOTO, PHOTO[:1000], b"no image")
    assert good.predictions[0].second.model == "lenet5"
    assert (cut.reason, bad.reason) == (Reason.UNDECODABLE, Reason.NOT_AN_IMAGE)
    assert runtime.pipelines._calls.memory.held == 0


def test_a_crop_that_fails_is_an_error_in_its_place(runtime, monkeypatch):
    classify, failed = TASKS["classify"].answer, []

    def fail_once(*arguments):
        if not failed:
            failed.append(1)
            raise RequestError(Reason.INTERNAL, "This one fails.")
        return classify(*arguments)

    monkeypatch.setattr(
        "service.models.inputs.TASKS", {**TASKS, "classify": TASKS["classify"]._replace(answer=fail_once)}
    )
    (answer,) = ask(runtime, bound(runtime, "classes"), PHOTO)
    errors = [found.error for found in answer.predictions]
    assert [error.detail for error in errors if error] == ["This one fails."]
    assert all(found.second or found.error for found in answer.predictions)


def test_a_crop_of_one_pixel_is_answered(runtime):
    pipeline = bound(runtime, "best")
    boxes = crops_of([(10.2, 20.2, 10.4, 20.4)], (451, 300), Crops(pad=0.0, min_size=1))
    assert boxes == [(10, 20, 11, 21)]
    found = runtime.predictor.predict(cropped(boxes[0]), pipeline.second, {})
    assert (found.image.width, found.image.height) == (1, 1)
    assert crops_of([(10.2, 20.2, 10.4, 20.4)], (451, 300), Crops()) == ["min_size"]


@given(
    size=st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    corners=st.lists(st.tuples(*[st.floats(0, 1)] * 4), max_size=5),
    pad=st.floats(0, 1),
)
def test_crops_are_whole_and_within_the_image(size, corners, pad):
    (width, height), boxes = size, []
    for x0, y0, x1, y1 in corners:
        boxes.append((min(x0, x1) * width, min(y0, y1) * height, max(x0, x1) * width, max(y0, y1) * height))
    crops = crops_of(boxes, size, Crops(pad=pad, min_size=1, max_crops=1000))
    for (left, top, right, bottom), box in zip(crops, boxes, strict=True):
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        assert left <= box[0] + 0.5
        assert right >= box[2] - 0.5


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("wrong_task", "`lenet5` is a model for /v1/classify, not for /v1/segment"),
        ("no_model", "There is no model `nothing`"),
        ("no_class", "`yolov4_tiny` finds no objects of the class `kat`"),
        ("no_option", "its card has options that are not allowed: There is no option `topk`"),
        ("tiled_crops", "its card has the option `tiles` for crops, which are not cut into tiles"),
        ("no_room", "its `max_crops` is 31, and ZOOSERVE_MAX_QUEUE lets 30 images wait"),
        ("not_valid", "not_valid.toml"),
        ("lenet5", "A model is called `lenet5` as well"),
    ],
)
def test_a_pipeline_that_cannot_answer_says_why(runtime, name, said):
    assert said in runtime.pipelines.problem(runtime.pipelines.all()[name])
    if name != "lenet5":
        with pytest.raises(RequestError) as refused:
            bound(runtime, name)
        assert refused.value.reason is Reason.NOT_READY
        assert said in refused.value.detail
        assert name in refused.value.detail


@pytest.mark.parametrize(
    ("name", "params", "said"),
    [
        ("classes", {"top_k": 0}, "`top_k=0`"),
        ("classes", {"second_top_k": 1}, "There is no option `second_top_k`"),
        ("classes", {"tiles": "all"}, "expected `auto`, or WIDTHxHEIGHT"),
        ("again", {"second_tiles": "auto"}, "There is no option `second_tiles`"),
        ("again", {"second_score_threshold": 2}, "expected a number from 0 to 1"),
    ],
)
def test_options_that_are_not_allowed_are_refused(runtime, name, params, said):
    with pytest.raises(RequestError, match=said) as refused:
        bound(runtime, name, **params)
    assert refused.value.reason is Reason.BAD_OPTION


def test_an_option_of_both_has_a_prefix_for_the_second(runtime):
    pipeline = bound(runtime, "again", score_threshold="0.5", second_score_threshold="0.9", second_max_detections=1)
    assert (pipeline.options.score_threshold, pipeline.second_options.score_threshold) == (0.5, 0.9)
    assert (pipeline.options.max_detections, pipeline.second_options.max_detections) == (None, 1)


@pytest.mark.parametrize(
    ("name", "params", "tiling"),
    [
        ("tiled", {}, {"tiles": "208x208"}),
        ("tiled", {"tiles": "150x150", "tile_full": "false"}, {"tiles": "150x150", "tile_full": False}),
        ("classes", {"tiles": "208x208", "merge": "nms"}, {"tiles": "208x208", "merge": "nms"}),
        ("classes", {"tiles": "5000x5000"}, {}),
    ],
)
def test_the_detector_looks_in_tiles(runtime, name, params, tiling):
    pipeline = bound(runtime, name, **params)
    found = runtime.predictor.predict(PHOTO, pipeline.detector, {"score_threshold": 0.2} | tiling)
    answers = [*ask(runtime, pipeline, PHOTO), runtime.pipelines.predict(PHOTO, name, params)]
    for answer in answers:
        boxes, expected = ([each.box for each in result.predictions] for result in (answer, found))
        np.testing.assert_allclose(boxes, expected, atol=0.05)
        assert all(each.second is not None or each.skipped for each in answer.predictions)


def test_too_many_tiles_are_refused(runtime):
    (answer,) = ask(runtime, bound(runtime, "tiled", max_tiles=2), PHOTO)
    assert answer.reason is Reason.BAD_OPTION
    assert "`max_tiles` is 2" in answer.detail


def test_a_second_queue_without_room_refuses_before_anything_is_decoded(runtime, monkeypatch):
    pipeline = bound(runtime, "classes")
    monkeypatch.setattr(pipeline.second.batcher, "pending", 15)
    with pytest.raises(RequestError, match="may ask about 20 crops") as refused:
        ask(runtime, pipeline, PHOTO)
    assert refused.value.reason is Reason.QUEUE_FULL
    assert pipeline.detector.batcher.pending == 0


def test_one_deadline_is_for_all(runtime):
    pipeline = bound(runtime, "classes")
    start = perf_counter()
    (answer,) = ask(runtime, pipeline, PHOTO, milliseconds=30)
    assert answer.reason is Reason.DEADLINE
    assert perf_counter() - start < 5
    deadline = perf_counter() + 30
    while pipeline.second.batcher.pending and perf_counter() < deadline:
        asyncio.run(asyncio.sleep(0.05))
