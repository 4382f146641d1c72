"""BentoML with adaptive batching, as its documentation shows it. It waits as long as it thinks best."""

from pathlib import Path
from typing import Any

import bentoml
from PIL import Image

from loadtests.compare.work import MAX_BATCH, PIXELS, Classifier, fast, pillow

Picture = Path if PIXELS == "fast" else Image.Image


@bentoml.service(traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Classify:
    def __init__(self) -> None:
        self.classifier = Classifier()

    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH)
    def classify(self, images: list[Picture]) -> list[dict[str, Any]]:  # type: ignore[valid-type]
        return self.classifier.classify([fast(x.read_bytes()) if isinstance(x, Path) else pillow(x) for x in images])
