"""Who decodes the JPEGs of a model on a GPU: measured when it is loaded. `on_gpu` calls it."""

import logging
from collections.abc import Mapping
from itertools import cycle, islice
from statistics import median
from time import perf_counter

import numpy as np
import simplejpeg

from service.arrays import Image
from service.cores import usable_cores
from service.engine.jpegs import version
from service.engine.lanes import Lanes
from service.engine.pieces import joined, pieces_of
from service.engine.profile import WORTH, JpegRow
from service.engine.providers import gpu_count
from service.engine.widths import seconds_of
from service.errors import RequestError
from service.models.inputs import EncodedImage
from service.models.selftest import SelfTestError, self_test
from service.settings import Settings
from service.vision.decode import decode
from zoo.served_card import AnyServed, ServedCard

logger = logging.getLogger(__name__)
_QUALITY = 90  # of the golden photos as JPEGs
_ROUNDS = 3


def may_decode(card: AnyServed, settings: Settings) -> bool:
    """Whether there is a choice: nvImageCodec is installed, and pixels need not be exact."""
    return isinstance(card, ServedCard) and settings.pixels == "fast" and bool(version())


def decoding_cores(settings: Settings) -> int:
    """How many cores decode for one GPU: all GPUs that the server uses share them."""
    gpus = settings.engines or min(settings.workers, max(1, gpu_count()))
    return max(1, usable_cores() // gpus)


def measure_jpegs(
    lanes: Lanes, card: ServedCard, golden: Mapping[str, bytes], settings: Settings, size: int
) -> JpegRow | None:
    """Measure full batches of JPEGs, decoded on the GPU and on the CPU, and compare the answers.

    Args:
        lanes: one or more, warm, which take JPEGs.
        card: of the model.
        golden: its photos, by name.
        settings: as for a request.
        size: rows of a batch, known to the lanes.

    Returns:
        None where no golden photo has room in a row of the graph's input as a JPEG.
    """
    recipe = card.recipe
    photos = {each.photo: _jpeg(golden[each.photo]) for each in card.golden}
    rows = np.zeros((size, recipe.height, recipe.width, 3), np.uint8)

    def write(data: bytes, row: Image, *, jpegs: bool) -> int:
        return EncodedImage(data, card, None, settings).write(row, jpegs=jpegs)

    fitting = [data for data in photos.values() if write(data, rows[0], jpegs=True)]
    if not fitting:
        return None
    batch, prepared = [*islice(cycle(fitting), size)], []
    for row, data in zip(rows, batch, strict=True):
        begun = perf_counter()
        write(data, row, jpegs=False)
        prepared.append(perf_counter() - begun)
    run_s = min(seconds_of(lanes.run, {"images": rows}) for _ in range(_ROUNDS)) / size
    lengths = np.array([write(data, row, jpegs=True) for row, data in zip(rows, batch, strict=True)])
    jpegs = {"images": joined([*pieces_of(rows, lengths, 0, size)])}
    try:
        lanes.run(jpegs)
        gpu_s = min(seconds_of(lanes.run, jpegs) for _ in range(_ROUNDS)) / size
        self_test(card, photos, lanes.run, settings, jpegs=True)
        right = True
    except (SelfTestError, RequestError) as error:
        logger.warning("JPEGs of %s are not decoded on the GPU: %s", card.name, error)
        gpu_s, right = 0.0, False
    cpu_s = max(run_s, median(prepared) / decoding_cores(settings))
    return JpegRow(version(), gpu_s, cpu_s, right, right and gpu_s <= WORTH * cpu_s)


def _jpeg(photo: bytes) -> bytes:
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(decode(photo)), _QUALITY, colorsubsampling="420"))
