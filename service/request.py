"""One request's life, the same for all protocols: `/v1`, BentoML's endpoints, `/v2` and gRPC.

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
        ...                                     # the protocol encodes the refusal

Whatever the block raises ends the request: the `with` statement turns it into the request's outcome. After the block
the request is counted, logged and traced, once. A protocol adds its parsing, its encoding and its status codes only.
"""

import asyncio
import logging
import re
from collections.abc import Mapping
from secrets import token_hex
from time import perf_counter
from types import TracebackType
from typing import ClassVar, Self

from service.engine.job import Jobs, Priority, Span
from service.errors import ClientGone, Reason, RequestError
from service.keys import Guard
from service.models.model import AnyModel
from service.runtime import Runtime
from service.telemetry.logs import log_request

logger = logging.getLogger(__name__)
OK = 200
INTERNAL = "The server failed on this request; its log says why."
CLIENT_GONE = 499  # nginx's number for a client that hung up: nobody reads it, the metrics count it
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
"""The status of HTTP for each reason. Metrics, log and traces use it for all protocols, gRPC included."""
STAGES = ("read", "decode", "queue", "infer", "postprocess", "encode")  # in the order in which they happen
_TIMED = frozenset({OK, STATUS[Reason.DEADLINE]})  # whose time is recorded: that of a quick refusal says nothing
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_LATE = 0.1  # seconds; a call that is cancelled so shortly before its deadline was cancelled by that deadline


class Lifecycle:
    """What the requests of one server process share.

    Attributes:
        guard: checks keys.
        timeout_ms: the server's own deadline; a request may ask for a shorter one.
    """

    __slots__ = ("_access_log", "_metrics", "_tracing", "guard", "timeout_ms")

    def __init__(self, runtime: Runtime, guard: Guard) -> None:
        self.guard = guard
        self.timeout_ms = runtime.settings.timeout_ms
        self._access_log = runtime.settings.access_log
        self._metrics = runtime.metrics
        self._tracing = runtime.tracing

    def record(self, context: "RequestContext") -> None:
        """Count, log and trace a request that has ended."""
        metrics, task, model, status = self._metrics, context.task, context.model, context.status
        metrics.requests[task, model, str(status)].inc()
        if status in _TIMED:
            metrics.request[task, model].observe(perf_counter() - context.start)
        if context.error is not None:
            metrics.rejected.labels(model, context.error.reason.value).inc()
        if context.batch_size and status == OK:
            for stage, seconds in context.stages().items():
                metrics.stage[model, stage].observe(seconds)
        if self._access_log:
            log_request(context.log_fields())
        if self._tracing is not None:
            self._tracing.record(context)


class RequestContext:
    """One request, and what is to be said of it. Times are `time.perf_counter()` in seconds.

    Attributes:
        headers: names (lower case) and values of the request's head: HTTP's headers, or gRPC's metadata.
        route: what was called, without names of models: a path, or gRPC's name of the method.
        task: of the model; empty until the model is known.
        model: its name; empty until it is known.
        start: when the request's head had arrived.
        mark: when its last stage ended.
        deadline: after this moment an answer is of no use.
        priority: of its jobs.
        status: the outcome as a status of HTTP, whatever the protocol is.
        error: why there is no answer; None where there is one, or where the client hung up.
        spans: its stages so far.
        batch_size: rows of the batch that its last job was part of; 0: nothing was computed.
        jobs: those of its jobs that were answered.
        request_id: the client's own, or one that was made.
    """

    __slots__ = (
        "_lifecycle",
        "batch_size",
        "deadline",
        "error",
        "headers",
        "jobs",
        "mark",
        "model",
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
        self.spans: list[Span] = []
        self.batch_size = 0
        self.jobs: Jobs = ()
        given = headers.get(b"x-request-id", b"")
        self.request_id = given if _REQUEST_ID.fullmatch(given) else token_hex(16).encode()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """End the request and have it recorded. Errors end here; a cancelled task stays cancelled.

        The record is made in the next turn of the event loop. The answer goes out at the end of this one, so nobody
        waits for the record.
        """
        if error is not None:
            self._end(error)
        asyncio.get_running_loop().call_soon(self._lifecycle.record, self)
        return isinstance(error, Exception)

    def check_key(self) -> None:
        """Raise `RequestError` (`unauthorised`) where a key is needed and none that is known was sent."""
        guard = self._lifecycle.guard
        if not guard.open:
            guard.check(self.headers)

    def admit(self, model: AnyModel) -> None:
        """Note which model answers, and refuse at once what it could not answer in time.

        The queue is asked again when the jobs are submitted. Asked here, it spares reading or converting the body.

        Raises:
            RequestError: `queue_full`.
        """
        self.task, self.model = model.card.task, model.card.name
        model.batcher.check(self.deadline)

    def lap(self, stage: str) -> None:
        """End a stage now."""
        now = perf_counter()
        self.spans.append((stage, self.mark, now))
        self.mark = now

    def answered(self, jobs: Jobs) -> None:
        """Take over the stages of the job that was answered last. The next stage begins when it was finished."""
        self.jobs = jobs
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
        """The reason of the error; empty where there is none."""
        return self.error.reason.value if self.error else ""

    def stages(self) -> dict[str, float]:
        """Seconds by stage, in the order of `STAGES`. The waits for a worker and for a run are added up."""
        seconds = dict.fromkeys(STAGES, 0.0)
        for stage, start, end in self.spans:
            seconds[stage] += end - start
        return seconds

    def server_timing(self) -> bytes:
        """Say where the time went, in milliseconds, as the value of a `Server-Timing` header."""
        stages = self.stages().items() if self.status == OK else ()
        timing = "".join(f"{stage};dur={1000 * seconds:.3f}, " for stage, seconds in stages)
        return f"{timing}total;dur={1000 * (perf_counter() - self.start):.3f}".encode()

    def log_fields(self) -> dict[str, object]:
        """What the access log says of the request: nothing into which a client could put an image or a key."""
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
        """Make the outcome of what ended the request. What is not foreseen is a bug: it is logged, and not told."""
        late = self.deadline - perf_counter() < _LATE
        if isinstance(error, ClientGone) or (isinstance(error, asyncio.CancelledError) and not late):
            self.status = CLIENT_GONE
        elif isinstance(error, RequestError):
            self.fail(error)
        elif isinstance(error, asyncio.CancelledError):
            self.fail(RequestError(Reason.DEADLINE, "The deadline passed before the answer was ready."))
        else:
            logger.error("request %s failed", self.request_id.decode(), exc_info=error)
            self.fail(RequestError(Reason.INTERNAL, INTERNAL))
