"""The stages of a request, the same for all protocols: `/v1`, BentoML's endpoints, `/v2` and gRPC.

    with RequestContext(lifecycle, headers, route) as context:
        context.check_key()
        context.admit(model)
        ...                                     # the protocol reads the body, and the predictor makes jobs
        context.lap("read")
        await wait(jobs, context.deadline)
        context.answered(jobs)
        ...                                     # the protocol encodes the answer
        context.lap("encode")
    if context.error is not None:
        ...                                     # the protocol encodes the error

An exception in the block ends the request, and the `with` statement makes it the request's outcome. After the block
the request is counted, logged and traced once. A protocol only adds its parsing, its encoding and its status codes.
"""

import asyncio
import logging
import re
from collections.abc import Callable, Mapping
from random import Random
from time import perf_counter
from types import TracebackType
from typing import ClassVar, Self, TypeVar

from service.engine.job import Jobs, Priority, Span, jobs_in_batches
from service.errors import ClientGone, Reason, RequestError, internal
from service.keys import Guard
from service.models.model import AnyModel
from service.models.pipeline import Pipeline
from service.models.registry import NotLoadedError
from service.models.usage import Usage
from service.pipelines import TASK
from service.runtime import Runtime
from service.telemetry.logs import log_request
from zoo.pipeline_card import PipelineCard

logger = logging.getLogger(__name__)
ModelT = TypeVar("ModelT", bound=AnyModel)
OK = 200
CLIENT_GONE = 499  # nginx's status for a client that hung up: it is not sent, but counted in the metrics
STATUS: Mapping[Reason, int] = {
    Reason.UNDECODABLE: 400,
    Reason.BAD_REQUEST: 400,
    Reason.UNAUTHORISED: 401,
    Reason.FORBIDDEN: 403,
    Reason.UNKNOWN_MODEL: 404,
    Reason.NOT_ACCEPTABLE: 406,
    Reason.REFUSED: 409,
    Reason.TOO_LARGE: 413,
    Reason.NOT_AN_IMAGE: 415,
    Reason.BAD_OPTION: 422,
    Reason.QUEUE_FULL: 429,
    Reason.INTERNAL: 500,
    Reason.NOT_READY: 503,
    Reason.DEADLINE: 504,
}
"""The HTTP status for each reason. Metrics, log and traces use it for all protocols, also for gRPC."""
STAGES = ("read", "decode", "queue", "infer", "postprocess", "encode")  # in this order
_TIMED = frozenset({OK, STATUS[Reason.DEADLINE]})  # statuses whose time is recorded; refusals are immediate
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_IDS = Random()  # noqa: S311 - ids are no secrets; the system's generator would give up the interpreter's lock
_LATE = 0.1  # seconds; a call that is cancelled less than this before its deadline was cancelled by the deadline


class Lifecycle:
    """Shared by all requests of one server process.

    Attributes:
        guard: checks keys.
        timeout_ms: the server's own deadline; a request may ask for a shorter one.
        on_demand: loads models.
        pipelines: finds them and their models.
    """

    __slots__ = ("_access_log", "_metrics", "_tracing", "guard", "on_demand", "pipelines", "timeout_ms")

    def __init__(self, runtime: Runtime, guard: Guard) -> None:
        self.guard = guard
        self.timeout_ms = runtime.settings.timeout_ms
        self._access_log = runtime.settings.access_log
        self._metrics = runtime.metrics
        self.on_demand = runtime.on_demand
        self.pipelines = runtime.pipelines
        self._tracing = runtime.tracing

    def record(self, context: "RequestContext") -> None:
        """Count, log and trace a request that has ended."""
        metrics, task, model, status = self._metrics, context.task, context.model, context.status
        metrics.requests[task, model, str(status)].inc()
        if status in _TIMED:
            metrics.request.observe(perf_counter() - context.start, task, model)
        for error in filter(None, (context.error, context.partly)):
            metrics.rejected.labels(model, error.reason.value).inc()
        if context.batch_size and status == OK:
            for stage, seconds in context.stages().items():
                metrics.stage.observe(seconds, model, stage)
        if self._access_log:
            log_request(context.log_fields())
        if self._tracing is not None:
            self._tracing.record(context)


