"""Sessions of the real onnxruntime-gpu on simulated GPUs: options, placement, fixed buffers.

Functions without `test_` run in a process of their own, which `cuda_stub.call` starts.
"""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from service.engine.providers import CPU, CUDA, Tuning, requested
from service.engine.session import Session
from tests.service.engine.cuda_stub import inside
from zoo import catalog

MODELS = [card.name for card in catalog.cards() if card.default]


def images_for(session: Session, rows: int) -> dict[str, np.ndarray]:
    _, height, width, _ = session._session.get_inputs()[0].shape
    return inside.images(rows, height, width)


def options_in_use(model: Path, tuning: Tuning) -> dict[str, str]:
    return Session(model, "cuda", 1, tuning)._session.get_provider_options()[CUDA]


@pytest.mark.parametrize("search", ["EXHAUSTIVE", "HEURISTIC"])
@pytest.mark.parametrize("graphs", [False, True])
def test_every_option_is_accepted_and_used(cuda_stub, lenet, search, graphs):
    tuning = Tuning(search, cuda_graphs=graphs)
    used = cuda_stub.call(options_in_use, lenet, tuning, gpus=2)
    ((_, asked), _) = requested(CUDA, 1, tuning)
    assert used == used | {
        name: str(int(value)) if isinstance(value, bool) else str(value) for name, value in asked.items()
    }


class Profiled(Session):
    """A session that notes which provider ran which node."""

    def _session_options(self) -> ort.SessionOptions:
        options = super()._session_options()
        options.enable_profiling = True
        options.profile_file_prefix = tempfile.mkdtemp() + "/profile"
        return options

    def nodes(self) -> Iterator[dict]:
        for event in json.loads(Path(self._session.end_profiling()).read_bytes()):
            if event.get("cat") == "Node" and "provider" in event["args"]:
                yield event["args"]


def nodes_and_shapes(model: Path) -> tuple[list[dict], list[dict]]:
    session = Profiled(model, "cuda")
    runs = [session.run(images_for(session, rows)) for rows in (1, 4)]
    return list(session.nodes()), [{name: value.shape for name, value in run.items()} for run in runs]


@pytest.mark.parametrize("name", MODELS)
def test_all_but_arithmetic_of_shapes_is_on_the_gpu(cuda_stub, models, name):
    nodes, (one, four) = cuda_stub.call(nodes_and_shapes, models / name / "1" / "model.onnx")
    assert four == {output: (4, *shape[1:]) for output, shape in one.items()}
    assert {node["provider"] for node in nodes} <= {CUDA, CPU}
    assert not [node for node in nodes if "Memcpy" in node["op_name"]]
    for node in nodes:
        if node["provider"] == CPU:
            (tensor,) = node["output_type_shape"]
            ((kind, shape),) = tensor.items()
            assert kind == "int64", node
            assert len(shape) <= 1, node


def runs_when_bound(model: Path, graphs: bool) -> tuple[list[tuple[int, ...]], inside.Counts]:
    _, height, width, _ = Session(model, "cuda")._session.get_inputs()[0].shape
    lanes = inside.lanes(model, (1, 4), tuning=Tuning(cuda_graphs=graphs), side=height)
    runs = [lanes.run(inside.images(rows, height, width)) for rows in (1, 4)]
    return [value.shape for outputs in runs for value in outputs.values()], inside.counts()


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_every_model_runs_on_fixed_buffers_and_can_be_captured(cuda_stub, models, name, graphs):
    shapes, counts = cuda_stub.call(runs_when_bound, models / name / "1" / "model.onnx", graphs)
    half = len(shapes) // 2
    assert shapes[half:] == [(4, *shape[1:]) for shape in shapes[:half]]
    assert counts.captures == (2 if graphs else 0)
    assert counts.captures_spoiled == 0
    assert (counts.graph_launches >= 2) is graphs
