"""Plots as they end up in files."""

import pytest

from loadtests.plots import Panel, Point, plot

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