class RequestContext:
    """One request, and what is counted, logged and traced of it. Times are `time.perf_counter()` in seconds.

    Attributes:
        headers: names (in lower case) and values of HTTP's headers, or of gRPC's metadata.
        route: without names of models: a path, or gRPC's name of the method.
        task: of the model; empty until the model is known.
        model: its name; empty until it is known.
        start: when the request's head had arrived.
        mark: when its last stage ended.
        deadline: when an answer becomes useless.
        priority: of its jobs.
        status: the outcome as a status of HTTP, for all protocols.
        error: why there is no answer; None if there is one, or if the client hung up.
        partly: of several images, which are answered together, the error of the first that is not to blame for it.
        spans: its stages so far.
        batch_size: rows of the batch that its last job was part of; 0: nothing was computed.
        jobs: those that were answered in batches: its jobs, or the tiles of their images.
        request_id: the client's own, or a generated one.
    """

    __slots__ = (
        "_held",
        "_lifecycle",
        "batch_size",
        "deadline",
        "error",
        "headers",
        "jobs",
        "mark",
        "model",
        "partly",
        "priority",
        "request_id",
        "route",
        "spans",
        "start",
        "status",
        "task",
    )
    statuses: ClassVar[Mapping[Reason, int]] = STATUS

    def __init__(self, lifecycle: Lifecycle, headers: Mapping[bytes, bytes], route: str, task: str = "") -> None:
        self._lifecycle = lifecycle
        self.start = self.mark = start = perf_counter()
        self.deadline = start + lifecycle.timeout_ms / 1000
        self.priority = Priority.NORMAL
        self.headers = headers
        self.route = route
        self.task = task
        self.model = ""
        self.status = OK
        self.error: RequestError | None = None
        self.partly: RequestError | None = None
        self.spans: list[Span] = []
        self.batch_size = 0
        self.jobs: Jobs = ()
        self._held: list[tuple[str, Usage]] = []  # the models that stay loaded for it
        given = headers.get(b"x-request-id", b"")
        self.request_id = given if _REQUEST_ID.fullmatch(given) else b"%032x" % _IDS.getrandbits(128)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """End the request and schedule its record. Exceptions are suppressed, except that of a cancelled task.

        The record is made in the next iteration of the event loop, after the answer was sent, and so does not delay it.
        """
        if error is not None:
            self._end(error)
        for _, usage in self._held:
            usage.end()
        asyncio.get_running_loop().call_soon(self._lifecycle.record, self)
        return isinstance(error, Exception)

    def check_key(self) -> None:
        """Raise `RequestError` (`unauthorised`) if the server has keys and the request has none of them."""
        self._lifecycle.guard.check(self.headers)

    async def obtain(self, find: Callable[[], ModelT]) -> ModelT:
        """Find the model of the request; wait until it is loaded, where it is loaded when it is asked for.

        Whoever calls it goes on to `admit` without another `await`, so that the model is not unloaded in between.

        Raises:
            RequestError: what `find` raises; `not_ready` if it cannot be loaded in time.
        """
        while True:
            try:
                return find()
            except NotLoadedError as error:
                self.model = (entry := error.entry).name
            await self._lifecycle.on_demand.wait(entry, self.deadline, [name for name, _ in self._held])
            self.lap("queue")

    def admit(self, model: AnyModel) -> None:
        """Record which model answers, and refuse the request if the model could not answer in time.

        The model stays loaded until the request has ended.

        The queue is checked again when the jobs are submitted. This first check saves reading or converting the body.

        Raises:
            RequestError: `queue_full`, or `deadline` if it has passed.
        """
        self.task, self.model = model.card.task, model.card.name
        model.batcher.check(self.deadline)
        self._hold(model)

    async def obtain_pipeline(self, card: PipelineCard, params: Mapping[str, object]) -> Pipeline:
        """Obtain both models of a pipeline, and bind the options of the request. Both stay until the request has ended.

        Raises:
            RequestError: `bad_option`; `not_ready` if one of its models is not there, or cannot be loaded in time.
        """
        pipelines, models = self._lifecycle.pipelines, []
        try:
            for find in pipelines.finds(card):
                models.append(await self.obtain(find))
                self._hold(models[-1])
        finally:
            self.task, self.model = TASK, card.name  # not that of the model for which it waited
        return pipelines.bind(card, models, params)

    def _hold(self, model: AnyModel) -> None:
        """Keep a model loaded until the request has ended."""
        model.usage.begin()
        self._held.append((model.card.name, model.usage))

    def lap(self, stage: str) -> None:
        """Record that a stage ends now."""
        now = perf_counter()
        self.spans.append((stage, self.mark, now))
        self.mark = now

    def answered(self, jobs: Jobs) -> None:
        """Add the stages of the job that was finished last. The request's next stage begins when that was finished."""
        self.jobs = jobs_in_batches(jobs)
        last = max(jobs, key=lambda job: job.finished)
        self.spans += last.spans()
        self.batch_size = last.batch_size
        self.mark = last.finished

    def fail(self, error: RequestError) -> None:
        """End the request with an error."""
        error.forget()
        self.error = error
        self.status = self.statuses[error.reason]

    @property
    def error_type(self) -> str:
        """The reason of the error; empty if there is none."""
        return self.error.reason.value if self.error else ""

    def stages(self) -> dict[str, float]:
        """Return seconds by stage, in the order of `STAGES`. `queue` is the sum of all waits."""
        seconds = dict.fromkeys(STAGES, 0.0)
        for stage, start, end in self.spans:
            seconds[stage] += end - start
        return seconds

    def server_timing(self) -> bytes:
        """Return the value of a `Server-Timing` header: the milliseconds of each stage and in total."""
        stages = self.stages().items() if self.status == OK else ()
        timing = "".join(f"{stage};dur={1000 * seconds:.3f}, " for stage, seconds in stages)
        return f"{timing}total;dur={1000 * (perf_counter() - self.start):.3f}".encode()

    def log_fields(self) -> dict[str, object]:
        """Return the fields for the access log. None can contain an image or a key from the client."""
        milliseconds = {f"{stage}_ms": round(1000 * seconds, 3) for stage, seconds in self.stages().items()}
        return {
            "request_id": self.request_id.decode(),
            "task": self.task,
            "model": self.model,
            "status": self.status,
            "refused": self.error_type,
            "batch_size": self.batch_size,
            "total_ms": round(1000 * (perf_counter() - self.start), 3),
        } | (milliseconds if self.batch_size else {})

    def _end(self, error: BaseException) -> None:
        """Set the outcome from the exception. An unexpected one is a bug: it is logged and not sent to the client."""
        late = self.deadline - perf_counter() < _LATE
        if isinstance(error, ClientGone) or (isinstance(error, asyncio.CancelledError) and not late):
            self.status = CLIENT_GONE
        elif isinstance(error, RequestError):
            self.fail(error)
        elif isinstance(error, asyncio.CancelledError):
            self.fail(RequestError(Reason.DEADLINE, "The deadline passed before the answer was ready."))
        else:
            logger.error("request %s failed", self.request_id.decode(), exc_info=error)
            self.fail(internal())
