"""Ray Serve with `@serve.batch`."""

from typing import Any

from ray import serve
from starlette.requests import Request

from loadtests.compare.work import MAX_BATCH, MAX_WAIT, PORT, Work

QUIET = {"enable_access_log": False}


@serve.deployment(max_ongoing_requests=64, logging_config=QUIET)
class Predict:
    def __init__(self) -> None:
        self.work = Work()

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=MAX_WAIT)
    async def predict(self, photos: list[bytes]) -> list[dict[str, Any]]:
        return self.work.answer([self.work.prepare(photo) for photo in photos])

    async def __call__(self, request: Request) -> dict[str, Any]:
        return await self.predict(await request.body())


if __name__ == "__main__":
    serve.start(http_options={"host": "127.0.0.1", "port": PORT}, logging_config=QUIET)
    serve.run(Predict.bind(), route_prefix="/predict", blocking=True)
