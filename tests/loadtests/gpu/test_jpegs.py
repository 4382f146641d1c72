"""nvImageCodec, of the extra `gpu-jpeg`, without a GPU: what it decodes on the CPU, and how it is refused.

Functions without `test_` run in a process in which it is installed.
"""

import io
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime as ort
import pytest
from PIL import Image

from loadtests.album import encode
from loadtests.gpu import engine, jpegs
from loadtests.gpu.engine import Model
from service.vision.decode import EncodedImage
from tests.service.engine import apart
from tests.service.engine.cuda_stub import inside
from zoo.errors import MissingError
from zoo.extras import installed

NVIMGCODEC = "nvidia-nvimgcodec-cu13", "0.9.0.20"


@pytest.fixture(scope="module")
def call(request) -> Callable:
    """Calls a function in a process in which nvImageCodec is installed."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    try:
        with capture.global_and_fixture_disabled():  # the progress of a long download is seen
            packages = apart.fetch(
                *NVIMGCODEC, "25 MB", ["==".join(NVIMGCODEC)], lambda text: print(f"\n{text}", flush=True)
            )
    except apart.UnavailableError as error:
        pytest.skip(str(error))
    return partial(apart.call, packages, {})


def decoded_on_the_cpu(files: list[bytes]) -> list[np.ndarray | None]:
    from nvidia import nvimgcodec

    decoder = jpegs.decoder(nvimgcodec.NVIMGCODEC_DEVICE_CPU_ONLY)
    images = None
    for some in (files[::-1], files):  # the second time into the memory of the first
        images = decoder.decode([nvimgcodec.CodeStream(data) for data in some], images=images)
    return [None if image is None else np.array(image.cpu()) for image in images]


def test_a_batch_is_decoded_as_the_service_decodes(call, models):
    golden = sorted((models / "mobilenet_v2" / "1" / "golden").iterdir())
    files = [encode(Image.open(path).convert("RGB"), 94) for path in golden]
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation
    Image.open(golden[0]).convert("RGB").save(turned, "JPEG", quality=94, exif=exif)
    files.append(turned.getvalue())
    grey = io.BytesIO()
    Image.open(golden[0]).convert("L").save(grey, "JPEG", quality=94)
    files.append(grey.getvalue())
    for found, data in zip(call(decoded_on_the_cpu, files), files, strict=True):
        expected = np.asarray(EncodedImage(data, 10**9).image())
        assert found.shape == expected.shape
        assert np.abs(found.astype(int) - expected).mean() < 0.5
        assert np.abs(found.astype(int) - expected).max() <= 3


def refused() -> str:
    try:
        jpegs.decoder(0)
    except jpegs.DecodeError as error:
        return str(error)
    return ""


def test_without_a_gpu_it_is_refused_with_a_reason(call):
    assert call(refused).startswith("nvImageCodec cannot use GPU 0: check the driver (nvidia-smi)")


@pytest.mark.skipif(installed("nvidia.nvimgcodec"), reason="it is installed here")
def test_without_the_package_the_command_that_installs_it_is_said():
    with pytest.raises(MissingError, match=r"gpu-jpeg"):
        jpegs.decoder(0)


class DecodedElsewhere:
    """Images in the GPU's memory, as nvImageCodec gives them."""

    def __init__(self, images: list[np.ndarray]) -> None:
        self._values = [ort.OrtValue.ortvalue_from_numpy(image, "cuda", 0) for image in images]

    def decode(self, streams: list[object], images: object, cuda_stream: int) -> list[object]:
        assert cuda_stream
        return [
            SimpleNamespace(__cuda_array_interface__={"shape": value.shape(), "data": (value.data_ptr(), False)})
            for value, _ in zip(self._values, streams, strict=True)
        ]


def rows_of_answers(root: Path, name: str, sizes: list[tuple[int, int]]) -> dict[str, int]:
    model = Model(root, name)
    images = [np.zeros((*size, 3), np.uint8) for size in sizes]
    jpegs.decoder = lambda _: DecodedElsewhere(images)
    sys.modules["nvidia.nvimgcodec"] = nvidia = SimpleNamespace(CodeStream=bytes)
    sys.modules["nvidia"] = SimpleNamespace(nvimgcodec=nvidia)
    engine.need_cuda("cuda")
    gpu = jpegs.GpuJpegs(model, len(sizes))
    gpu.prepare([b""] * len(sizes))  # copies the weights of each size
    before = inside.counts()
    gpu.prepare([b""] * len(sizes))
    resized = inside.counts().since(before)
    answers = gpu.run([b""] * len(sizes))
    assert resized.synchronisations == 1, resized
    return {name: len(value) for name, value in answers.items()}


@pytest.mark.parametrize("name", ["mobilenet_v2", "yolov4_tiny"])
def test_resizing_runs_on_the_gpu_alone_and_waits_once(cuda_stub, models, name):
    """What is computed cannot be seen: the GPU is simulated."""
    answers = cuda_stub.call(rows_of_answers, models, name, [(480, 640), (640, 480), (97, 31)])
    assert set(answers.values()) == {3}
