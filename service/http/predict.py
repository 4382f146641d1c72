"""`POST /v1/<task>`: the latency-critical path.

A plain ASGI endpoint: it reads, submits, waits and writes, nothing else.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, cast

import msgspec
from msgspec import Struct
from starlette.types import Receive, Scope, Send

from service.engine.job import Job, Priority
from service.errors import Reason, RequestError
from service.http.annotate import Annotator, several, wanted
from service.http.body import ClientGone, read_pictures
from service.http.exchange import Exchange
from service.http.keys import Guard
from service.http.problems import Problem, problem
from service.http.records import Records
from service.models.model import ImageModel
from service.predictor import deadline_after
from service.results import Result
from service.runtime import Runtime
from service.waiting import outcome, wait
from zoo.card import Task

logger = logging.getLogger(__name__)
CLIENT_GONE = 499  # nginx's number for a client that hung up: nobody reads it, the metrics count it
_encode = msgspec.json.Encoder().encode


class Several(msgspec.Struct):
    """The answer to several pictures, in order; a failed one is an error in its place."""

    results: list[Result | Problem]


class Asked(NamedTuple):
    """What a request asks for, beside its images."""

    model: ImageModel
    options: Struct
    deadline: float
    priority: Priority


class Predict:
    """The endpoint of one task."""

    def __init__(self, task: Task, runtime: Runtime, guard: Guard, annotator: Annotator) -> None:
        self._guard = guard
        self._records = Records(runtime)
        self._task = task
        self._route = f"/v1/{task}"
        self._predictor = runtime.predictor
        self._settings = runtime.settings
        self._annotator = annotator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; every exception ends in a response, and a client that hung up gets none."""
        exchange = Exchange(scope, self._route)
        try:
            if not self._guard.open:
                self._guard.check(exchange.request_headers)
            body = await self._answer(exchange, receive)
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
        # What was sent goes out at the end of this turn of the loop; nobody waits for what comes in the next one.
        asyncio.get_running_loop().call_soon(self._records.note, self._task, exchange)

    async def _answer(self, exchange: Exchange, receive: Receive) -> bytes:
        drawn = wanted(exchange.request_headers.get(b"accept", b""))
        deadline = deadline_after(exchange.timeout_ms(self._settings.timeout_ms))
        asked = self._ask(exchange, exchange.words(), deadline)
        pictures = await read_pictures(receive, exchange.request_headers, self._settings)
        exchange.lap("read")
        return await self._run(exchange, receive, asked, pictures, drawn)

    def _ask(self, exchange: Exchange, words: dict[str, Any], deadline: float) -> Asked:
        """Find out what is asked for, and refuse what could not be answered anyway."""
        model = self._predictor.resolve(self._task, words.pop("model", None), words.pop("version", None))
        exchange.model = model.card.name
        options = self._predictor.options(model, words)
        priority = exchange.priority()
        model.batcher.check(deadline)  # once more when the picture is submitted; here it spares reading the body
        return Asked(model, options, deadline, priority)

    async def _run(
        self,
        exchange: Exchange,
        receive: Receive,
        asked: Asked,
        pictures: list[bytes | RequestError],
        drawn: bytes,
    ) -> bytes:
        """Submit the pictures, wait, and write the answer."""
        if drawn and len(pictures) > 1:
            raise several(drawn, len(pictures))
        jobs = [self._submit(picture, asked) for picture in pictures]
        if len(jobs) == 1 and isinstance(jobs[0], RequestError):
            raise jobs[0]
        if await wait([job for job in jobs if isinstance(job, Job)], asked.deadline, hung_up(receive)):
            raise ClientGone

        outcomes = [_outcome(job) for job in jobs]
        answered = [job for job in jobs if isinstance(job, Job) and job.finished and not job.failed]
        if answered:
            exchange.answered(answered)
        if len(outcomes) == 1:
            if isinstance(outcomes[0], RequestError):
                raise outcomes[0]
            if drawn:
                body = await self._annotator.draw(cast("bytes", pictures[0]), outcomes[0], drawn, asked.deadline)
                exchange.content_type = drawn
            else:
                body = _encode(outcomes[0])
        else:
            body = _encode(Several([problem(x) if isinstance(x, RequestError) else x for x in outcomes]))
        exchange.lap("encode")
        return body

    def _submit(self, picture: bytes | RequestError, asked: Asked) -> Job[Result] | RequestError:
        if isinstance(picture, RequestError):
            return picture
        try:
            image = self._predictor.image(picture, asked.model, asked.options)
            return self._predictor.submit(image, asked.model, asked.deadline, asked.priority)
        except RequestError as error:
            return error


def hung_up(receive: Receive) -> Callable[[], Coroutine[Any, Any, None]]:
    """Make of an ASGI `receive` what returns when the client hangs up."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    return watch


def _outcome(job: Job[Result] | RequestError) -> Result | RequestError:
    if isinstance(job, RequestError):
        return job
    result: Result | RequestError = outcome(job)
    return result
