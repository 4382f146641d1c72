"""JPEGs that a GPU decodes into the rows of its graph's input. Lanes have a decoder where `models` found that it pays.

nvImageCodec decodes the JPEGs of a batch, and `vision.gpu_resize` resizes each into its row, in the stream of the lane:
no pixel comes back to the host. A file that it cannot decode, or for which the GPU has no memory, is prepared on the
CPU, which also says what is wrong.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from importlib import import_module, metadata
from typing import Any

from service.arrays import Image
from service.cores import usable_cores
from service.engine.cuda import CAPTURES, Stream
from service.engine.device_errors import told_apart
from service.engine.providers import CPU, CUDA, Tuning, requested
from service.vision.gpu_resize import Resizer
from service.vision.resize import prepare
from zoo.card import Recipe
from zoo.extras import installed, require

_MODULE, _PACKAGE = "nvidia.nvimgcodec", "nvidia-nvimgcodec-cu13"  # of the extra `gpu-jpeg`
logger = logging.getLogger(__name__)
_QUIET = "0"  # else it writes a line to the standard error for each file that it cannot decode
Bytes = bytes | Image
"""A file, perhaps as uint8 [n] in a row of an image buffer."""


class DecodeError(Exception):
    """nvImageCodec finds no GPU, or no driver."""


def version() -> str:
    """Return the version of nvImageCodec; "" where it is not installed."""
    return metadata.version(_PACKAGE) if installed(_MODULE) else ""


def decoder(device: str, number: int) -> Any:
    """Make nvImageCodec's decoder for a GPU, or for the CPU.

    Chroma is interpolated as libjpeg-turbo does it, which the CPU's path uses.

    Args:
        device: `cuda` or `cpu`, as ONNX Runtime calls it.
        number: of the GPU.

    Raises:
        MissingError: nvImageCodec is not installed.
        DecodeError: there is no such GPU, or no driver.
    """
    os.environ.setdefault("PYNVIMGCODEC_VERBOSITY", _QUIET)
    require(_MODULE)
    nvimgcodec = import_module(_MODULE)
    backends = None
    if device == "cpu":
        number, backends = nvimgcodec.NVIMGCODEC_DEVICE_CPU_ONLY, [nvimgcodec.Backend(nvimgcodec.BackendKind.CPU_ONLY)]
    try:
        return nvimgcodec.Decoder(number, usable_cores(), backends, options=":fancy_upsampling=1")
    except RuntimeError as error:
        raise DecodeError(f"nvImageCodec cannot use GPU {number}: check the driver (nvidia-smi). {error}") from error


class JpegDecoder:
    """Decodes and resizes JPEGs by one recipe, on the device of a stream and in that stream. Used by one thread.

    Args:
        recipe: of the model.
        stream: of the lane.

    Raises:
        MissingError, DecodeError: as in `decoder`.
        UnsupportedError: the recipe is not resized on a GPU.
    """

    def __init__(self, recipe: Recipe, stream: Stream) -> None:
        device, number = stream.device
        self._recipe, self._stream = recipe, stream
        self._decoder = decoder(device, number)
        codec = import_module(_MODULE)
        self._open, self._params = codec.CodeStream, codec.DecodeParams(apply_exif_orientation=False)
        self._interface = "__array_interface__" if device == "cpu" else "__cuda_array_interface__"
        provider = CPU if device == "cpu" else CUDA
        self._resizer = Resizer(recipe, device, requested(provider, number, Tuning(), stream=stream.handle)[:1])
        self._images: list[Any] = []  # of earlier batches, whose memory is used again

    def decode(self, jpegs: Sequence[Bytes]) -> list[Any]:
        """Decode to the device's memory, uint8 [h, w, 3] RGB as stored. None stands for what cannot be decoded.

        The images are overwritten by the next call.
        """
        with CAPTURES.others():  # it allocates
            streams = [self._stream_of(jpeg) for jpeg in jpegs]
            known = [stream for stream in streams if stream is not None]
            images = self._images[: len(known)] if len(self._images) >= len(known) else None
            try:
                decoded = self._decoder.decode(
                    known, images=images, params=self._params, cuda_stream=self._stream.handle
                )
            except RuntimeError as error:  # of the whole batch; where the GPU is lost, the run will say so
                logger.warning("nvImageCodec failed, the CPU decodes instead: %s", error)
                decoded = [None] * len(known)
            if images is None and None not in decoded:
                self._images = decoded
        found = iter(decoded)
        return [None if stream is None else next(found) for stream in streams]

    def fill(self, jpegs: Sequence[tuple[Bytes, int]]) -> None:
        """Fill rows of the graph's input. They are there when the stream, which has nothing to do now, has ended.

        Args:
            jpegs: each file, and the address of its row on the device. The files must not change until then.

        Raises:
            RequestError: one of them cannot be decoded on the CPU either.
        """
        with CAPTURES.others():  # images of other sizes need other memory
            self._fill(jpegs)

    def _fill(self, jpegs: Sequence[tuple[Bytes, int]]) -> None:
        """Do it. When this returns, what was decoded and is not kept has been freed."""
        self._resizer.trim()
        for (jpeg, row), image in zip(jpegs, self.decode([jpeg for jpeg, _ in jpegs]), strict=True):
            found = None if image is None else getattr(image, self._interface)
            if found is not None and _is_plain(found) and self._resize(found, row):
                continue
            pixels, _ = prepare(bytes(jpeg), self._recipe, exact=False)
            self._stream.copy_in(row, pixels)
            self._stream.wait()  # until then the pixels are needed

    def _resize(self, found: Mapping[str, Any], row: int) -> bool:
        """Resize an image, given by its array interface, to a row; say whether there was memory for it."""
        height, width, _ = found["shape"]
        try:
            with told_apart():
                self._resizer.resize(found["data"][0], height, width, row)
        except MemoryError as error:
            logger.warning("no memory to resize %d x %d pixels on the GPU, the CPU does it: %s", width, height, error)
            return False
        return True

    def _stream_of(self, jpeg: Bytes) -> Any:
        try:
            return self._open(jpeg)
        except RuntimeError:  # it finds no image there
            return None


def _is_plain(found: Mapping[str, Any]) -> bool:
    """Whether pixels are uint8 [h, w, 3] without gaps, by their array interface."""
    shape = found["shape"]
    if len(shape) != 3 or shape[2] != 3 or found["typestr"] != "|u1":
        return False
    return found.get("strides") in (None, (3 * shape[1], 3, 1))
