"""`Client`: the synchronous client. Threads may share it."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self, TypeVar

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

T = TypeVar("T")
R = TypeVar("R")


class Client:
    """A client of one server, which keeps its connections open.

    Args:
        url: of the server. Default: the environment variable `ZOOSERVE_URL`, else http://localhost:3000.
        api_key: if the server needs one. Default: the environment variable `ZOOSERVE_API_KEY`.
        deadline: seconds for a whole call, pauses and retries included. It is sent to the server, which refuses at once
            what it cannot answer in time.
        retries: how often a call is retried after a broken connection or the status 429, 502 or 503. It waits as long
            as `Retry-After` says, but never beyond the deadline.
        http: your httpx client, for proxies or certificates; it is not closed.

    All calls raise `ZooserveError`; its `status`, `reason` and `detail` say why there is no answer.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        deadline: float = 30.0,
        retries: int = 5,
        http: httpx.Client | None = None,
    ) -> None:
        self._caller = Caller(url, api_key, deadline, retries)
        self._own = http is None
        self._http = http or httpx.Client(limits=LIMITS, mounts=direct(self._caller.url))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        if self._own:
            self._http.close()

    def classify(self, image: ImageInput, **how: Any) -> Result:
        """Return the classes of an image, the best first; see `predict`."""
        return self.predict("classify", image, **how)

    def embed(self, image: ImageInput, **how: Any) -> Result:
        """Return the features of an image, as `Result.embedding`; see `predict`."""
        return self.predict("embed", image, **how)

    def detect(self, image: ImageInput, **how: Any) -> Result:
        """Return the objects in an image with their boxes, the best first; see `predict`."""
        return self.predict("detect", image, **how)

    def segment(self, image: ImageInput, **how: Any) -> Result:
        """Return the classes or objects in an image with their masks; see `predict`."""
        return self.predict("segment", image, **how)

    def pose(self, image: ImageInput, **how: Any) -> Result:
        """Return the objects in an image with their keypoints, the best first; see `predict`."""
        return self.predict("pose", image, **how)

    def obb(self, image: ImageInput, **how: Any) -> Result:
        """Return the objects in an image with their rotated boxes, the best first; see `predict`."""
        return self.predict("obb", image, **how)

    def predict(
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
        """Answer one image.

        Args:
            task: `classify`, `embed`, `detect`, `segment`, `pose` or `obb`.
            image: a file's bytes or path, an array uint8 [H, W, 3] (RGB), [H, W, 4] or [H, W], or a PIL image.
            model: name of the model; None: the task's default.
            version: of the model; the call fails if another one is loaded. None: any.
            priority: high, normal or low: the order in the server's queue.
            deadline: seconds for this call.
            options: of the task, such as `top_k=3`, `score_threshold=0.5` or `mask="png"`.

        Raises:
            ZooserveError: there is no answer.
        """
        asked = ask_for(task, read_image(image), model=model, version=version, priority=priority, options=options)
        return self._send(asked, deadline).result()

    def pipeline(
        self,
        name: str,
        image: ImageInput,
        /,
        *,
        priority: Priority | None = None,
        deadline: float | None = None,
        **options: Option,
    ) -> Result:
        """Answer one image with a pipeline: a detector's objects, each with a second model's answer to its crop.

        Args:
            name: of the pipeline; `pipelines` lists them.
            image: as for `predict`.
            priority: as for `predict`.
            deadline: seconds for this call.
            options: of the detector's and of the second task, such as `score_threshold=0.5` and `top_k=1`; an option of
                the second task that the detector has too begins with `second_`.

        Returns:
            The detector's result; `Result.second` has the nested ones.

        Raises:
            ZooserveError: there is no answer.
        """
        asked = ask_for(f"pipelines/{name}", read_image(image), priority=priority, options=options)
        return self._send(asked, deadline).result()

    def annotate(
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
        """Return the bytes of an image file with the answer drawn on the image; raises `ZooserveError`."""
        asked = ask_for(task, read_image(image), model=model, priority=priority, drawn=format, options=options)
        return self._send(asked, deadline).body

    def annotate_pipeline(
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
        """Return the bytes of an image file with a pipeline's answer drawn on the image; raises `ZooserveError`."""
        asked = ask_for(f"pipelines/{name}", read_image(image), priority=priority, drawn=format, options=options)
        return self._send(asked, deadline).body

    def predict_many(
        self, task: Task, images: Iterable[ImageInput], /, *, concurrency: int = 8, **how: Any
    ) -> Iterator[Result | ZooserveError]:
        """Answer images concurrently, and yield the results in their order. For failed images it yields the errors.

        Args:
            task: as for `predict`.
            images: read as they are needed.
            concurrency: number of concurrent requests.
            how: as for `predict`.
        """

        def answer(image: ImageInput) -> Result | ZooserveError:
            try:
                return self.predict(task, image, **how)
            except ZooserveError as error:
                return error

        return _in_order(answer, images, concurrency)

    def predict_folder(
        self,
        task: Task,
        folder: str | os.PathLike[str],
        /,
        *,
        concurrency: int = 8,
        progress: Callable[[int, int], None] = lambda _done, _total: None,
        **how: Any,
    ) -> Iterator[tuple[Path, Result | ZooserveError]]:
        """Answer all images of a folder and its subfolders, sorted; see `images_in` (its errors too), `predict_many`.

        Args:
            task: as for `predict`.
            folder: with the images.
            concurrency: number of concurrent requests.
            progress: called after each image with the number of done images and the total.
            how: as for `predict`.

        Yields:
            The path of each image, and its result or error.
        """
        paths = images_in(folder)
        outcomes = self.predict_many(task, paths, concurrency=concurrency, **how)
        for done, (path, outcome) in enumerate(zip(paths, outcomes, strict=True), start=1):
            progress(done, len(paths))
            yield path, outcome

    def models(self) -> list[dict[str, Any]]:
        """Return all models of the server with name, state, version, task, licence and whether it is the default."""
        models: list[dict[str, Any]] = self._send(Ask("/v1/models")).json()["models"]
        return models

    def pipelines(self) -> list[dict[str, Any]]:
        """Return all pipelines of the server with name, card, options and whether they are ready."""
        pipelines: list[dict[str, Any]] = self._send(Ask("/v1/pipelines")).json()["pipelines"]
        return pipelines

    def model(self, name: str) -> dict[str, Any]:
        """Return the details of one model: its card, and its profile on the server's machine."""
        details: dict[str, Any] = self._send(Ask(f"/v1/models/{name}")).json()
        return details

    def ready(self) -> bool:
        """Return whether the server is ready: all models of its start passed all checks. False if it is not reached."""
        try:
            self._once(Ask("/readyz"), self._caller.attempts(None))
        except ZooserveError:
            return False
        return True

    def _send(self, ask: Ask, deadline: float | None = None) -> Reply:
        attempts = self._caller.attempts(deadline)
        while True:
            try:
                return self._once(ask, attempts)
            except ZooserveError as error:
                pause = attempts.pause(error)
            time.sleep(pause)

    def _once(self, ask: Ask, attempts: Attempts) -> Reply:
        request = self._caller.request(self._http, ask, attempts.left())
        try:
            response = self._http.send(request, stream=True)
            try:
                chunks = []
                for chunk in response.iter_bytes():
                    attempts.left()  # httpx's timeout applies to each read, not to all
                    chunks.append(chunk)
            finally:
                response.close()
        except httpx.TimeoutException:
            raise attempts.too_late() from None
        except httpx.RequestError as error:
            raise self._caller.unreachable(error) from error
        return read_reply(response, b"".join(chunks))


def _in_order(work: Callable[[T], R], items: Iterable[T], concurrency: int) -> Iterator[R]:
    """Call `work` on threads, and yield its results in the items' order."""
    pending: deque[Future[R]] = deque()
    with ThreadPoolExecutor(concurrency) as pool:
        try:
            for item in items:
                pending.append(pool.submit(work, item))
                if len(pending) >= AHEAD * concurrency:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
