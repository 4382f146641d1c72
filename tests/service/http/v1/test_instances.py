"""Instances through the real server: a graph whose answer can be computed, published by the store and asked over HTTP.

It finds what is bright within four fixed boxes, of which one is suppressed and one is unsure.
"""

import io
import subprocess
import sys
from pathlib import Path

import bentoml
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageDraw
from pycocotools import mask as coco

from service.vision import masks
from tests.conftest import serving
from zoo.card import Licence, Recipe
from zoo.files import sha256_of
from zoo.served_card import Golden, Output, Parity, Prediction, Provenance, ServedCard
from zoo.store import Store

SIDE, PROTOTYPES = 64, 16
# class, score, box in the input: a 128 x 96 image lies in its rows 8 to 56
CANDIDATES = [
    (1, 0.9, (4, 12, 36, 52)),
    (1, 0.8, (5, 12, 36, 52)),  # the same object
    (0, 0.6, (40, -10, 80, 40)),  # partly outside
    (0, 0.3, (2, 10, 20, 30)),  # unsure
]
BRIGHT = [(16, 24, 56, 72), (96, 0, 128, 48)]  # in the image: all in the first box, and in the second
BOXES = [[8, 8, 72, 88], [80, 0, 128, 64]]
AREAS = [40 * 48 / (128 * 96), 32 * 48 / (128 * 96)]


def graph() -> onnx.ModelProto:
    """Grey values, averaged over 4 x 4 pixels, less 128: the one prototype. Everything else is constant."""
    constants = {
        "boxes_0": np.float32([[box for _, _, box in CANDIDATES]]),
        "scores_0": np.float32([[score for _, score, _ in CANDIDATES]]),
        "classes_0": np.int32([[class_id for class_id, _, _ in CANDIDATES]]),
        "coefficients_0": np.float32([[[0.1]] * 4]),
        "half": np.float32(-127.5),
        "channel": np.int64([3]),
        "one": np.int64([1]),
        "zero": np.int64([0]),
    }
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "channel"], ["grey"], keepdims=0),
        helper.make_node("Unsqueeze", ["grey", "one"], ["plane"]),
        helper.make_node("AveragePool", ["plane"], ["pooled"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Add", ["pooled", "half"], ["prototypes"]),
        helper.make_node("Shape", ["images"], ["shape"], start=0, end=1),
    ]
    for name, rank in (("boxes", 2), ("scores", 1), ("classes", 1), ("coefficients", 2)):
        constants[f"{name}_rest"] = np.ones(rank, np.int64)
        nodes.append(helper.make_node("Concat", ["shape", f"{name}_rest"], [f"{name}_shape"], axis=0))
        nodes.append(helper.make_node("Expand", [f"{name}_0", f"{name}_shape"], [name]))
    shapes = {
        "boxes": (TensorProto.FLOAT, [4, 4]),
        "scores": (TensorProto.FLOAT, [4]),
        "classes": (TensorProto.INT32, [4]),
        "coefficients": (TensorProto.FLOAT, [4, 1]),
        "prototypes": (TensorProto.FLOAT, [1, PROTOTYPES, PROTOTYPES]),
    }
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "bright",
            [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", SIDE, SIDE, 3])],
            [helper.make_tensor_value_info(name, kind, ["N", *shape]) for name, (kind, shape) in shapes.items()],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def publish(store: Path, image_path: Path, areas: list[float]) -> None:
    """Publish the graph with a golden answer to the image."""
    model = image_path.with_name("model.onnx")
    onnx.save_model(graph(), model)
    golden = (
        Prediction(1, "bright", score=0.9, box=tuple(BOXES[0]), area=areas[0]),
        Prediction(0, "light", score=0.6, box=tuple(BOXES[1]), area=areas[1]),
    )
    shapes = {"boxes": (4, 4), "scores": (4,), "classes": (4,), "coefficients": (4, 1)}
    shapes["prototypes"] = (1, PROTOTYPES, PROTOTYPES)
    card = ServedCard(
        name="bright",
        version="1",
        task="segment",
        family="hand",
        title="What is bright",
        homepage="",
        licence=Licence("Apache-2.0", "Apache-2.0"),
        labels=("light", "bright"),
        recipe=Recipe(SIDE, SIDE, "letterbox", pad=(0, 0, 0)),
        outputs=tuple(
            Output(name, "int32" if name == "classes" else "float32", (None, *shape)) for name, shape in shapes.items()
        ),
        nms=True,
        precision="fp32",
        opset=20,
        sha256=sha256_of(model),
        size=model.stat().st_size,
        provenance=Provenance({}, {}, "2026-11-20T00:00:00Z", {}),
        parity=Parity("numpy", 1e-4, (1,), {}),
        golden=(Golden(image_path.name, sha256_of(image_path), golden),),
        task_default=True,
    )
    Store(store).publish(card, {"model.onnx": model, f"golden/{image_path.name}": image_path})


@pytest.fixture(scope="module")
def image_path(tmp_path_factory) -> Path:
    """Bright rectangles in a dark image of 128 x 96."""
    image = Image.new("RGB", (128, 96), "black")
    for x0, y0, x1, y1 in BRIGHT:
        ImageDraw.Draw(image).rectangle((x0, y0, x1 - 1, y1 - 1), fill="white")
    path = tmp_path_factory.mktemp("image") / "bright.png"
    image.save(path)
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory, image_path) -> Path:
    folder = tmp_path_factory.mktemp("models")
    publish(folder, image_path, AREAS)
    return folder


@pytest.fixture(scope="module")
def bright(store, tmp_path_factory):
    with serving(tmp_path_factory.mktemp("server") / "log", ZOOSERVE_MODELS=str(store)) as server:
        server.wait(200)
        yield server


def ask(server, image_path: Path, **options) -> list[dict]:
    response = server.client.post("/v1/segment", params=options, content=image_path.read_bytes())
    assert response.status_code == 200, response.text
    return response.json()["predictions"]


def test_objects_with_score_box_area_and_mask(bright, image_path):
    found = ask(bright, image_path, score_threshold=0.5)
    assert [list(one) for one in found] == [["class_id", "label", "score", "box", "area", "mask"]] * 2
    assert [(one["class_id"], one["label"], one["score"]) for one in found] == [(1, "bright", 0.9), (0, "light", 0.6)]
    assert [one["box"] for one in found] == [pytest.approx(box) for box in BOXES]
    assert [one["area"] for one in found] == pytest.approx(AREAS, abs=0.01)
    for one, (x0, y0, x1, y1) in zip(found, BRIGHT, strict=True):
        mask = coco.decode(one["mask"])
        wanted = np.zeros((96, 128), bool)
        wanted[y0:y1, x0:x1] = True
        assert mask.shape == wanted.shape
        assert (mask & wanted).sum() / (mask | wanted).sum() > 0.93  # a cell is 8 x 8 pixels, its edges are soft
        assert mask.mean() == pytest.approx(one["area"], abs=1e-6)


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 3),
        ({"score_threshold": 0.85}, 1),
        ({"max_detections": 2}, 2),
        ({"iou_threshold": 1}, 4),
        ({"iou_threshold": 1, "score_threshold": 0.7}, 2),
    ],
)
def test_thresholds_of_the_request_are_applied(bright, image_path, options, count):
    assert len(ask(bright, image_path, **options)) == count


