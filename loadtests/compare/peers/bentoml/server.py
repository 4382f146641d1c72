"""BentoML with adaptive batching, as its documentation shows it. It waits as long as it thinks best."""

from pathlib import Path
from typing import Any

import bentoml
from PIL import Image

from loadtests.compare.work import MAX_BATCH, PIXELS, Work

Given = Path if PIXELS == "fast" else Image.Image


@bentoml.service(traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Predict:
    def __init__(self) -> None:
        self.work = Work()

    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH)
    def predict(self, images: list[Given]) -> list[dict[str, Any]]:  # type: ignore[valid-type]
        fast, pillow = self.work.fast, self.work.pillow
        return self.work.answer([fast(x.read_bytes()) if isinstance(x, Path) else pillow(x) for x in images])
