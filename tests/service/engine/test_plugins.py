"""Kernels of another library: OpenVINO's plug-in, in processes in which it is installed."""

from pathlib import Path

import numpy as np
import pytest

from service.engine.kernels import Candidate, measure_kernels
from service.engine.plugins import plugins
from service.engine.session import NARROW, Session, Width
from tests.service.engine.clock import Clock

OPENVINO = "OpenVINOExecutionProvider"


def test_nothing_is_registered_where_no_package_is_installed():
    assert plugins() == []


@pytest.mark.parametrize(
    ("others", "used"),
    [
        ([], "own"),
        ([("fast", 0.5, 0.5, True)], "fast"),
        ([("alone", 0.5, 1.0, True)], "own"),  # a full house would lose by it
        ([("busy", 1.0, 0.5, True)], "own"),
        ([("wrong", 0.1, 0.1, False)], "own"),
        ([("hardly", 0.97, 0.97, True)], "own"),
        ([("fast", 0.5, 0.5, True), ("faster", 0.4, 0.4, True)], "faster"),
    ],
)
def test_kernels_are_used_where_they_are_faster_in_both_ways_and_right(monkeypatch, others, used):
    clock = Clock(monkeypatch, "service.engine.kernels")
    candidates = [
        Candidate(name, "1", golden, clock.run(alone), clock.run(busy))
        for name, alone, busy, golden in [("own", 1.0, 1.0, True), *others]
    ]
    rows = measure_kernels(candidates, {}, 1)
    assert [row.provider for row in rows if row.used] == [used]
    assert len(rows) == 1 + len(others), "what was not chosen is shown, too"


def answers(graph: Path) -> list[float]:
    """The largest difference of OpenVINO's answers from ONNX Runtime's own, on one thread and on two."""
    images = {"images": np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), np.uint8)}
    own = Session(graph, "cpu").run(images)["probabilities"]
    [plugin] = plugins()
    found = [Session(graph, "cpu", width=width, plugin=plugin, cores=2) for width in (NARROW, Width(2))]
    assert {session.provider for session in found} == {OPENVINO}
    assert not any(session.on_gpu for session in found)
    return [float(np.abs(session.run(images)["probabilities"] - own).max()) for session in found]


def test_openvino_answers_as_onnx_runtime(openvino, mobilenet):
    assert openvino(answers, mobilenet) == pytest.approx([0, 0], abs=1e-5)
