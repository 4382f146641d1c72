"""One request for answers, by `/v1/<task>` or `/v2`, and what is to be said of it: headers, status, stages."""

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from secrets import token_hex
from time import perf_counter
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from starlette.types import Scope

from service.engine.job import Job, Priority, Span
from service.errors import Reason, RequestError
from service.http.problems import CONTENT_TYPE, STATUS, headers, problem

STAGES = ("read", "decode", "queue", "infer", "postprocess", "encode")  # in the order in which they happen
_MAX_OPTIONS = 64
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")


class Exchange:
    """One request and what is to be said about its answer.

    Attributes:
        route: what was asked for, without names.
        jobs: its pictures that were answered.
        extra: headers of the answer.
        content_type: of the answer.
    """

    def __init__(self, scope: Scope, route: str) -> None:
        self.start = self.mark = perf_counter()
        self.request_headers: Mapping[bytes, bytes] = dict(scope["headers"])
        self._query: bytes = scope["query_string"]
        self.route = route
        self.model = ""
        self.status = 200
        self.refusal: Reason | None = None
        self.spans: list[Span] = []
        self.batch_size = 0
        self.jobs: Sequence[Job[Any]] = ()
        self.extra: list[tuple[bytes, bytes]] = []
        self.content_type = b"application/json"
        given = self.request_headers.get(b"x-request-id", b"")
        self.request_id = given if _REQUEST_ID.fullmatch(given) else token_hex(16).encode()

    def words(self) -> dict[str, str]:
        """Options of the query string; of those with one name the last counts.

        Raises:
            RequestError: `bad_option`: there are too many.
        """
        if not self._query:
            return {}
        try:
            query = self._query.decode("latin-1")
            return dict(parse_qsl(query, keep_blank_values=True, max_num_fields=_MAX_OPTIONS))
        except ValueError:
            raise RequestError(Reason.BAD_OPTION, f"The query has more than {_MAX_OPTIONS} options.") from None

    def lap(self, stage: str) -> None:
        """End a stage now."""
        now = perf_counter()
        self.spans.append((stage, self.mark, now))
        self.mark = now

    def answered(self, jobs: Sequence[Job[Any]]) -> None:
        """Take over the stages of the job that was answered last; waking its request up is part of the next stage."""
        self.jobs = jobs
        last = max(jobs, key=lambda job: job.finished)
        self.spans += last.spans()
        self.batch_size = last.batch_size
        self.mark = last.finished

    def stages(self) -> dict[str, float]:
        """Seconds by stage, in the order in which they happen; the waits for a worker and for a run are one."""
        seconds = dict.fromkeys(STAGES, 0.0)
        for stage, start, end in self.spans:
            seconds[stage] += end - start
        return seconds

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
        self.extra = headers(error)
        self.content_type = CONTENT_TYPE
        error.forget()
        return msgspec.json.encode(problem(error))

    def facts(self, task: str) -> dict[str, Any]:
        """What the access log says of the request: nothing that a client could fill with a picture or a key."""
        milliseconds = {f"{stage}_ms": round(1000 * seconds, 3) for stage, seconds in self.stages().items()}
        return {
            "request_id": self.request_id.decode(),
            "task": task,
            "model": self.model,
            "status": self.status,
            "refused": self.refusal.value if self.refusal else "",
            "batch_size": self.batch_size,
            "total_ms": round(1000 * (perf_counter() - self.start), 3),
        } | (milliseconds if self.batch_size else {})

    def headers(self, length: int) -> list[tuple[bytes, bytes]]:
        """All headers of the response."""
        stages = self.stages().items() if self.status == HTTPStatus.OK else ()
        timing = "".join(f"{stage};dur={1000 * seconds:.3f}, " for stage, seconds in stages)
        return [
            (b"content-type", self.content_type),
            (b"content-length", str(length).encode()),
            (b"server-timing", f"{timing}total;dur={1000 * (perf_counter() - self.start):.3f}".encode()),
            (b"x-request-id", self.request_id),
            *self.extra,
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
