"""Answers that are not JSON: which type `Accept` asks for, images with predictions drawn on them, and vectors.

`Accept` is parsed here because no installed library does it: Starlette, httpx and aiohttp do not. Werkzeug does, but is
installed only for load tests.
"""

import asyncio
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from time import perf_counter

import numpy as np

from service.cores import usable_cores
from service.errors import Reason, RequestError
from service.results import Embedding, Result
from service.settings import Settings
from service.vision.draw import draw

JSON, PNG, JPEG, BINARY = b"application/json", b"image/png", b"image/jpeg", b"application/octet-stream"
# By whether a task's predictions can be drawn; in order of preference where the client's q-values are equal.
OFFERED = {True: (JSON, PNG, JPEG), False: (JSON, BINARY)}
# The headers that nearly all clients send: for them, a look-up saves parsing.
_USUAL = frozenset({b"", b"*/*", JSON})
_SAVING = {PNG: ("PNG", {"compress_level": 1}), JPEG: ("JPEG", {"quality": 92, "subsampling": 0})}


def wanted(accept: bytes, offered: tuple[bytes, ...] = OFFERED[True]) -> bytes:
    """Choose the type of an answer by the request's `Accept` (RFC 9110, 12.5.1).

    Args:
        accept: the header; empty if there is none.
        offered: the types in which the answer can be had, the preferred one first.

    Returns:
        One of those types; empty: JSON.

    Raises:
        RequestError: `not_acceptable`: the client accepts none of them.
    """
    if accept in _USUAL:
        return b""
    if accept in offered:
        return accept
    ranges = _ranges(accept.decode("latin-1").lower())
    kind = max(offered, key=lambda each: _quality(each, ranges))  # the first of equals
    if not _quality(kind, ranges):
        types = ", ".join(f"`{each.decode()}`" for each in offered)
        raise RequestError(
            Reason.NOT_ACCEPTABLE, f"Accept: {accept[:80].decode('latin-1')}: answers are served as {types}."
        )
    return b"" if kind is JSON else kind


class Annotator:
    """Draws answers on its own threads, one for every two of the process' cores; at most `max_queue` may wait."""

    def __init__(self, settings: Settings) -> None:
        self._threads = ThreadPoolExecutor(max(1, usable_cores() // settings.workers // 2), "annotate")
        self._waiting, self._max_waiting = 0, settings.max_queue
        self._max_pixels = int(settings.max_megapixels * 1e6)

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
            RequestError: `queue_full` or `deadline`.
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


def one_image_only(kind: bytes, count: int) -> RequestError:
    """The error for a request that asks for an image but sent several images."""
    return RequestError(
        Reason.NOT_ACCEPTABLE,
        f"Accept: {kind.decode()} answers one image, and {count} were sent. "
        "Send each in a request of its own, or take `application/json`.",
    )


def _ranges(accept: str) -> dict[str, float]:
    """Media ranges and their q-values, 0 to 1; an invalid q-value counts as 0."""
    ranges = {}
    for each in accept.split(","):
        name, *parameters = (part.strip() for part in each.split(";"))
        q = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip() == "q":
                try:
                    q = min(1.0, max(0.0, float(value)))
                except ValueError:
                    q = 0.0
        ranges[name] = q
    return ranges


def _quality(kind: bytes, ranges: dict[str, float]) -> float:
    """The q-value of a type: that of the most specific range that contains it."""
    for name in (kind.decode(), f"{kind.partition(b'/')[0].decode()}/*", "*/*"):
        if name in ranges:
            return ranges[name]
    return 0.0
