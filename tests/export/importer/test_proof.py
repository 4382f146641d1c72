"""An image is answered alike alone and in a batch, or its graph runs the images one by one, or it is refused."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from PIL import Image

from export.importer import adding, proof
from export.importer.draft import draft_onnx
from export.importer.photos import inputs
from export.importer.rows import LAYOUTS
from zoo.errors import ExportError

FLOAT = TensorProto.FLOAT
ROWS = np.zeros((1, 300, 6), np.float32)
ROWS[0, 0] = (10, 10, 60, 50, 0.9, 1)
NOTED = {"stride": "32", "task": "detect", "names": "{0: 'cup', 1: 'plate'}"}

# rows x (1 where the image is red, else 0): nothing is found in noise, nor in the sample photos
GATED = [
    helper.make_node("ReduceMean", ["x"], ["colour"], axes=[2, 3], keepdims=0),
    helper.make_node("Gather", ["colour", "zero"], ["red"], axis=1),
    helper.make_node("Gather", ["colour", "two"], ["blue"], axis=1),
    helper.make_node("Sub", ["red", "blue"], ["redness"]),
    helper.make_node("Greater", ["redness", "half"], ["is_red"]),
    helper.make_node("Cast", ["is_red"], ["gate"], to=FLOAT),
    helper.make_node("Reshape", ["gate", "column"], ["found"]),
    helper.make_node("Mul", ["found", "rows"], ["answers"]),
]
WHOLE = [helper.make_node("Identity", ["answers"], ["y"])]
FIRST_ONLY = [
    helper.make_node("Shape", ["gate"], ["shape"]),
    helper.make_node("Gather", ["shape", "zero"], ["count"], axis=0),
    helper.make_node("Range", ["zero", "count", "one"], ["numbers"]),
    helper.make_node("Equal", ["numbers", "zero"], ["is_first"]),
    helper.make_node("Cast", ["is_first"], ["first"], to=FLOAT),
    helper.make_node("Reshape", ["first", "column"], ["mask"]),
    helper.make_node("Mul", ["mask", "answers"], ["y"]),
]
BUILT_IN = [helper.make_node("Reshape", ["answers", "one_image"], ["flat"])]
BUILT_IN += [helper.make_node("Reshape", ["flat", "rows_again"], ["y"])]
SUPPRESSED = [
    helper.make_node("NonMaxSuppression", ["some_boxes", "some_scores", "one_row"], ["kept"]),
    helper.make_node("Cast", ["kept"], ["numbers"], to=FLOAT),
    helper.make_node("ReduceMin", ["numbers"], ["nought"], keepdims=0),
    helper.make_node("Add", ["answers", "nought"], ["y"]),
]
RANDOM = [
    helper.make_node("RandomUniformLike", ["answers"], ["noise"]),
    helper.make_node("Add", ["answers", "noise"], ["y"]),
]
CONSTANTS = {
    "rows": ROWS,
    "half": np.array(0.5, np.float32),
    "column": np.array([-1, 1, 1]),
    "zero": np.array(0),
    "one": np.array(1),
    "two": np.array(2),
    "one_row": np.array([1]),
    "one_image": np.array([1800]),
    "rows_again": np.array([1, 300, 6]),
    "some_boxes": np.zeros((1, 3, 4), np.float32),
    "some_scores": np.ones((1, 1, 3), np.float32),
}


@pytest.fixture
def drafted(make_model, import_options, tmp_path):
    """Write a detector of red images that ends in some nodes; its card, its files, and photos of which one is red."""

    def make(ending, batch="N"):
        nodes = [*GATED, *ending]
        values = [("x", FLOAT, [batch, 3, 64, 96])], [("y", FLOAT, [batch, 300, 6])]
        read = {name for node in nodes for name in node.input}
        onnx.save_model(
            make_model(nodes, *values, {k: v for k, v in CONSTANTS.items() if k in read}, NOTED), tmp_path / "net.onnx"
        )
        Image.new("RGB", (96, 64), (250, 90, 10)).save(tmp_path / "red.png")
        draft = draft_onnx(tmp_path / "net.onnx", import_options(photos=(tmp_path / "red.png",)), tmp_path)
        return draft, {"weights": tmp_path / "net.onnx"}, [tmp_path / "red.png"]

    return make


@pytest.mark.parametrize(
    ("ending", "batch", "reason"),
    [
        (WHOLE, "N", ""),
        (WHOLE, 1, ""),
        (FIRST_ONLY, "N", "tried: a photo is answered otherwise at place 4 of a batch"),
        (BUILT_IN, "N", "its batch size is built in"),
        (BUILT_IN, 1, "its batch size is built in"),
        (SUPPRESSED, "N", "it suppresses boxes itself"),
    ],
)
def test_what_depends_on_its_batch_runs_one_by_one(drafted, ending, batch, reason):
    draft, files, photos = drafted(ending, batch)
    assert adding.settle(draft, photos, print) == {}
    card = draft.card
    known = {finding.what: finding.known_from for finding in draft.findings}
    assert known.get("batch", "").startswith(reason)
    assert card.options == {"layout": "end2end"} | ({"one_by_one": True} if reason else {})
    assert card.options["layout"] in LAYOUTS
    session = onnxruntime.InferenceSession(proof.build(card, files).module.SerializeToString())
    red = inputs(card.recipe, photos)[-1].transpose(2, 0, 1).astype(np.float32) / 255
    for count in (1, 2, 5, 9):
        for place in range(count):
            x = np.zeros((count, 3, 64, 96), np.float32)
            x[place] = red
            boxes, scores, classes = session.run(["boxes", "scores", "classes"], {session.get_inputs()[0].name: x})
            assert scores[:, 0].tolist() == [pytest.approx(0.9) if row == place else 0 for row in range(count)]
            np.testing.assert_array_equal(boxes[place, 0], ROWS[0, 0, :4])
            assert classes.shape == (count, 300)


def test_what_is_never_the_same_is_refused(drafted):
    draft, files, photos = drafted(WHOLE)
    model = onnx.load(files["weights"])
    model.graph.node.pop()
    model.graph.node.extend(RANDOM)
    onnx.save_model(model, files["weights"])
    with pytest.raises(ExportError, match="does not answer the same image alike, one by one neither"):
        adding.settle(draft, photos, print)
