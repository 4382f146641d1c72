"""`python -m loadtests.fronts.handover MODELS NAME COUNT`: the time between a front and the engine, without HTTP.

This process is a front, and starts an engine as a server does. Images follow each other, so nothing waits for others.
Prints, as JSON, milliseconds from "the row is ready" to "its outputs are there", less the run, for each image.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from time import sleep

from service.engine.calls import Calls
from service.engine.workers import Workers
from service.fronts.registry import FrontRegistry
from service.limits import PixelMemory
from service.predictor import Predictor, deadline_after
from service.settings import read_settings
from service.supervisor import ENGINE, prepare

_WARM = 50


def main(models: str, name: str, count: int) -> list[float]:
    """Ask about so many images, one after the other."""
    os.environ |= {"ZOOSERVE_MODELS": models, "ZOOSERVE_LOAD": name, "ZOOSERVE_FRONTS": "1"}
    settings = read_settings()
    prepare(settings)
    workers = Workers(1)
    registry = FrontRegistry(settings, int(os.environ[ENGINE]), workers)
    registry.load()
    while not registry.ready:
        sleep(0.05)
    predictor = Predictor(registry, settings, Calls(workers, PixelMemory(10**9)))
    photo = (Path(__file__).parents[2] / "docs" / "coffee.jpg").read_bytes()

    async def ask() -> list[float]:
        model = registry.find(name)
        found = []
        for _ in range(count + _WARM):
            made = predictor.input(photo, model, predictor.options(model, {}))  # type: ignore[arg-type]  # of images
            job = predictor.submit(made, model, deadline_after(30_000))
            await job.future
            there = job.finished - job.finishing
            found.append(1000 * ((job.run - job.prepared) + (there - job.ran)))
        return found[_WARM:]

    return asyncio.run(ask())


if __name__ == "__main__":
    found = main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    sys.stdout.write(json.dumps(found))
    sys.stdout.flush()
    os._exit(0)
