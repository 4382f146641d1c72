"""The card that fits a file, as far as the file says; and the sentence where it does not."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from export.families.yolo_onnx import build
from export.importer.draft import draft_onnx
from zoo.errors import CardError, ExportError
from zoo.model_card import Source
from zoo.sources import fetch

NOTES = {"names": "{0: 'a', 1: 'b', 2: 'c', 3: 'd'}", "stride": "32", "task": "classify"}


@pytest.fixture(scope="session")
def yolo26n():
    return fetch(
        Source(
            package="photo-composition-designer==1.0.7",
            member="res/yolo/yolo26n.onnx",
            sha256="c081e98157a0c0ba08fbed26a478d9caaf34e6b7bcc50d396f50e2c0d508a615",
        )
    )


def test_a_classifier_needs_no_more_than_names_and_a_licence(make_onnx, import_options, names, tmp_path):
    draft = draft_onnx(make_onnx(), import_options(labels=names(4)), tmp_path)
    card = draft.card
    assert (card.task, card.family, card.recipe.resize, card.recipe.short_side) == ("classify", "onnx", "crop", 37)
    assert (card.options, draft.labels[0]) == ({}, "class 0")
    assert list(draft.candidates)[:2] == ["ImageNet's mean and deviation", "0..1"]
    assert {finding.what: finding.known_from for finding in draft.findings} | {"pixels": ""} == {
        "task": "assumed: its outputs are [N, C]",
        "input": "the file",
        "resize": "assumed: usual for classify",
        "pixels": "",
        "output": "the only one",
        "labels": "given",
        "licence": "given",
    }


def test_the_owner_is_right(make_onnx, import_options, names, tmp_path):
    stated = import_options(
        labels=names(4), size=(48, 64), resize="stretch", mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0), channels="bgr"
    )
    card = draft_onnx(make_onnx(("N", 3, "H", "W")), stated, tmp_path).card
    assert (card.recipe.height, card.recipe.width, card.recipe.resize) == (48, 64, "stretch")
    assert (card.normalise.mean, card.normalise.std) == ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    assert card.normalise.channels == "bgr"


def test_notes_of_ultralytics_say_nearly_everything(yolo26n, import_options, tmp_path):
    draft = draft_onnx(yolo26n, import_options(licence=None), tmp_path)
    card = draft.card
    assert (card.task, card.family, card.recipe.height, card.recipe.resize) == ("detect", "yolo_onnx", 640, "letterbox")
    assert (card.licence.code, card.licence.weights) == ("AGPL-3.0-only", "AGPL-3.0-only")
    assert list(draft.candidates) == ["0..1"]
    assert (len(draft.labels), draft.labels[0]) == (80, "person")
    bought = draft_onnx(yolo26n, import_options(licence="MIT"), tmp_path).card.licence
    assert (bought.code, bought.weights) == ("AGPL-3.0-only", "MIT"), "its code is still asked about"


def test_a_softmax_at_the_end_and_channels_last_become_options(my_onnx, import_options, tmp_path):
    model = onnx.load(my_onnx)
    graph = model.graph
    graph.node.append(helper.make_node("Softmax", ["y"], ["p"], axis=1))
    graph.node.insert(0, helper.make_node("Transpose", ["last"], ["x"], perm=[0, 3, 1, 2]))
    graph.input[0].CopyFrom(helper.make_tensor_value_info("last", 1, ["n", 224, 224, 3]))
    graph.output[0].CopyFrom(helper.make_tensor_value_info("p", 1, ["n", 1000]))
    path = tmp_path / "other.onnx"
    onnx.save_model(model, path)
    assert draft_onnx(path, import_options(), tmp_path).card.options == {"channels_last": True, "probabilities": True}
    assert draft_onnx(my_onnx, import_options(), tmp_path).card.labels == "imagenet1k"


def test_maps_of_one_pixel_are_the_scores_of_a_classifier(my_onnx, import_options, tmp_path):
    model = onnx.load(my_onnx)
    model.graph.node.append(helper.make_node("Unsqueeze", ["y", "sides"], ["maps"]))
    model.graph.initializer.append(numpy_helper.from_array(np.array([2, 3]), "sides"))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("maps", 1, ["n", 1000, 1, 1]))
    path = tmp_path / "other.onnx"
    onnx.save_model(model, path)
    card = draft_onnx(path, import_options(), tmp_path).card
    assert (card.task, card.labels) == ("classify", "imagenet1k")


@pytest.mark.parametrize("tail", [["Sigmoid"], ["Sigmoid", "Identity"]])
def test_scores_of_a_sigmoid_are_no_probabilities(my_onnx, import_options, tmp_path, tail):
    model = onnx.load(my_onnx)
    last = "y"
    for number, operator in enumerate(tail):
        model.graph.node.append(helper.make_node(operator, [last], [last := f"z{number}"]))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info(last, 1, ["n", 1000]))
    path = tmp_path / "other.onnx"
    onnx.save_model(model, path)
    with pytest.raises(ExportError, match=r"of a sigmoid.*--task tensors serves it"):
        draft_onnx(path, import_options(), tmp_path)


def test_pooled_features_beside_the_scores_are_left_out(my_onnx, import_options, tmp_path):
    model = onnx.load(my_onnx)
    model.graph.node.append(helper.make_node("GlobalAveragePool", [model.graph.input[0].name], ["pooled"]))
    model.graph.output.append(helper.make_tensor_value_info("pooled", 1, ["n", 3, 1, 1]))
    path = tmp_path / "other.onnx"
    onnx.save_model(model, path)
    assert draft_onnx(path, import_options(task="classify"), tmp_path).card.options == {"output": "y"}


def test_a_segmenter_with_its_classes_last_is_told_so(make_onnx, import_options, tmp_path):
    path = make_onnx((1, 32, 32, 3))
    model = onnx.load(path)
    del model.graph.node[:], model.graph.output[:]
    model.graph.node.append(helper.make_node("Concat", ["x", "x"], ["y"], axis=3))
    model.graph.output.append(helper.make_tensor_value_info("y", 1, [1, 32, 32, 6]))
    onnx.save_model(model, path)
    with pytest.raises(ExportError, match=r"\[1, 32, 32, 6\] has its classes last.*--outputs-as-nchw y"):
        draft_onnx(path, import_options(), tmp_path)


def test_an_output_that_is_no_float_is_left_out(my_onnx, import_options, tmp_path):
    model = onnx.load(my_onnx)
    model.graph.node.append(helper.make_node("ArgMax", ["y"], ["ids"], axis=1))
    model.graph.output.append(helper.make_tensor_value_info("ids", 7, ["n", 1]))
    path = tmp_path / "other.onnx"
    onnx.save_model(model, path)
    assert draft_onnx(path, import_options(), tmp_path).card.options == {"output": "y"}


@pytest.mark.parametrize(
    ("options", "stated", "message"),
    [
        ({}, {"licence": None, "labels": 4}, "under which licence are its weights"),
        ({}, {}, "the 4 classes of 'y' .* need names: --labels names.txt"),
        ({}, {"labels": 5}, r"names\.txt has 5 labels, but the output 'y' \[1, 4\] has 4 classes"),
        ({"notes": NOTES}, {"labels": 3}, "has 3 labels, but .* has 4 classes"),
        ({"notes": NOTES | {"names": "{0: 'a', 2: 'b'}"}}, {}, "its note `names` is .*: --labels names.txt"),
        ({"shape": ("N", 3, "H", "W")}, {"labels": 4}, "takes images of any size.* --size 224"),
        ({}, {"labels": 4, "size": (64, 64)}, "its input is 32 x 32 pixels, so --size cannot be 64x64"),
        ({}, {"labels": 4, "task": "detect"}, "a model that can detect answers all boxes"),
        ({"outputs": ("y", "z")}, {"labels": 4}, "which of its outputs is the answer.*--output y"),
        ({"outputs": ("y", "z")}, {"labels": 4, "output": "q"}, "--output is 'q'"),
    ],
)
def test_what_is_open_or_wrong_is_said(make_onnx, import_options, names, tmp_path, options, stated, message):
    if "labels" in stated:
        stated = stated | {"labels": names(stated["labels"])}
    with pytest.raises(ExportError, match=message):
        draft_onnx(make_onnx(**options), import_options(**stated), tmp_path)


def test_a_detector_and_labels_of_another_number(yolo26n, import_options, names, tmp_path):
    """End-to-end detectors do not show their number of classes; the family finds out."""
    assert len(draft_onnx(yolo26n, import_options(labels=names(80)), tmp_path).labels) == 80


@pytest.mark.parametrize(("rows", "layout"), [(25200, "yolov5"), (300, "end2end")])
def test_a_detector_of_one_class(import_options, names, tmp_path, rows, layout):
    """[N, rows, 6] is an objectness and one class for thousands of anchors, or a score and a class of some objects."""
    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=1),
        helper.make_node("Reshape", ["mean", "column"], ["reshaped"]),
        helper.make_node("MatMul", ["rows", "reshaped"], ["tall"]),
        helper.make_node("MatMul", ["tall", "columns"], ["y"]),
    ]
    constants = {"axes": [1, 2, 3], "column": [0, 1, 1], "rows": np.ones((1, rows, 1))}
    constants["columns"] = np.array([[50, 50, 200, 200, 1, 0]])
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", 1, ["N", 3, 64, 64])],
        [helper.make_tensor_value_info("y", 1, ["N", rows, 6])],
        [
            numpy_helper.from_array(np.array(v) if isinstance(v, list) else v.astype(np.float32), k)
            for k, v in constants.items()
        ],
    )
    path = tmp_path / "net.onnx"
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    card = draft_onnx(path, import_options(labels=names(1)), tmp_path).card
    assert card.options == {"layout": layout}
    assert build(card, {"weights": path}).nms == (layout == "yolov5")


def test_a_missing_label_file(make_onnx, import_options, tmp_path):
    with pytest.raises(CardError, match=r"the label file nowhere\.txt does not exist"):
        draft_onnx(make_onnx(), import_options(labels="nowhere.txt"), tmp_path)
