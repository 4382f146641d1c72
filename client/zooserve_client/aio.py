"""`AsyncClient`: the same as `Client`, for asyncio."""

import asyncio
import os
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from pathlib import Path
from typing import Any, Self

import httpx

from zooserve_client.call import (
    AHEAD,
    LIMITS,
    Ask,
    Attempts,
    Caller,
    Format,
    Option,
    Priority,
    Reply,
    Task,
    ask_for,
    read_reply,
)
from zooserve_client.errors import ZooserveError
from zooserve_client.images import ImageInput, images_in, read_image
from zooserve_client.local import direct
from zooserve_client.results import Result


class AsyncClient:
    """A client of one server, for asyncio; all arguments, answers and errors are those of `Client`."""

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        deadline: float = 30.0,
        retries: int = 5,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        self._caller = Caller(url, api_key, deadline, retries)
        self._own = http is None
        self._http = http or httpx.AsyncClient(limits=LIMITS, mounts=direct(self._caller.url))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        if self._own:
            await self._http.aclose()

    async def classify(self, image: ImageInput, **how: Any) -> Result:
        """Return the classes of an image, the best first; see `Client.predict`."""
        return await self.predict("classify", image, **how)

    async def embed(self, image: ImageInput, **how: Any) -> Result:
        """Return the features of an image, as `Result.embedding`; see `predict`."""
        return await self.predict("embed", image, **how)

    async def detect(self, image: ImageInput, **how: Any) -> Result:
        """Return the objects in an image with their boxes, the best first; see `Client.predict`."""
        return await self.predict("detect", image, **how)

    async def segment(self, image: ImageInput, **how: Any) -> Result:
        """Return the classes or objects in an image with their masks; see `Client.predict`."""
        return await self.predict("segment", image, **how)

    async def pose(self, image: ImageInput, **how: Any) -> Result:
        """Return the objects in an image with their keypoints, the best first; see `predict`."""
        return await self.predict("pose", image, **how)

    async def obb(self, image: ImageInput, **how: Any) -> Result:
        """Return the objects in an image with their rotated boxes, the best first; see `predict`."""
        return await self.predict("obb", image, **how)

    async def predict(
        self,
        task: Task,
        image: ImageInput,
        /,
        *,
        model: str | None = None,
        version: str | None = None,
        priority: Priority | None = None,
        deadline: float | None = None,
        **options: Option,
    ) -> Result:
        """Answer one image; see `Client.predict`."""
        data = await _read(image)
        asked = ask_for(task, data, model=model, version=version, priority=priority, options=options)
        return (await self._send(asked, deadline)).result()

    async def pipeline(
        self,
        name: str,
        image: ImageInput,
        /,
        *,
        priority: Priority | None = None,
        deadline: float | None = None,
        **options: Option,
    ) -> Result:
        """Answer one image with a pipeline; see `Client.pipeline`."""
        asked = ask_for(f"pipelines/{name}", await _read(image), priority=priority, options=options)
        return (await self._send(asked, deadline)).result()

    async def annotate(
        self,
        task: Task,
        image: ImageInput,
        /,
        *,
        format: Format = "png",  # noqa: A002
        model: str | None = None,
        priority: Priority | None = None,
        deadline: float | None = None,
        **options: Option,
    ) -> bytes:
        """Return an image with the answer drawn on it; see `Client.annotate`."""
        asked = ask_for(task, await _read(image), model=model, priority=priority, drawn=format, options=options)
        return (await self._send(asked, deadline)).body

    async def annotate_pipeline(
        self,
        name: str,
        image: ImageInput,
        /,
        *,
        format: Format = "png",  # noqa: A002
        priority: Priority | None = None,
        deadline: float | None = None,
        **options: Option,
    ) -> bytes:
        """Return an image with a pipeline's answer drawn on it; see `Client.annotate_pipeline`."""
        asked = ask_for(f"pipelines/{name}", await _read(image), priority=priority, drawn=format, options=options)
        return (await self._send(asked, deadline)).body

    async def predict_many(
        self, task: Task, images: Iterable[ImageInput], /, *, concurrency: int = 8, **how: Any
    ) -> AsyncGenerator[Result | ZooserveError]:
        """Answer images concurrently, in their order; see `Client.predict_many`."""
        if concurrency < 1:
            raise ValueError(f"concurrency={concurrency}: expected 1 or more")
        places = asyncio.Semaphore(concurrency)

        async def answer(image: ImageInput) -> Result | ZooserveError:
            async with places:
                try:
                    return await self.predict(task, image, **how)
                except ZooserveError as error:
                    return error

        pending: deque[asyncio.Task[Result | ZooserveError]] = deque()
        try:
            for image in images:
                pending.append(asyncio.create_task(answer(image)))
                if len(pending) >= AHEAD * concurrency:
                    yield await pending[0]
                    pending.popleft()
            while pending:
                yield await pending[0]
                pending.popleft()
        finally:
            for each in pending:
                each.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    async def predict_folder(
        self,
        task: Task,
        folder: str | os.PathLike[str],
        /,
        *,
        concurrency: int = 8,
        progress: Callable[[int, int], None] = lambda _done, _total: None,
        **how: Any,
    ) -> AsyncGenerator[tuple[Path, Result | ZooserveError]]:
        """Answer all images of a folder; see `Client.predict_folder`."""
        paths = await asyncio.to_thread(images_in, folder)
        done = 0
        async with aclosing(self.predict_many(task, paths, concurrency=concurrency, **how)) as outcomes:
            async for outcome in outcomes:
                done += 1
                progress(done, len(paths))
                yield paths[done - 1], outcome

    async def models(self) -> list[dict[str, Any]]:
        """Return all models of the server; see `Client.models`."""
        models: list[dict[str, Any]] = (await self._send(Ask("/v1/models"))).json()["models"]
        return models

    async def pipelines(self) -> list[dict[str, Any]]:
        """Return all pipelines of the server; see `Client.pipelines`."""
        pipelines: list[dict[str, Any]] = (await self._send(Ask("/v1/pipelines"))).json()["pipelines"]
        return pipelines

    async def model(self, name: str) -> dict[str, Any]:
        """Return the details of one model; see `Client.model`."""
        details: dict[str, Any] = (await self._send(Ask(f"/v1/models/{name}"))).json()
        return details

    async def ready(self) -> bool:
        """Return whether the server is ready; see `Client.ready`."""
        try:
            await self._once(Ask("/readyz"), self._caller.attempts(None))
        except ZooserveError:
            return False
        return True

    async def _send(self, ask: Ask, deadline: float | None = None) -> Reply:
        attempts = self._caller.attempts(deadline)
        while True:
            try:
                return await self._once(ask, attempts)
            except ZooserveError as error:
                pause = attempts.pause(error)
            await asyncio.sleep(pause)

    async def _once(self, ask: Ask, attempts: Attempts) -> Reply:
        left = attempts.left()
        try:
            async with asyncio.timeout(left):
                response = await self._http.send(self._caller.request(self._http, ask, left))
        except (TimeoutError, httpx.TimeoutException):
            raise attempts.too_late() from None
        except httpx.RequestError as error:
            raise self._caller.unreachable(error) from error
        return read_reply(response, response.content)


async def _read(image: ImageInput) -> bytes:
    """Return an encoded image; reading and compressing run on a thread, as they would block the event loop."""
    return image if isinstance(image, bytes) else await asyncio.to_thread(read_image, image)
