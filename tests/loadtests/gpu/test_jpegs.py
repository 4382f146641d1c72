"""nvImageCodec, of the extra `gpu-jpeg`, without a GPU: what it decodes on the CPU, and how it is refused.

Functions without `test_` run in a process in which it is installed.
"""

import io
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from PIL import Image

from loadtests.album import encode
from loadtests.gpu import jpegs
from service.vision.decode import EncodedImage
from tests.service.engine import apart
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
    images = decoder.decode([nvimgcodec.CodeStream(data) for data in files])
    return [None if image is None else np.array(image.cpu()) for image in images]


def test_a_batch_is_decoded_as_the_service_decodes(call, models):
    golden = sorted((models / "mobilenet_v2" / "1" / "golden").iterdir())
    files = [encode(Image.open(path).convert("RGB"), 94) for path in golden]
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation
    Image.open(golden[0]).convert("RGB").save(turned, "JPEG", quality=94, exif=exif)
    files.append(turned.getvalue())
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
