"""nvImageCodec, of the extra `gpu-jpeg`, without a GPU: what it decodes on the CPU, and how it is refused.

Functions without `test_` run in a process in which it is installed.
"""

import io
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime as ort
import pytest
from PIL import Image

from loadtests.album import encode
from loadtests.gpu import engine
from loadtests.gpu.engine import Model
from loadtests.gpu.jpegs import GpuJpegs
from service.engine import jpegs
from service.engine.cuda import CAPTURES
from service.engine.jpegs import DecodeError, JpegDecoder
from service.engine.lanes import Lanes
from service.engine.pieces import joined, pieces_of
from service.engine.providers import Tuning
from service.engine.session import Session
from service.errors import RequestError
from service.vision.decode import EncodedImage
from service.vision.gpu_resize import Resizer
from service.vision.resize import prepare
from tests.service.engine.cuda_stub import inside
from tests.service.engine.host import Host
from zoo.card import Recipe
from zoo.errors import MissingError
from zoo.extras import installed

RECIPE = Recipe(height=224, width=224, resize="crop", short_side=256, pad=(0, 0, 0))


def decoded(files: list[bytes]) -> list[np.ndarray | None]:
    decoder = JpegDecoder(RECIPE, Host())
    decoder.decode(files[::-1])
    images = decoder.decode(files)  # into the memory of those before
    return [None if image is None else np.array(image.cpu()) for image in images]


def test_a_batch_is_decoded_as_the_service_decodes(with_nvimgcodec, models):
    golden = sorted((models / "mobilenet_v2" / "1" / "golden").iterdir())
    files = [encode(Image.open(path).convert("RGB"), 94) for path in golden]
    grey = io.BytesIO()
    Image.open(golden[0]).convert("L").save(grey, "JPEG", quality=94)
    files.append(grey.getvalue())
    for found, data in zip(with_nvimgcodec(decoded, files), files, strict=True):
        expected = np.asarray(EncodedImage(data, 10**9).image())
        assert found.shape == expected.shape
        assert np.abs(found.astype(int) - expected).mean() < 0.5
        assert np.abs(found.astype(int) - expected).max() <= 3


def filled(files: list[bytes]) -> np.ndarray:
    decoder, rows = JpegDecoder(RECIPE, Host()), np.zeros((len(files), 224, 224, 3), np.uint8)
    address = rows.ctypes.data
    for some in (files[:1], files):
        decoder.fill([(file, address + i * rows[0].nbytes) for i, file in enumerate(some)])
    return rows


def test_rows_are_those_of_the_fast_mode(with_nvimgcodec, photo):
    files = [
        encode(Image.open(io.BytesIO(photo(name))).convert("RGB"), 94) for name in ("coffee", "astronaut", "chelsea")
    ]
    files.insert(1, photo("coffee"))  # PNG: nvImageCodec decodes it, too
    files.insert(3, b"GIF89a" + gif()[6:])  # it does not: the CPU does
    for row, file in zip(with_nvimgcodec(filled, files), files, strict=True):
        expected, _ = prepare(file, RECIPE, exact=False)
        assert np.abs(row.astype(int) - expected).mean() < 0.6
        assert np.abs(row.astype(int) - expected).max() <= 6


def gif() -> bytes:
    data = io.BytesIO()
    Image.linear_gradient("L").save(data, "GIF")
    return data.getvalue()


class Broken:
    def decode(self, *_, **__):
        raise RuntimeError("nvImageCodec failure")


def filled_without_help(files: list[bytes]) -> np.ndarray:
    make = jpegs.decoder
    jpegs.decoder = lambda *_: Broken()
    try:
        return filled(files)
    finally:
        jpegs.decoder = make


def test_where_the_library_fails_the_cpu_decodes(with_nvimgcodec, photo):
    files = [photo("coffee"), photo("chelsea")]
    for row, file in zip(with_nvimgcodec(filled_without_help, files), files, strict=True):
        assert np.array_equal(row, prepare(file, RECIPE, exact=False)[0])


def filled_without_memory(files: list[bytes]) -> np.ndarray:
    def resize(*_: object) -> None:
        raise RuntimeError("Available memory of 0 is smaller than requested bytes of 150528")

    Resizer.resize, before = resize, Resizer.resize
    try:
        return filled(files)
    finally:
        Resizer.resize = before


def test_where_the_gpu_has_no_memory_to_resize_the_cpu_decodes(with_nvimgcodec, photo):
    files = [encode(Image.open(io.BytesIO(photo(name))).convert("RGB"), 94) for name in ("coffee", "chelsea")]
    for row, file in zip(with_nvimgcodec(filled_without_memory, files), files, strict=True):
        assert np.array_equal(row, prepare(file, RECIPE, exact=False)[0])


def refusal(files: list[bytes]) -> tuple[str, str] | None:
    try:
        filled(files)
    except RequestError as error:
        return error.reason, error.detail
    return None


@pytest.mark.parametrize("cut", [30, 5000])
def test_what_cannot_be_decoded_is_refused_as_on_the_cpu(with_nvimgcodec, photo, cut):
    file = encode(Image.open(io.BytesIO(photo("coffee"))).convert("RGB"), 94)
    with pytest.raises(RequestError) as expected:
        prepare(file[:cut], RECIPE, exact=False)
    found = with_nvimgcodec(refusal, [file, file[:cut]])
    assert found == (expected.value.reason, expected.value.detail)


