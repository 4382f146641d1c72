"""Answers that are not JSON: images with predictions drawn on them, and vectors."""

import asyncio
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from time import perf_counter

import numpy as np

from service.cores import usable_cores
from service.errors import Reason, RequestError
from service.http.media import JSON, PNG
from service.results import Embedding, Result
from service.settings import Settings
from service.vision.draw import draw

JPEG, BINARY = b"image/jpeg", b"application/octet-stream"
# By whether a task's predictions can be drawn; in order of preference where the client's q-values are equal.
OFFERED = {True: (JSON, PNG, JPEG), False: (JSON, BINARY)}
_LARGEST_JPEG = 65_500  # libjpeg's longest side
_SAVING = {PNG: ("PNG", {"compress_level": 1}), JPEG: ("JPEG", {"quality": 92, "subsampling": 0})}


class Annotator:
    """Draws answers on its own threads, one for every two of the process' cores; at most `max_queue` may wait."""

    def __init__(self, settings: Settings) -> None:
        self._threads = ThreadPoolExecutor(max(1, usable_cores() // settings.processes // 2), "annotate")
        self._waiting, self._max_waiting = 0, settings.max_queue
        self._max_pixels = settings.max_pixels

    async def draw(
        self,
        image: bytes,
        result: Result,
        kind: bytes,
        deadline: float,
        skeleton: Sequence[tuple[int, int]] = (),
    ) -> bytes:
        """Draw an answer on its image, without resizing the image.

        Args:
            image: the encoded image.
            result: the answer to it.
            kind: `PNG` or `JPEG`.
            deadline: seconds, a time of `time.perf_counter()`.
            skeleton: of the model's keypoints.

        Returns:
            The bytes of a file of type `kind`.

        Raises:
            RequestError: `queue_full` or `deadline`; `not_acceptable`: too large for a JPEG.
        """
        if self._waiting >= self._max_waiting:
            raise RequestError(
                Reason.QUEUE_FULL,
                f"{self._waiting} answers wait to be drawn. Try again later, or take `application/json`.",
                retry_after=1,
            )
        self._waiting += 1
        loop = asyncio.get_running_loop()
        drawing = self._threads.submit(self._draw, image, result, kind, skeleton)
        drawing.add_done_callback(lambda _: self._over(loop))  # also if it ends after the deadline
        try:
            return await asyncio.wait_for(asyncio.wrap_future(drawing), deadline - perf_counter())
        except TimeoutError:
            raise RequestError(Reason.DEADLINE, "The deadline passed before the answer was drawn.") from None

    def _over(self, loop: asyncio.AbstractEventLoop) -> None:
        """Count a drawing that has ended. Runs on the drawing's thread."""

        def leave() -> None:
            self._waiting -= 1

        with suppress(RuntimeError):  # the loop is closed: the process is ending
            loop.call_soon_threadsafe(leave)

    def _draw(self, image: bytes, result: Result, kind: bytes, skeleton: Sequence[tuple[int, int]]) -> bytes:
        if kind == JPEG and max(result.image.width, result.image.height) > _LARGEST_JPEG:
            raise RequestError(
                Reason.NOT_ACCEPTABLE,
                f"A JPEG has sides of at most {_LARGEST_JPEG} pixels, and the image has {result.image.width} x "
                f"{result.image.height}. Take `image/png` or `application/json`.",
            )
        drawn = draw(image, result, skeleton=skeleton, max_pixels=self._max_pixels, enlarge=False)
        out = io.BytesIO()
        name, how = _SAVING[kind]
        drawn.save(out, name, **how)
        return out.getvalue()


def vector(result: Result) -> bytes:
    """Return the embedding of one image as little-endian float32 [F]."""
    (found,) = result.predictions
    assert isinstance(found, Embedding)  # noqa: S101 - offered for no other task
    return np.asarray(found.embedding, "<f4").tobytes()