def test_all_mask_formats_encode_the_same_mask(bright, image_path):
    reference = [coco.decode(one["mask"]) for one in ask(bright, image_path)]
    assert all("mask" not in one for one in ask(bright, image_path, mask="none"))
    for rle, png, polygon in zip(
        reference, ask(bright, image_path, mask="png"), ask(bright, image_path, mask="polygon"), strict=True
    ):
        assert np.array_equal(masks.decode(masks.Png(**png["mask"]), 128, 96) > 0, rle)
        assert np.array_equal(masks.decode(masks.Polygons(**polygon["mask"]), 128, 96) > 0, rle)


@pytest.mark.parametrize("option", ["score_threshold=2", "iou_threshold=-1", "max_detections=0", "top_k=3"])
def test_invalid_options_are_named_in_the_error(bright, image_path, option):
    response = bright.client.post(f"/v1/segment?{option}", content=image_path.read_bytes())
    assert response.status_code == 422
    assert option.split("=")[0] in response.json()["detail"]


def test_bentoml_clients_get_the_same_answers(bright, image_path):
    with bentoml.SyncHTTPClient(bright.url) as client:
        answer = client.segment(image=image_path, score_threshold=0.5, max_detections=1)
    assert answer["predictions"] == ask(bright, image_path, score_threshold=0.5, max_detections=1)


def test_predict_prints_and_draws_instances(store, image_path, tmp_path):
    command = [
        str(Path(sys.executable).with_name("zooserve")),
        "predict",
        "bright",
        str(image_path),
        "--models",
        str(store),
    ]
    done = subprocess.run(
        [*command, "--annotate", str(tmp_path / "drawn.png")], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.splitlines()[1].split() == ["LABEL", "SCORE", "AREA", "X0", "Y0", "X1", "Y1"]
    assert done.stdout.splitlines()[2].split()[:2] == ["bright", "0.900"]
    drawn = Image.open(io.BytesIO((tmp_path / "drawn.png").read_bytes()))
    assert drawn.size == (512, 384)  # enlarged to have room for text
    pixels = np.asarray(drawn).astype(int)
    inside, outside = pixels[48 * 4, 40 * 4], pixels[92 * 4, 100 * 4]
    assert np.ptp(inside) > 30  # white was tinted
    assert (outside == 0).all()


def test_a_wrong_golden_area_is_refused(image_path, tmp_path):
    """The self-test compares the areas of instances, too."""
    publish(tmp_path, image_path, [AREAS[0] + 0.05, AREAS[1]])
    command = [str(Path(sys.executable).with_name("zooserve")), "predict", "bright", str(image_path)]
    done = subprocess.run(
        [*command, "--models", str(tmp_path)], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "on its golden photo bright.png it should find bright score 0.9 area" in done.stderr


def test_masks_of_tiles_are_those_of_the_image(bright, image_path):
    """Where one tile is all of the image, nothing changes; else masks are of the image's size and fit their areas."""
    assert ask(bright, image_path, tiles="128x96", mask="png") == ask(bright, image_path, mask="png")
    for given in ({"tiles": "64x96"}, {"tiles": "64x64", "merge": "none", "max_detections": 1000}):
        found = ask(bright, image_path, **given)
        assert found
        for one in found:
            mask = coco.decode(one["mask"])
            assert mask.shape == (96, 128)
            assert mask.mean() == pytest.approx(one["area"], abs=1e-6)
