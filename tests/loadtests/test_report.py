"""Reports, tables and plots as they end up in files."""

import json

import msgspec
import pytest

from loadtests.report import Panel, Point, Report, machine, markdown_table, plot, report, versions, write_json


def test_report(tmp_path):
    done = report("compare", ["--peers", "a b"], machine(), {"x": "1"}, {"rounds": 3}, {"rate": 1 / 3, "of": [1, None]})
    write_json(tmp_path / "deep" / "out.json", done)
    text = (tmp_path / "deep" / "out.json").read_bytes()
    assert json.loads(text)["results"] == {"rate": 0.3333, "of": [1, None]}
    back = msgspec.json.decode(text, type=Report)
    assert back.command == "python -m loadtests.compare --peers 'a b'"
    assert (back.versions, back.settings) == ({"x": "1"}, {"rounds": 3})
    assert back.date.endswith("+00:00")
    assert back.machine.cores >= 1
    assert back.machine.memory_gb > 0
    assert back.machine.processor


def test_versions_leave_out_what_is_not_installed():
    found = versions(["numpy", "no-such-package-at-all"])
    assert list(found) == ["numpy"]
    assert found["numpy"][0].isdigit()


def test_markdown_table():
    assert markdown_table(["server", "rate"], [["a", "1.5"], ["longer name", "200.25"]]).splitlines() == [
        "| server      |   rate |",
        "| ----------- | -----: |",
        "| a           |    1.5 |",
        "| longer name | 200.25 |",
    ]


PANELS = [
    Panel(
        "closed", "rate", "p99, ms", {"a": [Point(10, 1.5, "1"), Point(20, 90, "8")], "b": [Point(5, 3), Point(6, 4)]}
    ),
    Panel("open", "rate", "p99, ms", {"a": [Point(10, 2)]}, scale="linear"),
]


@pytest.mark.parametrize(("name", "start"), [("p.svg", b"<?xml"), ("p.png", b"\x89PNG")])
def test_plot(tmp_path, name, start):
    plot(tmp_path / "deep" / name, PANELS, "a machine")
    data = (tmp_path / "deep" / name).read_bytes()
    assert data.startswith(start)


def test_the_same_figures_make_the_same_drawing(tmp_path):
    plot(tmp_path / "a.svg", PANELS)
    plot(tmp_path / "b.svg", PANELS)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
