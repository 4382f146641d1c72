"""Noted class names survive their label file, whatever is in them."""

import json

import pytest

from export.importer.labels import shown_names, write_names
from zoo.labels import read_labels

WORLD = ("杯子", "Тарелка", "طبق", "จาน", "🍽️", "caf\u00e9", "cafe\u0301")


@pytest.mark.parametrize(
    ("names", "suffix"),
    [
        (("cup", "plate"), ".txt"),
        (WORLD, ".txt"),
        (("x" * 10_000, " padded "), ".txt"),
        (("a\u2028b", "a\x85b", "a\x0cb", "a\tb"), ".txt"),  # lines only to Python's `splitlines`
        (("a", "\ufeffb"), ".txt"),
        (("\ufeffa", "b"), ".json"),
        (("a", ""), ".json"),
        (("a", " "), ".json"),
        (("a\nb", "c"), ".json"),
        (("a\r\nb", "c\r"), ".json"),
    ],
)
def test_names_are_read_as_they_were_written(tmp_path, names, suffix):
    path = write_names(names, tmp_path, "net")
    assert path.endswith(suffix)
    assert read_labels(path) == names


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (("cup",), "1: cup"),
        (("a", "b", "c", "d"), "4: a, b, c, ..."),
        (("two\nlines", "", "x" * 100), f"3: two\\nlines, '', {'x' * 30}..."),
    ],
)
def test_the_report_has_one_line(names, shown):
    assert shown_names(names) == shown


def test_every_name_is_served_as_it_is(run, make_table, tmp_path):
    import numpy as np

    names = [*WORLD, "", "two\nlines", "x" * 3000]
    rows = np.zeros((300, 6), np.float32)
    for class_id in range(len(names)):
        rows[class_id] = (8 * class_id, 10, 8 * class_id + 8, 50, 0.9, class_id)
    file = make_table(rows, names=str(dict(enumerate(names))))
    result = run(file, "--license", "LicenseRef-own", "--accept-license", "AGPL-3.0-only", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["answer"]["predictions"]
    assert [one["label"] for one in sorted(found, key=lambda one: one["class_id"])] == names
    assert read_labels(str(tmp_path / "cards/net.json")) == tuple(names)
    assert (tmp_path / "net.png").stat().st_size > 10_000
