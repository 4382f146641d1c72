"""What a file notes and what it answers decide what its rows mean; everything else is refused, and named."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.importer.rows import choose_layout, counts
from export.ultralytics.notes import Notes
from zoo.errors import ExportError
from zoo.store import Store

SIZE = (640, 640)
NOTED = {"names": "{0: 'cup', 1: 'plate'}", "stride": "32", "task": "detect"}
RT_DETR = NOTED | {"head": "RTDETRDecoder"}
OLDER_RT_DETR = NOTED | {"description": "Ultralytics rt-detr-l model trained on coco.yaml"}
OPTIONS = ["--license", "LicenseRef-own", "--accept-license", "AGPL-3.0-only", "--json"]


def rows(shape, *first):
    """float32 [rows, columns] of zeros but for the first rows."""
    filled = np.zeros(shape, np.float32)
    for row, values in enumerate(first):
        filled[row, : len(values)] = values
    return filled


PIXELS = (320, 320, 200, 100)
CORNERS = (220, 270, 420, 370)
UNIT = (0.5, 0.5, 0.4, 0.2)
CASES = [
    # the rows, the number of labels, the notes, and the layout
    (rows((8400, 6), (*PIXELS, 0.2, 0.9)).T, 2, NOTED, "yolov8"),
    (rows((25200, 7), (*PIXELS, 0.9, 0.2, 0.9)), 2, {}, "yolov5"),
    (rows((8400, 7), (*PIXELS, 0.9, 0.2, 0.9)), 2, {}, "yolov5"),  # YOLOX, decoded, has one anchor per cell
    (rows((8400, 7), (0.3, -0.4, 2.9, 1.5, 0.9, 0.2, 0.9), (0.1, 0.2, -0.5, 1)), 2, {}, "yolox"),
    (rows((25200, 6), (*PIXELS, 0.9, 0.9)), 1, {}, "yolov5"),
    (rows((300, 6), (*CORNERS, 0.9, 1)), 2, NOTED, "end2end"),
    (rows((300, 6), (*CORNERS, 0.9, 0)), 1, {}, "end2end"),
    (rows((300, 6)), 2, NOTED, "end2end"),  # finds nothing
    (rows((300, 6), (*UNIT, 0.9, 1)), 2, RT_DETR, "rtdetr_top"),
    (rows((300, 6), (*UNIT, 0.9, 1)), 2, OLDER_RT_DETR, "rtdetr_top"),
    (rows((300, 6), (*UNIT, 0.2, 0.9)), 2, RT_DETR, "rtdetr"),  # two classes: the same shape, other columns
    (rows((300, 84), (*UNIT, *[0.0] * 40, 0.9)), 80, OLDER_RT_DETR, "rtdetr"),
]
REFUSED = [
    (rows((300, 7), (*PIXELS, 0.9, 1, 0.5)), 2, {}, "known are yolov8"),  # rotated boxes, without their notes
    (rows((300, 6), (*UNIT, 0.9, 1)), 2, {}, "as end2end .*, its boxes would be in 0..1 instead of in pixels"),
    (rows((300, 6), (*CORNERS, 0.9, 1)), 2, RT_DETR, "as rtdetr_top .* coordinates up to 420 instead of 1"),
    (rows((300, 6), (*CORNERS, 0.9, 0.5)), 2, NOTED, "other numbers than the ids 0 to 1"),
    (rows((300, 6), (*CORNERS, 0.9, 2)), 2, NOTED, "other numbers than the ids 0 to 1"),
    (rows((300, 6), (420, 370, 220, 270, 0.9, 1)), 2, NOTED, "its boxes would end before they begin"),
    (rows((8400, 6), (*PIXELS, -3, 2.5)).T, 2, NOTED, "its scores would go from -3 to 2.5 instead of from 0 to 1"),
    (rows((8400, 6), (*PIXELS, np.nan, 0.1)).T, 2, NOTED, "its scores would go from nan"),
    (rows((8400, 6), (*UNIT, 0.2, 0.9)).T, 2, {}, "as yolov8 .*, its boxes would be in 0..1 instead of in pixels"),
    (
        rows((8400, 7), (*PIXELS, 0.9, 0.2, 0.9), (1, 1, -1, 1)),
        2,
        {},
        r"such as -1; as yolox .* as large as exp\(200\)",
    ),
    (rows((8400, 6), (*CORNERS, 0.9, 1)), 2, NOTED, "known are yolov8"),  # NMS was asked for, at another size
]


@pytest.mark.parametrize(("answer", "labels", "noted", "layout"), CASES)
def test_the_layout_is_what_notes_shape_and_answers_agree_on(answer, labels, noted, layout):
    assert choose_layout(answer[None], labels, {}, SIZE, Notes(noted), Path("net.onnx"))[0] == layout
    possible = counts((1, *answer.shape), {}, SIZE, Notes(noted))
    assert not possible or labels in possible


@pytest.mark.parametrize(("answer", "labels", "noted", "message"), REFUSED)
def test_what_is_answered_otherwise_is_refused(answer, labels, noted, message):
    with pytest.raises(ExportError, match=rf"net\.onnx: its rows .*{message}.* --task tensors"):
        choose_layout(answer[None], labels, {}, SIZE, Notes(noted), Path("net.onnx"))


def test_instances_have_coefficients():
    answer = rows((300, 38), (*CORNERS, 0.9, 1, *[2.5] * 32))
    assert choose_layout(answer[None], 2, {"coefficients": 32}, SIZE, Notes(NOTED), Path("net.onnx"))[0] == "end2end"


@pytest.mark.parametrize(
    ("noted", "named"),
    [
        ({"task": "obb", "head": "Detect"}, "head 'Detect'"),
        ({"task": "depth"}, "'depth'"),
        ({"task": "semantic"}, "'semantic'"),
        ({"task": "track"}, "'track'"),
        ({"head": "MyHead"}, "head 'MyHead': what it answers is not known"),
        ({"task": "segment", "head": "Detect"}, "head 'Detect'"),
    ],
)
def test_another_head_is_refused_and_named(run, make_table, tmp_path, noted, named):
    """The rows would fit a detector of two classes."""
    file = make_table(rows((300, 7), (50, 40, 20, 10, 0.9, 1, 0.5)), **noted)
    for more in ([], ["--task", "detect"]):
        result = run(file, *OPTIONS, *more)
        assert result.exit_code == 1
        assert re.search(rf"is noted as .*{named}.* --task tensors", result.stderr), result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


@pytest.mark.parametrize(
    ("noted", "answer", "box"),
    [
        ({"head": "RTDETRDecoder"}, rows((300, 6), (*UNIT, 0.9, 1)), [180, 160, 420, 240]),
        ({"head": "RTDETRDecoder"}, rows((300, 6), (*UNIT, 0.1, 0.9)), [180, 160, 420, 240]),
        (
            {"description": "Ultralytics RT-DETR", "names": str({i: str(i) for i in range(9)} | {5: "plate"})},
            rows((300, 13), (*UNIT, 0, 0, 0, 0, 0, 0.9)),
            [180, 160, 420, 240],
        ),
        ({}, rows((300, 6), (19.2, 0, 57.6, 64, 0.9, 1)), [120, 0, 360, 400]),  # letterboxed 600 x 400 fills 96 x 64
    ],
)
def test_the_box_lies_where_the_network_says(run, make_table, tmp_path, noted, answer, box):
    Image.new("RGB", (600, 400), "teal").save(tmp_path / "photo.png")
    result = run(make_table(answer, **noted), *OPTIONS, "--photo", tmp_path / "photo.png")
    assert result.exit_code == 0, result.output
    (found,) = json.loads(result.stdout)["answer"]["predictions"]
    assert (found["label"], found["score"]) == ("plate", 0.9)
    assert found["box"] == pytest.approx(box, abs=0.1)
    stretched = "RT" in str(noted)
    card = Store(tmp_path / "models").verify("net", "1")
    assert (card.recipe.resize, card.nms) == ("stretch" if stretched else "letterbox", False)


@pytest.mark.parametrize(
    ("noted", "names"),
    [
        ('{"0": "cup", "1": "\\ud83c\\udf7d"}', ("cup", "🍽")),  # JSON, as other exporters write it
        ('["cup", "plate"]', ("cup", "plate")),
        ("{0: 'cup', 1: '\\ud83c'}", ("cup", "?")),  # half a character
        ("{'0': 'cup', '2': 'plate'}", ()),
    ],
)
def test_names_in_other_forms(noted, names):
    assert Notes({"names": noted}).names == names
    assert bool(Notes({"names": noted}).unread_names) == (not names)
