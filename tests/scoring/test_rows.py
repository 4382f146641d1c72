"""Parquet's nested columns hold exactly what `/v1` answers, for every task and form."""

import io

import msgspec
import pytest
from pyarrow import parquet

from loadtests.scoring.score import _without_nulls
from scoring.rows import Problem, Row, schema_of, write_rows
from service.results import (
    Classification,
    CocoPose,
    Detection,
    Embedding,
    ImageSize,
    Instance,
    Png,
    Polygons,
    Pose,
    RotatedBox,
    RunLength,
    Segment,
)
from service.tasks import options_of

POINT = (1.5, 2.0)
BOX = (0.1, 0.2, 30.25, 40.0)
CASES = [
    ("classify", {}, [Classification(1, "cat", 0.123456), Classification(2, "dog", 0.1, BOX, Png("aGk="))]),
    ("embed", {}, [Embedding([0.5, -1.25, 0.0])]),
    ("detect", {}, [Detection(0, "person", 0.9, BOX)]),
    ("detect", {}, []),
    ("segment", {}, [Segment(3, "sky", 0.5, RunLength((4, 5), "abc")), Segment(4, "sea", 0.25)]),
    ("segment", {}, [Instance(3, "cup", 0.5, BOX, 0.1, Polygons([[1.0, 2.0], [3.0, 4.0]]))]),
    ("pose", {}, [Pose(0, "person", 0.9, BOX, {"nose": (1.0, 2.0, 0.5), "left eye": (3.0, 4.0, 1.0)})]),
    ("pose", {"form": "coco"}, [CocoPose(1, [1.0, 2.0, 0.5], 0.9, BOX)]),
    ("obb", {}, [RotatedBox(0, "ship", 0.9, (POINT, POINT, POINT, POINT), POINT, POINT, 0.5)]),
]


@pytest.mark.parametrize(("task", "options", "predictions"), CASES, ids=lambda value: str(value)[:30])
def test_a_row_comes_back_as_json_has_it(task, options, predictions):
    row = Row("/a.jpg", "m", "1", "0" * 64, task, 10, "1" * 64, ImageSize(4, 5), predictions)
    file = io.BytesIO()
    write_rows(file, [row], schema_of(options_of(task, options)), "parquet")
    (found,) = parquet.read_table(io.BytesIO(file.getvalue())).to_pylist(maps_as_pydicts="strict")
    assert _without_nulls(found) == msgspec.json.decode(msgspec.json.encode(row))


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_errors_are_counted(tmp_path, form):
    from scoring.rows import count_rows
    from scoring.storage import Folder

    bad = Row("/b.jpg", "m", "1", "0" * 64, "detect", error=Problem(400, "undecodable", 'cut off,"error":{"status":'))
    good = Row('/,"error":{"status":.jpg', "m", "1", "0" * 64, "detect", 1, "2", ImageSize(1, 1), [])
    out = Folder(str(tmp_path))
    with out.writing(f"a.{form}") as file:
        write_rows(file, [good, bad, good], schema_of(options_of("detect", {})), form)
    assert count_rows(out, f"a.{form}") == (3, 1)
