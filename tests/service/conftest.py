"""Two graphs that no task describes, added as their owner would, a server that batches them, and another's kernels."""

import asyncio
import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from google.protobuf import descriptor_pool

from service.engine.plugins import plugins
from tests.conftest import free_port, serving
from tests.service.engine import apart
from zoo import catalog
from zoo.cli import main
from zoo.store import Store

KEY = {"X-API-Key": "admin-key"}
OPENVINO = "onnxruntime-ep-openvino", "1.8.1"


@pytest.fixture(scope="session")
def openvino(request) -> Callable[..., Any]:
    """Calls a function in a process in which OpenVINO's plug-in is installed: `openvino(function, argument, ...)`."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    try:
        with capture.global_and_fixture_disabled():  # the progress of a long download is seen
            packages = apart.fetch(
                *OPENVINO, "53 MB", ["==".join(OPENVINO)], lambda text: print(f"\n{text}", flush=True)
            )
    except apart.UnavailableError as error:
        pytest.skip(str(error))
    call = partial(apart.call, packages, {})
    if not call(plugins_are_here):
        pytest.skip("OpenVINO's plug-in has no kernels for this processor")
    return call


def plugins_are_here() -> bool:
    """Whether a plug-in has kernels for this processor."""
    return bool(plugins())


@pytest.fixture(scope="session")
def own_graphs(tmp_path_factory):
    """ONNX files: `gru`, a classifier of [N, T, F] whose T is free, and `style`, [N, 3, H, W] -> [N, 3, H, W]."""
    import torch
    from torch import nn

    class Gru(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru, self.head = nn.GRU(8, 16, batch_first=True), nn.Linear(16, 3)

        def forward(self, x):
            states, _ = self.gru(x)
            return {"logits": self.head(states[:, -1]), "states": states}

    style = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.InstanceNorm2d(8, affine=True),
        nn.ReLU(),
        nn.Conv2d(8, 3, 3, padding=1),
        nn.Sigmoid(),
    )
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("graphs")
    dim = torch.export.Dim
    for name, module, example, axes, outputs in (
        ("gru", Gru(), torch.zeros(2, 5, 8), {0: dim("n"), 1: dim("T")}, ["logits", "states"]),
        ("style", style, torch.zeros(2, 3, 32, 48), {0: dim("n"), 2: dim("H"), 3: dim("W")}, ["y"]),
    ):
        torch.onnx.export(
            module.eval(),
            (example,),
            folder / f"{name}.onnx",
            dynamo=True,
            external_data=False,
            input_names=["x"],
            output_names=outputs,
            dynamic_shapes=(axes,),
            verbose=False,
        )
    return folder


@pytest.fixture(scope="session")
def mixed_store(own_graphs, models, conversions, tmp_path_factory):
    """A store with both, added by `zooserve add`, and two models for images."""
    store = tmp_path_factory.mktemp("mixed")
    for name in ("gru", "style"):
        arguments = ["add", str(own_graphs / f"{name}.onnx"), "--task", "tensors", "--license", "LicenseRef-own"]
        arguments += ["--out", str(store / "cards"), "--models", str(store), "--json"]
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, result.output
    for name in ("mobilenet_v2", "yolov4_tiny"):
        (store / name).symlink_to(models / name)
    return store


@pytest.fixture(scope="session")
def oip(mixed_store, tmp_path_factory):
    """A server that answers them in batches of up to 8, over HTTP and at `server.grpc`."""
    settings = {"ZOOSERVE_MAX_BATCH": "8", "ZOOSERVE_THREADS": "2", "ZOOSERVE_ADMIN_KEYS": "admin-key"}
    settings |= {"ZOOSERVE_GRPC_PORT": str(port := free_port()), "ZOOSERVE_MODELS": str(mixed_store)}
    with serving(tmp_path_factory.mktemp("oip") / "log", **settings) as server:
        server.grpc = f"127.0.0.1:{port}"
        server.wait(200)
        yield server


@pytest.fixture(scope="session")
def triton():
    """`tritonclient.grpc`. KServe's client has other messages under the same names: each gets a pool of its own."""
    with pytest.MonkeyPatch.context() as patch:
        pool = descriptor_pool.DescriptorPool()
        patch.setattr(descriptor_pool, "Default", lambda: pool)
        importlib.import_module("tritonclient.grpc.aio")
        return importlib.import_module("tritonclient.grpc")


@pytest.fixture(scope="session")
def course(conversions, tmp_path_factory):
    """A server with the zoo's own models that take tensors, or answer images without a task."""
    from export.pipeline import export_model

    store = tmp_path_factory.mktemp("course")
    for name in ("char_lstm", "digits_gan", "steering", "style_tissue"):
        export_model(catalog.find(name), Store(store))
    log = tmp_path_factory.mktemp("course-log") / "log"
    with serving(log, ZOOSERVE_MODELS=str(store), ZOOSERVE_WORKERS="1", ZOOSERVE_PIXELS="exact") as server:
        server.wait(200, 120)
        server.store = Store(store)
        yield server


@pytest.fixture(scope="session")
def coffee() -> bytes:
    return catalog.sample("coffee").read_bytes()


@pytest.fixture(scope="session")
def run_alone(own_graphs):
    """What ONNX Runtime itself answers: the name of a graph and its input -> its outputs by name."""
    import onnxruntime

    sessions = {name: onnxruntime.InferenceSession(own_graphs / f"{name}.onnx") for name in ("gru", "style")}

    def run(name: str, x: np.ndarray) -> dict[str, np.ndarray]:
        names = [output.name for output in sessions[name].get_outputs()]
        return dict(zip(names, sessions[name].run(names, {"x": x}), strict=True))

    return run


@pytest.fixture(scope="session")
def batches(oip):
    """Count a model's runs and the rows in them: a function of its name."""

    def count(model: str) -> tuple[int, int]:
        stats = oip.client.get(f"/v2/models/{model}/stats").json()["model_stats"][0]
        return stats["execution_count"], stats["inference_count"]

    return count


@pytest.fixture
def together():
    """Await many at once from ordinary code."""

    def run(coroutine):
        return asyncio.run(coroutine)

    return run
