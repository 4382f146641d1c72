"""The same tiles without a server: decode once, cut, run in batches, select the objects of each, write the JSON."""

import json
from functools import partial
from statistics import median
from time import perf_counter

import numpy as np
import simplejpeg

from loadtests.compare.work import Placement, Prepared, Work

_BATCHES = (1, 4, 8)
_TRIED = 16  # tiles with which batch sizes are compared


class Bare:
    """A loop over the tiles of an image, in batches of the size that is fastest.

    Args:
        model: the folder of an exported detector.
        overlap: least share of a tile that its neighbour covers as well.
        threads: of a run of the graph.

    Attributes:
        batch: the size of the batches.
    """

    def __init__(self, model: str, overlap: float, threads: int) -> None:
        self._work = Work(model, threads)
        self._overlap = overlap
        recipe = self._work.card["recipe"]
        self._tile = recipe["width"], recipe["height"]
        self.batch = 1

    def choose_batch(self, data: bytes) -> None:
        """Measure the first tiles of an image in batches of several sizes, and keep the fastest size."""
        tiles = self._tiles(data)[:_TRIED]

        def seconds(size: int) -> float:
            def once() -> float:
                begin = perf_counter()
                self._answer(tiles, size)
                return perf_counter() - begin

            once()
            return median(once() for _ in range(3))

        self.batch = min(_BATCHES, key=seconds)

    def count(self, data: bytes) -> int:
        """Return how many images the graph is given: the tiles and the whole image."""
        return len(self._tiles(data))

    def seconds(self, data: bytes) -> float:
        """Answer an image, and return how long that took."""
        begin = perf_counter()
        json.dumps(self._answer(self._tiles(data), self.batch))
        return perf_counter() - begin

    def _tiles(self, data: bytes) -> list[Prepared]:
        pixels = simplejpeg.decode_jpeg(data, "RGB")
        height, width, _ = pixels.shape
        across, down = self._tile
        place = partial(Placement, across, down, 1.0, 1.0)
        tiles = [
            Prepared(pixels[top : top + down, left : left + across], place(0.0, 0.0))
            for top in _starts(height, down, self._overlap)
            for left in _starts(width, across, self._overlap)
        ]
        return [*tiles, self._work.fast(data)]

    def _answer(self, tiles: list[Prepared], size: int) -> list[dict[str, object]]:
        batches = (tiles[first : first + size] for first in range(0, len(tiles), size))
        return [answer for batch in batches for answer in self._work.answer(batch)]


def _starts(side: int, tile: int, overlap: float) -> list[int]:
    """Where tiles begin along an axis; the last one ends with it."""
    last = side - tile
    return [*np.arange(0, last, max(1, int(tile * (1 - overlap)))).tolist(), last]
