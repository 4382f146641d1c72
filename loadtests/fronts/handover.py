"""`python -m loadtests.fronts.handover MODELS NAME COUNT WAVE`: a front and the engine, without HTTP.

This process is a front, and starts an engine as a server does. Prints JSON: with a WAVE of 0 images follow each other,
so nothing waits, and the milliseconds from "the row is ready" to "its outputs are there", less the run, are printed for
each. Else so many images at a time are submitted, whose pixels are there already, so that batches are full; the
processor time of the engine per image in milliseconds is printed, and the rows of a run.
"""

import asyncio
import json
import os
import sys
from pathlib import Path

import psutil
import uvloop

from loadtests.processes import spent
from service.arrays import Tensors
from service.engine.calls import Calls
from service.engine.job import Input
from service.engine.workers import Workers
from service.fronts.registry import FrontRegistry
from service.limits import PixelMemory
from service.models.model import AnyModel
from service.predictor import Predictor, deadline_after
from service.settings import read_settings
from service.supervisor import ENGINES, prepare, with_fronts

_WARM = 50


class Pixels(Input[None]):
    """An image whose pixels are in the row already, and whose outputs nobody reads."""

    __slots__ = ()

    def answer(self, outputs: Tensors, row: int) -> None:
        """Return nothing."""


def main(models: str, name: str, count: int, wave: int) -> list[float]:
    """Ask about so many images, one after the other or in waves."""
    os.environ |= {"ZOOSERVE_MODELS": models, "ZOOSERVE_LOAD": name, "ZOOSERVE_FRONTS": "1"}
    settings = with_fronts(read_settings())
    prepare(settings)
    workers = Workers(1)
    registry = FrontRegistry(settings, json.loads(os.environ[ENGINES]), workers)
    predictor = Predictor(registry, settings, Calls(workers, PixelMemory(10**9)))
    photo = (Path(__file__).parents[2] / "docs" / "coffee.jpg").read_bytes()

    async def found_model() -> AnyModel:
        registry.load_in_background(lambda: None)
        while not registry.ready:
            await asyncio.sleep(0.05)
        return registry.find(name)

    async def ask() -> list[float]:
        model = await found_model()
        found = []
        for _ in range(count + _WARM):
            made = predictor.input(photo, model, predictor.options(model, {}))  # type: ignore[arg-type]  # of images
            job = predictor.submit(made, model, deadline_after(30_000))
            await job.future
            there = job.finished - job.finishing
            found.append(1000 * ((job.run - job.prepared) + (there - job.ran)))
        return found[_WARM:]

    async def in_waves() -> list[float]:
        model = await found_model()
        engine = next(child for child in psutil.Process().children() if "service.engine_process" in child.cmdline())
        sizes = list[int]()
        begin = 0.0
        for number in range(-(-count // wave) + 2):
            if number == 2:
                begin, sizes = spent([engine]), []
            jobs = [predictor.submit(Pixels(), model, deadline_after(60_000)) for _ in range(wave)]
            await asyncio.gather(*[job.future for job in jobs])
            sizes += [job.batch_size for job in jobs]
        runs = sum(1 / size for size in sizes)
        return [1000 * (spent([engine]) - begin) / len(sizes), len(sizes) / runs]

    return uvloop.run(in_waves() if wave else ask())


if __name__ == "__main__":
    found = main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    sys.stdout.write(json.dumps(found))
    sys.stdout.flush()
    os._exit(0)
