"""TorchServe's handler: what its worker process runs on each batch."""

from typing import Any

from loadtests.compare.work import Classifier


class Classify:
    def initialize(self, _: Any) -> None:
        self.classifier = Classifier()

    def handle(self, data: list[dict[str, Any]], _: Any) -> list[dict[str, Any]]:
        photos = [bytes(row.get("body") or row["data"]) for row in data]
        return self.classifier.classify([self.classifier.prepare(photo) for photo in photos])
