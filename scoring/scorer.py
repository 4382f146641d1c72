"""Answers the images of a part with a model and writes its file. Local runs have one `Scorer`, a cluster one per actor.

The images go through the queue of the model's engine, as those of a server's requests do: so they are batched as it was
measured to pay, and get the answers of `/v1`. Many are under way at once, and never more than a window, whose images
are being fetched, wait in the queue, or are computed.
"""

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from math import inf
from typing import cast

import uvloop

from scoring.fetch import UnreadableError
from scoring.plan import Plans
from scoring.readers import Readers
from scoring.rows import Problem, Row, schema_of, write_rows
from scoring.spec import Done, Part, Spec
from scoring.storage import Folder, StorageError
from service.commands.load import load_model
from service.engine.device_errors import BrokenDeviceError
from service.errors import Reason, RequestError
from service.request import STATUS
from service.results import Result
from service.tasks import Operation
from service.tasks.grid import tiling_of
from service.waiting import outcome

AHEAD = 2
"""How many parts a scorer should be given at once: while one is written, images of the next are computed."""
_AGAIN_S = 0.02
_FEWEST, _FETCHING = 32, 64  # images under way; threads that fetch
_LARGE_MB = 36.0  # of pixels of an image that is cut into tiles: 12 megapixels. Larger ones wait for memory


class Scorer:
    """A loaded model and its event loop. `score` may be called from several threads.

    Args:
        spec: what is scored.
        threads: of the engine; None: as in the settings, one per core.

    Raises:
        ClickException: the model cannot be loaded.
        StorageError: it is not the model that the spec names, or the results cannot be reached.
    """

    def __init__(self, spec: Spec, threads: int | None = None) -> None:
        self._spec = spec
        with _interrupting_no_run():
            self._model, self._predictor, settings = load_model(
                spec.model, spec.models, pixels=spec.pixels, threads=threads, batches=True
            )
        card, profile = self._model.card, self._model.profile
        if (card.version, card.sha256) != (spec.version, spec.sha256):
            raise StorageError(
                f"{spec.models} has another {spec.model} here (version {card.version}, sha256 {card.sha256[:12]}...): "
                f"copy version {spec.version} with sha256 {spec.sha256[:12]}... to every machine"
            )
        task = cast("Operation", spec.task)
        self._options = self._predictor.options(self._model, spec.options, task)
        self._schema = schema_of(self._options)
        self._out = Folder(spec.out)
        self._plans = Plans(self._out)
        ready = profile.max_batch * (profile.max_runs + 1)  # in the runs, and in the batch that waits for one
        # An image in tiles is decoded in its full size, and is many jobs: fewer of them are enough.
        tiled = tiling_of(self._options) is not None
        fit = max(1, int(settings.max_pixels_mb / _LARGE_MB))
        window = min(2 * (profile.max_runs + 1), fit) if tiled else max(_FEWEST, 2 * ready)
        self._window = asyncio.Semaphore(window)
        self._feeding = asyncio.Lock()
        self._stopped = False
        self._loop = uvloop.new_event_loop()
        with _interrupting_no_run():
            self._readers = Readers(min(window, _FETCHING), settings.max_body_bytes, spec.timeout_s)
            self._thread = threading.Thread(target=self._loop.run_forever, name="scorer", daemon=True)
            self._thread.start()

    def score(self, part: Part) -> Done:
        """Answer the images of a part, and write its file.

        Raises:
            BrokenDeviceError: the GPU can no longer be used: end this process.
            StorageError: the file cannot be written, or the images' storage does not answer.
            CancelledError: `stop` was called.
        """
        addresses = self._plans.addresses(part)
        try:
            rows = asyncio.run_coroutine_threadsafe(self._answer_all(addresses), self._loop).result()
        except ExceptionGroup as group:  # of the part's tasks; the first one's error ended the others
            raise group.exceptions[0] from None
        with self._out.writing(part.name(self._spec.form)) as file:
            write_rows(file, rows, self._schema, self._spec.form)
        return Done(part, len(rows), sum(row.error is not None for row in rows))

    def stop(self) -> None:
        """Give up the parts that are under way, and those that come."""

        def cancel() -> None:
            self._stopped = True
            for task in asyncio.all_tasks(self._loop):
                task.cancel()

        self._loop.call_soon_threadsafe(cancel)

    def close(self) -> None:
        """End the event loop, once no thread is in `score` any more.

        A loop of uvloop that wakes up while the interpreter ends crashes the process.
        """
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _answer_all(self, addresses: list[str]) -> list[Row]:
        if self._stopped:
            raise asyncio.CancelledError
        async with asyncio.TaskGroup() as group:
            tasks = []
            # Parts in turn: if the images of two were mixed, both would end at once, and nothing would be under way.
            async with self._feeding:
                for address in addresses:
                    await self._window.acquire()
                    tasks.append(group.create_task(self._answer(address)))
        return [task.result() for task in tasks]

    async def _answer(self, address: str) -> Row:
        """Answer one image; give its place in the window back."""
        spec = self._spec
        row = partial(Row, address, spec.model, spec.version, spec.sha256, spec.task)
        try:
            data, digest = await self._readers.read(address)
        except RequestError as error:
            return row(error=_problem(error))
        except UnreadableError as error:
            return row(error=Problem(0, "unreadable", str(error)))
        else:
            found = await self._result(data)
            if isinstance(found, RequestError):
                return row(size=len(data), sha256=digest, error=_problem(found))
            return row(size=len(data), sha256=digest, image=found.image, predictions=found.predictions)
        finally:
            self._window.release()

    async def _result(self, data: bytes) -> Result | RequestError:
        while True:
            found = await self._asked(data)
            if not (isinstance(found, RequestError) and found.reason is Reason.QUEUE_FULL):
                return found
            # Images in tiles fill the memory for pixels: when they are answered, there is room.
            await asyncio.sleep(_AGAIN_S)

    async def _asked(self, data: bytes) -> Result | RequestError:
        try:
            given = self._predictor.input(data, self._model, self._options)
            job = self._predictor.submit(given, self._model, inf)
        except RequestError as error:
            return error
        with suppress(Exception):  # `outcome` reads it
            await job.future
        if isinstance(job.future.exception(), BrokenDeviceError):
            job.future.result()
        found = outcome(job)
        return found  # noqa: RET504 - in a return statement, mypy would infer the union for the job's own type


@contextmanager
def _interrupting_no_run() -> Iterator[None]:
    """Let threads that are started meanwhile begin work when a core is free, and take none from a run.

    Nobody waits for a single answer here, and enough images are ready for the next runs. Else each image that was read
    or answered interrupts a run, which took two busy cores 0.15 ms of the system's time an image.
    """
    if not hasattr(os, "SCHED_BATCH"):  # Linux has it
        yield
        return
    before, none = os.sched_getscheduler(0), os.sched_param(0)
    if before == os.SCHED_OTHER:  # nobody has chosen another one
        with suppress(OSError):  # a sandbox may refuse it
            os.sched_setscheduler(0, os.SCHED_BATCH, none)  # of this thread; those that it starts inherit it
    try:
        yield
    finally:
        if os.sched_getscheduler(0) != before:
            os.sched_setscheduler(0, before, none)


def _problem(error: RequestError) -> Problem:
    return Problem(STATUS[Reason(error.reason)], error.reason.value, error.detail)
