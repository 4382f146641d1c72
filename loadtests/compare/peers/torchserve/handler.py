"""TorchServe's handler: what its worker process runs on each batch."""

from typing import Any

from loadtests.compare.work import Work


class Predict:
    def initialize(self, _: Any) -> None:
        self.work = Work()

    def handle(self, data: list[dict[str, Any]], _: Any) -> list[dict[str, Any]]:
        photos = [bytes(row.get("body") or row["data"]) for row in data]
        return self.work.answer([self.work.prepare(photo) for photo in photos])
