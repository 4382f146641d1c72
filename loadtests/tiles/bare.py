"""The same tiles without a server: decode once, cut, run in batches, select the objects of each, write the JSON."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain, product
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import simplejpeg

from loadtests.compare.work import Answer, Placement, Prepared, Work

_BATCHES = (1, 4, 8)
_TRIED = 16  # tiles with which ways are compared


class Way(NamedTuple):
    """How tiles are run: in batches of `size`, `beside` of them at a time, each on `threads` threads."""

    size: int
    beside: int
    threads: int


class Bare:
    """A loop over the tiles of an image, in the way that is fastest on all cores.

    Args:
        model: the folder of an exported detector.
        overlap: least share of a tile that its neighbour covers as well.
        cores: that it has: for a run on all of them, or for as many runs side by side.

    Attributes:
        way: that it takes.
    """

    def __init__(self, model: str, overlap: float, cores: int) -> None:
        threads = sorted({1, cores})
        self._works = {each: Work(model, each, spin=each > 1) for each in threads}
        self._ways = [Way(size, cores // each, each) for size, each in product(_BATCHES, threads)]
        self._overlap = overlap
        recipe = self._works[1].card["recipe"]
        self._tile = recipe["width"], recipe["height"]
        self._pool = ThreadPoolExecutor(cores)
        self.way = self._ways[0]

    def choose(self, data: bytes) -> None:
        """Measure the first tiles of an image in every way, and keep the fastest."""
        tiles = self._tiles(data)[:_TRIED]

        def typical(way: Way) -> float:
            times = [_seconds(partial(self._answer, tiles, way)) for _ in range(4)]
            return median(times[1:])  # the first one is a warm-up

        self.way = min(self._ways, key=typical)

    def count(self, data: bytes) -> int:
        """Return how many images the graph is given: the tiles and the whole image."""
        return len(self._tiles(data))

    def seconds(self, data: bytes) -> float:
        """Answer an image, and return how long that took."""
        return _seconds(lambda: json.dumps(self._answer(self._tiles(data), self.way)))

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
        return [*tiles, self._works[1].fast(data)]

    def _answer(self, tiles: list[Prepared], way: Way) -> list[Answer]:
        batches = [tiles[first : first + way.size] for first in range(0, len(tiles), way.size)]
        answer = self._works[way.threads].answer
        answers = self._pool.map(answer, batches) if way.beside > 1 else map(answer, batches)
        return list(chain.from_iterable(answers))


def _seconds(work: Callable[[], Any]) -> float:
    begin = perf_counter()
    work()
    return perf_counter() - begin


def _starts(side: int, tile: int, overlap: float) -> list[int]:
    """Where tiles begin along an axis; the last one ends with it."""
    last = side - tile
    return [*np.arange(0, last, max(1, int(tile * (1 - overlap)))).tolist(), last]
