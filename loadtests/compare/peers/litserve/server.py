"""LitServe with batching."""

from typing import Any

import litserve
from fastapi import Request

from loadtests.compare.work import MAX_BATCH, MAX_WAIT, PORT, Prepared, Work


class Predict(litserve.LitAPI):
    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe names it
        self.work = Work()

    def decode_request(self, request: Request) -> Prepared:
        return self.work.prepare(request["image"].file.read())

    def predict(self, x: list[Prepared]) -> list[dict[str, Any]]:
        return self.work.answer(x)

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        return output


if __name__ == "__main__":
    server = litserve.LitServer(Predict(max_batch_size=MAX_BATCH, batch_timeout=MAX_WAIT), accelerator="cpu")
    server.run(host="127.0.0.1", port=PORT, generate_client_file=False, log_level="warning")