def refused() -> str:
    try:
        jpegs.decoder("cuda", 0)
    except DecodeError as error:
        return str(error)
    return ""


def test_without_a_gpu_it_is_refused_with_a_reason(with_nvimgcodec):
    assert with_nvimgcodec(refused).startswith("nvImageCodec cannot use GPU 0: check the driver (nvidia-smi)")


@pytest.mark.skipif(installed("nvidia.nvimgcodec"), reason="it is installed here")
def test_without_the_package_the_command_that_installs_it_is_said():
    assert jpegs.version() == ""
    with pytest.raises(MissingError, match=r"gpu-jpeg"):
        jpegs.decoder("cuda", 0)


class DecodedElsewhere:
    """Images in the GPU's memory, as nvImageCodec gives them."""

    def __init__(self, images: list[np.ndarray]) -> None:
        self._values = [ort.OrtValue.ortvalue_from_numpy(image, "cuda", 0) for image in images]

    def decode(self, streams: list[object], images: object, params: object, cuda_stream: int) -> list[object]:
        assert cuda_stream
        return [
            SimpleNamespace(
                __cuda_array_interface__={
                    "shape": value.shape(),
                    "data": (value.data_ptr(), False),
                    "typestr": "|u1",
                    "strides": None,
                }
            )
            for value, _ in zip(self._values, streams, strict=True)
        ]


def rows_of_answers(root: Path, name: str, sizes: list[tuple[int, int]]) -> dict[str, int]:
    model = Model(root, name)
    images = [np.zeros((*size, 3), np.uint8) for size in sizes]
    jpegs.decoder = lambda *_: DecodedElsewhere(images)
    sys.modules["nvidia.nvimgcodec"] = nvidia = SimpleNamespace(CodeStream=bytes, DecodeParams=dict)
    sys.modules["nvidia"] = SimpleNamespace(nvimgcodec=nvidia)
    engine.need_cuda("cuda")
    gpu = GpuJpegs(model, len(sizes))
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


def waits_for_a_mixed_batch(root: Path) -> tuple[int, int]:
    """How often a run of pixels and JPEGs waits for the GPU, and how many rows it answers."""
    model, shape = Model(root, "mobilenet_v2"), (224, 224, 3)
    jpegs.decoder = lambda *_: DecodedElsewhere([np.zeros((480, 640, 3), np.uint8)] * 2)
    sys.modules["nvidia.nvimgcodec"] = nvidia = SimpleNamespace(CodeStream=bytes, DecodeParams=dict)
    sys.modules["nvidia"] = SimpleNamespace(nvimgcodec=nvidia)
    engine.need_cuda("cuda")
    lanes = Lanes(
        lambda size, stream: Session(model.path, "cuda", tuning=Tuning(cuda_graphs=True), batch=size, stream=stream),
        (4,),
        lambda rows: {"images": np.zeros((rows, *shape), np.uint8)},
        graphs=True,
        make_fill=lambda stream: JpegDecoder(model.card.recipe, stream).fill,
    )
    lanes.add()
    assert lanes.decodes
    batch = {"images": joined([*pieces_of(np.ones((4, *shape), np.uint8), np.array([0, 7, 7, 0]), 0, 4)])}
    lanes.run(batch)  # copies the weights of the size
    before = inside.counts()
    answers = lanes.run(batch)
    return inside.counts().since(before).synchronisations, len(answers["probabilities"])


def test_a_batch_of_pixels_and_jpegs_waits_once(cuda_stub, models):
    assert cuda_stub.call(waits_for_a_mixed_batch, models) == (1, 4)


def kept_away(file: bytes) -> list[int]:
    """How many blocks that no capture may disturb were under way, each time an image was resized."""
    decoder, row, seen = JpegDecoder(RECIPE, Host()), np.zeros((224, 224, 3), np.uint8), []
    resize = decoder._resizer.resize
    decoder._resizer.resize = lambda *given: (seen.append(CAPTURES._short), resize(*given))
    decoder.fill([(file, row.ctypes.data)])
    return seen


class Decoded:
    """An image that notes, when it is freed, how many blocks that no capture may disturb are under way."""

    def __init__(self, pixels: np.ndarray, seen: list[int]) -> None:
        self.pixels, self.seen, self.__array_interface__ = pixels, seen, pixels.__array_interface__

    def __del__(self) -> None:
        self.seen.append(CAPTURES._short)


def freed_among(files: list[bytes]) -> list[int]:
    pixels, rows, seen = np.zeros((8, 8, 3), np.uint8), np.zeros((len(files), 224, 224, 3), np.uint8), []

    def decode(known: list[object], **_: object) -> list[object]:
        return [None, *[Decoded(pixels, seen) for _ in known[1:]]]

    jpegs.decoder = lambda *_: SimpleNamespace(decode=decode)
    JpegDecoder(RECIPE, Host()).fill([(file, row.ctypes.data) for file, row in zip(files, rows, strict=True)])
    return seen


def test_no_graph_is_captured_while_images_are_freed(with_nvimgcodec, photo):
    """Those of a batch in which one cannot be decoded are not kept for the next."""
    file = encode(Image.open(io.BytesIO(photo("coffee"))).convert("RGB"), 94)
    assert with_nvimgcodec(freed_among, [file] * 3) == [1, 1]


def test_no_graph_is_captured_while_images_are_resized(with_nvimgcodec, photo):
    """An image of another size needs other memory, and a capture fails where any thread allocates."""
    assert with_nvimgcodec(kept_away, photo("coffee")) == [1]
