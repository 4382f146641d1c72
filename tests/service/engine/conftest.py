"""What the engine's tests share: a GPU that is none."""

from pathlib import Path

import pytest

from tests.service.engine.apart import UnavailableError
from tests.service.engine.cuda_stub.stub import Stub, build, packages


@pytest.fixture(scope="session")
def cuda_stub(request, tmp_path_factory) -> Stub:
    """Calls functions in processes with the real onnxruntime-gpu on simulated GPUs: `cuda_stub.call(function, ...)`."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    try:
        libraries = build(tmp_path_factory.mktemp("cuda_stub"))
        with capture.global_and_fixture_disabled():  # the progress of a long download is seen
            return Stub(libraries, packages(lambda text: print(f"\n{text}", flush=True)))
    except UnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture
def lenet(models) -> Path:
    """The graph of lenet5: three convolutions and two products."""
    return models / "lenet5" / "1" / "model.onnx"


@pytest.fixture
def mobilenet(models) -> Path:
    """The graph of mobilenet_v2, for images of 224 x 224 pixels."""
    return models / "mobilenet_v2" / "1" / "model.onnx"
