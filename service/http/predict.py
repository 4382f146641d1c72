"""`POST /v1/<task>`: the latency-critical path.

A plain ASGI endpoint: it reads, submits, waits and writes, nothing else.
"""

import asyncio
import logging
import re
from collections.abc import Mapping
from contextlib import suppress
from time import perf_counter
from typing import Any
from urllib.parse import parse_qsl
from uuid import uuid4

import msgspec
from starlette.types import Receive, Scope, Send

from service.engine.job import Job, Priority
from service.engine.model import LoadedModel
from service.errors import Reason, RequestError
from service.http.body import ClientGone, read_pictures
from service.http.problems import CONTENT_TYPE, STATUS, Problem, headers, problem
from service.metrics import Metrics
from service.predictor import Predictor, deadline_after, options_of
from service.results import Result
from service.settings import Settings
from zoo.card import Task

logger = logging.getLogger(__name__)
CLIENT_GONE = 499  # nginx's number for a client that hung up: nobody reads it, the metrics count it
STAGES = ("read", "decode", "queue", "infer", "postprocess", "encode")  # in the order in which they happen
_WATCH_AFTER = 0.02  # seconds; a request that is answered sooner never pays for watching its connection
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_encode = msgspec.json.Encoder().encode


class Several(msgspec.Struct):
    """The answer to several pictures, in order; a failed one is an error in its place."""

    results: list[Result | Problem]


class Predict:
    """The endpoint of one task."""

    def __init__(self, task: Task, predictor: Predictor, settings: Settings, metrics: Metrics) -> None:
        self._task = task
        self._predictor = predictor
        self._settings = settings
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; every exception ends in a response, and a client that hung up gets none."""
        exchange = Exchange(scope)
        try:
            body = await self._answer(exchange, scope, receive)
        except ClientGone:
            exchange.status = CLIENT_GONE
            body = b""
        except RequestError as error:
            body = exchange.refuse(error)
        except Exception:
            logger.exception("request %s failed", exchange.request_id.decode())
            body = exchange.refuse(
                RequestError(Reason.INTERNAL, "The server failed on this request; its log says why.")
            )
        if exchange.status != CLIENT_GONE:
            await send(
                {"type": "http.response.start", "status": exchange.status, "headers": exchange.headers(len(body))}
            )
            await send({"type": "http.response.body", "body": body})
        self._count(exchange)  # after the answer: nobody waits for it

    async def _answer(self, exchange: "Exchange", scope: Scope, receive: Receive) -> bytes:
        words = exchange.words
        model = self._predictor.resolve(self._task, words.pop("model", None), words.pop("version", None))
        exchange.model = model.card.name
        options = options_of(self._task, words)
        deadline = deadline_after(exchange.timeout_ms(self._settings.timeout_ms))
        priority = exchange.priority()
        pictures = await read_pictures(scope, receive, exchange.request_headers, self._settings)
        exchange.lap("read")

        jobs = [self._submit(picture, model, options, deadline, priority) for picture in pictures]
        if len(jobs) == 1 and isinstance(jobs[0], RequestError):
            raise jobs[0]
        await _wait([job for job in jobs if isinstance(job, Job)], receive, deadline)

        outcomes = [_outcome(job) for job in jobs]
        answered = [job for job in jobs if isinstance(job, Job) and not job.failed]
        if answered:  # of several pictures, the stages of the one that was answered last
            last = max(answered, key=lambda job: job.finished)
            exchange.stages |= last.stages()
            exchange.mark = last.finished  # waking this coroutine up is part of the last stage
        if len(outcomes) == 1:
            if isinstance(outcomes[0], RequestError):
                raise outcomes[0]
            body = _encode(outcomes[0])
        else:
            body = _encode(Several([problem(x) if isinstance(x, RequestError) else x for x in outcomes]))
        exchange.lap("encode")
        return body

    def _count(self, exchange: "Exchange") -> None:
        self._metrics.requests.labels(self._task, exchange.model, str(exchange.status)).inc()
        if exchange.refusal is not None:
            self._metrics.rejected.labels(exchange.model, exchange.refusal.value).inc()
        for stage, seconds in exchange.stages.items():
            self._metrics.stage.labels(exchange.model, stage).observe(seconds)

    def _submit(
        self, picture: bytes | RequestError, model: LoadedModel, options: Any, deadline: float, priority: Priority
    ) -> Job[Result] | RequestError:
        if isinstance(picture, RequestError):
            return picture
        try:
            return self._predictor.submit(picture, model, options, deadline, priority)
        except RequestError as error:
            return error


class Exchange:
    """One request and what is to be said about its answer."""

    def __init__(self, scope: Scope) -> None:
        self.start = self.mark = perf_counter()
        self.request_headers: Mapping[bytes, bytes] = dict(scope["headers"])
        self.words = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        self.model = ""
        self.status = 200
        self.refusal: Reason | None = None
        self.stages: dict[str, float] = {}
        self._extra: list[tuple[bytes, bytes]] = []
        self._content_type = b"application/json"
        given = self.request_headers.get(b"x-request-id", b"")
        self.request_id = given if _REQUEST_ID.fullmatch(given) else uuid4().hex.encode()

    def lap(self, stage: str) -> None:
        """End a stage now."""
        now = perf_counter()
        self.stages[stage] = now - self.mark
        self.mark = now

    def timeout_ms(self, default: float) -> float:
        """The request's own deadline (`X-Request-Timeout-Ms`), at most the server's."""
        return min(default, self._number(b"x-request-timeout-ms", default, "a number of milliseconds above 0"))

    def priority(self) -> Priority:
        """The request's `X-Request-Priority`: high, normal or low."""
        given = self.request_headers.get(b"x-request-priority", b"normal").decode("latin-1")
        try:
            return Priority[given.upper()]
        except KeyError:
            raise RequestError(
                Reason.BAD_OPTION, f"X-Request-Priority: {given[:80]}: expected one of `high`, `normal`, `low`."
            ) from None

    def refuse(self, error: RequestError) -> bytes:
        """Turn the answer into a problem."""
        self.status = STATUS[error.reason]
        self.refusal = error.reason
        self._extra = headers(error)
        self._content_type = CONTENT_TYPE
        return _encode(problem(error))

    def headers(self, length: int) -> list[tuple[bytes, bytes]]:
        """All headers of the response."""
        timing = ", ".join(f"{stage};dur={1000 * self.stages[stage]:.3f}" for stage in STAGES if stage in self.stages)
        total = f"total;dur={1000 * (perf_counter() - self.start):.3f}"
        return [
            (b"content-type", self._content_type),
            (b"content-length", str(length).encode()),
            (b"server-timing", f"{timing}, {total}".encode() if timing else total.encode()),
            (b"x-request-id", self.request_id),
            *self._extra,
        ]

    def _number(self, header: bytes, default: float, expected: str) -> float:
        given = self.request_headers.get(header)
        if given is None:
            return default
        try:
            value = float(given)
        except ValueError:
            value = 0.0
        if not value > 0:
            name = header.decode().title()
            raise RequestError(Reason.BAD_OPTION, f"{name}: {given[:80].decode('latin-1')}: expected {expected}.")
        return value


