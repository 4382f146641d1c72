"""YOLO networks that are published as ONNX: layouts, and the real YOLOv8n and YOLO26n."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torchvision.ops import batched_nms, box_iou

from export.families.yolo_onnx import build
from zoo import catalog
from zoo.errors import ExportError
from zoo.labels import read_labels
from zoo.sources import fetch_all

CLASSES, MASKS = 10, 4
PHOTOS = ("astronaut", "chelsea", "coffee")


def value(name, *shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


@pytest.fixture
def save(tmp_path):
    """Write a network [1, 3, 64, 96] -> `rows` [1, channels, 24] or, transposed, [1, 24, channels]; and prototypes."""

    def save(channels, *, transposed=False, prototypes=False, outputs=None):
        rng = np.random.default_rng(0)
        weights = rng.normal(0, 0.02, (channels, 3, 16, 16)).astype(np.float32)
        nodes = [
            helper.make_node("Conv", ["x", "w"], ["map"], strides=[16, 16]),
            helper.make_node("Sigmoid", ["map"], ["scores"]),  # a name that raw answers have too
            helper.make_node("Reshape", ["scores", "shape"], ["flat"]),
            helper.make_node("Transpose", ["flat"], ["last"], perm=[0, 2, 1]),
            helper.make_node("Conv", ["x", "p"], ["prototypes"], strides=[8, 8]),
        ]
        shapes = {"flat": (1, channels, 24), "last": (1, 24, channels), "map": (1, channels, 4, 6)}
        shapes["prototypes"] = (1, MASKS, 8, 12)
        wanted = outputs or (["last" if transposed else "flat"] + ["prototypes"] * prototypes)
        graph = helper.make_graph(
            nodes,
            "net",
            [value("x", 1, 3, 64, 96)],
            [value(name, *shapes[name]) for name in wanted],
            [
                numpy_helper.from_array(weights, "w"),
                numpy_helper.from_array(rng.normal(0, 1, (MASKS, 3, 8, 8)).astype(np.float32), "p"),
                numpy_helper.from_array(np.array([1, channels, -1]), "shape"),
            ],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.save_model(model, tmp_path / "net.onnx")
        return {"weights": tmp_path / "net.onnx"}

    return save


def published(files, x):
    """What the file itself answers, one image at a time, by name."""
    session = onnxruntime.InferenceSession(files["weights"])
    names = [output.name for output in session.get_outputs()]
    answers = [session.run(names, {session.get_inputs()[0].name: one[None]}) for one in x]
    return dict(zip(names, map(np.concatenate, zip(*answers, strict=True)), strict=True))


def corners(centres):
    return np.concatenate([centres[..., :2] - centres[..., 2:] / 2, centres[..., :2] + centres[..., 2:] / 2], -1)


@pytest.mark.parametrize("masks", [0, MASKS])
@pytest.mark.parametrize("layout", ["yolov8", "yolov5", "end2end"])
def test_layouts_are_recognised_and_decoded(make_card, save, layout, masks):
    channels = {"yolov8": 4 + CLASSES, "yolov5": 5 + CLASSES, "end2end": 6}[layout] + masks
    card = make_card("segment" if masks else "detect", labels="digits")
    files = save(channels, transposed=layout != "yolov8", prototypes=bool(masks))
    network = build(card, files)
    x = np.random.default_rng(1).random((3, 3, 64, 96), np.float32)
    answer = published(files, x)
    rows = answer["flat"].transpose(0, 2, 1) if layout == "yolov8" else answer["last"]
    wanted = {"boxes": rows[..., :4] if layout == "end2end" else corners(rows[..., :4])}
    if layout == "yolov8":
        wanted["scores"] = rows[..., 4 : 4 + CLASSES]
    elif layout == "yolov5":
        wanted["scores"] = rows[..., 5 : 5 + CLASSES] * rows[..., 4:5]
    else:
        wanted |= {"scores": rows[..., 4], "classes": rows[..., 5]}
    if masks:
        wanted |= {"coefficients": rows[..., -masks:], "prototypes": answer["prototypes"]}
    assert network.nms is (layout != "end2end")
    raw = network.reference(x)
    assert raw.keys() == wanted.keys()
    session = onnxruntime.InferenceSession(network.module.SerializeToString())
    names = [output.name for output in session.get_outputs()]
    batch = dict(zip(names, session.run(names, {session.get_inputs()[0].name: x}), strict=True))
    for name, want in wanted.items():
        np.testing.assert_allclose(raw[name], want, atol=1e-6)
        np.testing.assert_allclose(batch[name], want, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "answers"),
    [({}, None), ({"layout": "yolov5"}, {"boxes", "scores"}), ({"layout": "end2end"}, {"boxes", "scores", "classes"})],
)
def test_where_two_layouts_fit_the_card_decides(make_card, save, tmp_path, options, answers):
    (tmp_path / "one.txt").write_text("face\n")
    card = make_card("detect", labels=str(tmp_path / "one.txt"), options=options)
    files = save(6, transposed=True)
    if answers is None:
        with pytest.raises(ExportError, match=r"\[1, 24, 6\], .* fits end2end and yolov5 and rtdetr_top; .* None"):
            build(card, files)
    else:
        assert {output.name for output in build(card, files).module.graph.output} == answers


@pytest.mark.parametrize(
    ("task", "form", "options", "message"),
    [
        (
            "detect",
            {"channels": 84},
            {},
            r"'flat' \[1, 84, 24\], .* 10 labels .* fits no known layout.* Known are yolov8 \[",
        ),
        ("detect", {"channels": 14}, {"layout": "yolov5"}, "fits yolov8; the card's option `layout` is 'yolov5'"),
        ("detect", {"channels": 14, "outputs": ["flat", "last"]}, {}, "option `output` is None, .* 'flat' .*, 'last' "),
        ("detect", {"channels": 14, "outputs": ["map"]}, {}, r"one of 'map' \[1, 14, 4, 6\] that holds .* export the"),
        ("segment", {"channels": 18}, {}, "one output must hold the prototypes"),
        ("detect", {"channels": 18, "prototypes": True}, {}, "fits no known layout"),
    ],
)
def test_other_answers_are_refused(make_card, save, task, form, options, message):
    with pytest.raises(ExportError, match=rf"net\.onnx: .*{message}"):
        build(make_card(task, labels="digits", options=options), save(**form))


@pytest.mark.parametrize(
    ("noted", "message"),
    [
        ({"task": "obb"}, "a network that can obb, but net is to detect"),
        ({"task": "segment", "head": "Segment"}, "a network that can segment, but net is to detect"),
        ({"head": "RTDETRDecoder"}, "fits no known layout"),
    ],
)
def test_a_card_cannot_say_otherwise_than_the_file(make_card, save, noted, message):
    files = save(14)
    model = onnx.load(files["weights"])
    helper.set_model_props(model, {"names": "{}", "stride": "32"} | noted)
    onnx.save_model(model, files["weights"])
    with pytest.raises(ExportError, match=message):
        build(make_card("detect", labels="digits"), files)


def test_of_several_outputs_the_card_chooses(make_card, save):
    files = save(14, outputs=["flat", "last"])
    network = build(make_card("detect", labels="digits", options={"output": "flat"}), files)
    assert {output.name for output in network.module.graph.output} == {"boxes", "scores"}


def found(answer, row, score=0.5):
    """Boxes, scores and classes of one image over a score, after NMS."""
    sure = answer["scores"][row] >= score
    boxes, scores, classes = (torch.from_numpy(answer[k][row][sure]) for k in ("boxes", "scores", "classes"))
    keep = batched_nms(boxes, scores, classes, 0.45)
    return boxes[keep], scores[keep], classes[keep]


def test_yolov8n_is_the_same_from_its_checkpoint_and_from_onnx(served, make_images):
    torch_made, onnx_made = served("yolov8n"), served("yolov8n_onnx")
    images = make_images(torch_made.card.recipe, *PHOTOS)
    ours, theirs = torch_made(images), onnx_made(images)
    for row, label in enumerate(("person", "cat", "cup")):
        boxes, scores, classes = found(ours, row)
        others = found(theirs, row)
        assert read_labels("coco80")[classes[0]] == label
        assert classes.tolist() == others[2].tolist()
        assert box_iou(boxes, others[0]).diagonal().min() > 0.98
        torch.testing.assert_close(scores, others[1], atol=0.01, rtol=0)


def test_yolo26n_answers_as_published_and_needs_no_nms(served, make_images):
    network = served("yolo26n")
    images = make_images(network.card.recipe, *PHOTOS)
    assert not network.network.nms
    answer = network(images)
    assert answer["boxes"].shape == (3, 300, 4)
    x = np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32) / 255
    rows = published(fetch_all(network.card.sources, progress=False), x)["output0"]
    for row in range(len(PHOTOS)):
        sure = answer["scores"][row] > 0.5
        want = rows[row][rows[row][:, 4] > 0.5]
        assert sure.sum() == len(want) > 0
        np.testing.assert_allclose(answer["boxes"][row][sure], want[:, :4], atol=0.05)
        np.testing.assert_allclose(answer["scores"][row][sure], want[:, 4], atol=1e-3)
        assert answer["classes"][row][sure].tolist() == want[:, 5].tolist()
        assert len(found(answer, row)[0]) == sure.sum()  # NMS would take nothing away


def test_an_end_to_end_file_knows_how_many_classes_it_scores(make_card):
    card = catalog.find("yolo26n")
    other = make_card("detect", labels="voc21", recipe=card.recipe)
    with pytest.raises(ExportError, match=r"yolo26n\.onnx: the network scores 80 classes, but 'voc21' has 21 labels"):
        build(other, fetch_all(card.sources, progress=False))
