"""The results file of a folder: incomplete lines are removed, other content is refused."""

import json

import pytest
from zooserve_client.results_file import ResultsFile, ResultsFileError


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"my diary, without a line's end", "line 1: expected a JSON object with `file`"),
        (b'{"file":"a","model":"m"}\n{"id": 5}\n', "line 2: expected a JSON object with `file`"),
        (b'{"file":"a","model":"other"}\n', "line 1: answered by other, not m"),
        (b'{"file":"a","model":"m"}\n{"file":"a","model":"m"}\n', "line 2: a has a line already"),
        (b'[1, "a"]\n', "line 1: expected a JSON object"),
        (b'{"file":1,"model":"m"}\n', "line 1: expected a JSON object"),
        (b"\xff\0\0\n", "line 1: expected a JSON object with `file`"),
    ],
)
def test_a_file_with_other_content_is_not_changed(tmp_path, content, says):
    path = tmp_path / "out.jsonl"
    path.write_bytes(content)
    with pytest.raises(ResultsFileError, match=says):
        ResultsFile(path, "m")
    assert path.read_bytes() == content


@pytest.mark.parametrize("cut", range(1, 40))
def test_an_incomplete_last_line_is_removed(tmp_path, cut):
    path = tmp_path / "out.jsonl"
    with ResultsFile(path, "m") as lines:
        lines.add("a", {"predictions": []})
        lines.add("b", {"predictions": []})
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    with ResultsFile(path, "m") as lines:
        assert list(lines) == ["a"]
        lines.add("b", {"predictions": []})
    assert path.read_bytes() == whole


def test_lines_can_be_kept_in_any_order(tmp_path):
    path = tmp_path / "out.jsonl"
    with ResultsFile(path, "m") as lines:
        for name in "dbca":
            lines.add(name, {"error": {}} if name == "b" else {"predictions": [name]})
        assert lines.failed() == {"b"}
        lines.keep(["a", "c", "d"])
        lines.add("e", {"predictions": []})
        lines.keep(["e", "a"])
        assert (len(lines), lines.failed()) == (2, set())
    assert [line["file"] for line in map(json.loads, path.open())] == ["e", "a"]
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


def test_names_that_are_not_utf_8_are_read_again(tmp_path):
    path, name = tmp_path / "out.jsonl", b"caf\xe9\\ \xc3\xa9.jpg".decode(errors="surrogateescape")
    with ResultsFile(path, "m") as lines:
        lines.add(name, {"predictions": []})
    with ResultsFile(path, "m") as lines:
        assert list(lines) == [name]
    assert "é.jpg" in path.read_text()
