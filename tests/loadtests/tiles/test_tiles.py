"""The scene is what it says, the bare loop's tiles are the service's, and a short run has figures of the schema."""

import io

import pytest
from click.testing import CliRunner
from PIL import Image

from loadtests.report import read_json
from loadtests.tiles import __main__ as command
from loadtests.tiles.bare import Bare, _starts
from loadtests.tiles.scene import Known, iou, large, recall, scene
from service.tasks.grid import Tiling, cuts_of
from zoo.card import Recipe


def test_a_scene_shows_what_it_says():
    image, known = scene()
    assert image.size == (4000, 3000)
    assert len(known) == 60
    assert {each.label for each in known} == {"person", "cat", "cup"}
    assert all(40 <= each.box[2] - each.box[0] <= 160 for each in known)
    assert scene()[1] == known
    assert scene(1)[1] != known
    image, (cat,) = large()
    assert (cat.box[2] - cat.box[0]) / image.width > 0.8


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([], 0.0),
        ([("cup", (0, 0, 10, 10))], 0.5),
        ([("cup", (0, 0, 10, 10))] * 2, 0.5),
        ([("cat", (0, 0, 10, 10)), ("cup", (0, 0, 10, 4))], 0.0),
        ([("cup", (1, 0, 10, 10)), ("cup", (21, 0, 30, 10))], 1.0),
    ],
)
def test_recall_counts_each_object_once(found, expected):
    known = [Known("cup", (0, 0, 10, 10)), Known("cup", (20, 0, 30, 10))]
    assert recall(known, [Known(*each) for each in found]) == expected


def test_intersection_over_union():
    assert iou(Known("a", (0, 0, 10, 10)), Known("a", (5, 0, 15, 10))) == pytest.approx(1 / 3)
    assert iou(Known("a", (0, 0, 10, 10)), Known("a", (10, 0, 15, 10))) == 0


@pytest.mark.parametrize("side", [417, 640, 3000, 4000])
def test_the_tiles_of_the_bare_loop_are_those_of_the_service(side):
    cuts = cuts_of(side, 416, Recipe(416, 416, "letterbox"), Tiling("auto", tile_full=False))
    assert _starts(side, 416, 0.2) == [left for left, *_ in cuts]


def test_a_short_run(models, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "scene", lambda: scene(columns=3, rows=2))
    out = tmp_path / "out.json"
    arguments = ["--model", str(models / "yolov4_tiny" / "1"), "--rounds", "1", "--json", str(out)]
    result = CliRunner().invoke(command.main, arguments)
    assert result.exit_code == 0, result.output
    assert "goal time over the bare loop's <= 1.10" in result.output
    written = read_json(out)
    assert written.details["tiles"] == 13, "4 x 3 and the whole image"
    assert written.details["recall"] >= 0.8 > written.details["recall_whole"]
    assert len(written.details["ratio"]) == 1
    assert written.measurements[0].requests == 1


@pytest.mark.parametrize("cores", [1, 2])
def test_the_bare_loop_keeps_the_fastest_way(models, cores):
    image, _ = scene(columns=2, rows=1)
    out = io.BytesIO()
    image.convert("RGB").save(out, "JPEG")
    assert Image.open(out).size == (800, 500)
    bare = Bare(str(models / "yolov4_tiny" / "1"), 0.2, cores)
    bare.choose(out.getvalue())
    assert bare.way.size in (1, 4, 8)
    assert bare.way.beside * bare.way.threads == cores
    assert bare.count(out.getvalue()) == 7
    assert bare.seconds(out.getvalue()) > 0