async def _wait(jobs: list[Job[Result]], receive: Receive, deadline: float) -> None:
    """Wait until every job is settled, the deadline passed, or the client hung up.

    Raises:
        ClientGone: the client hung up; its jobs are abandoned.
    """
    loop = asyncio.get_running_loop()
    gone = False
    watcher: asyncio.Task[None] | None = None

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        give_up()

    def start_watching() -> None:
        nonlocal watcher
        watcher = loop.create_task(watch())

    def give_up() -> None:
        for job in jobs:
            job.abandoned = True
            if not job.future.done():
                error = RequestError(Reason.DEADLINE, "The deadline passed before the answer was ready.")
                job.future.set_exception(error)

    timers = (loop.call_later(_WATCH_AFTER, start_watching), loop.call_later(deadline - perf_counter(), give_up))
    try:
        for job in jobs:
            with suppress(Exception):  # `_outcome` reads it from the job's future
                await job.future
    finally:
        for timer in timers:
            timer.cancel()
        if watcher is not None:
            watcher.cancel()
        for job in jobs:
            job.abandoned = True  # also where this request's own task was cancelled
    if gone:
        raise ClientGone


def _outcome(job: Job[Result] | RequestError) -> Result | RequestError:
    if isinstance(job, RequestError):
        return job
    error = job.future.exception()
    if error is None:
        return job.future.result()
    if isinstance(error, RequestError):
        return error
    logger.error("a picture failed", exc_info=error)
    return RequestError(Reason.INTERNAL, "The server failed on this picture; its log says why.")
