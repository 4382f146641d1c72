"""What is kept of a request after its answer: metrics, a line in the log, a trace. The endpoints call it."""

from http import HTTPStatus
from time import perf_counter

from service.http.exchange import Exchange
from service.logs import log_request
from service.runtime import Runtime

_TIMED = frozenset({HTTPStatus.OK, HTTPStatus.GATEWAY_TIMEOUT})  # whose time counts: a quick refusal says nothing


class Records:
    """Of one server process."""

    def __init__(self, runtime: Runtime) -> None:
        self._access_log = runtime.settings.access_log
        self._metrics = runtime.metrics
        self._tracing = runtime.tracing

    def note(self, task: str, exchange: Exchange) -> None:
        """Keep what is to be kept. The task is one of the closed set of tasks, or empty."""
        self._metrics.requests[task, exchange.model, str(exchange.status)].inc()
        if exchange.status in _TIMED:
            self._metrics.request[task, exchange.model].observe(perf_counter() - exchange.start)
        if exchange.refusal is not None:
            self._metrics.rejected.labels(exchange.model, exchange.refusal.value).inc()
        if exchange.batch_size and exchange.status == HTTPStatus.OK:
            for stage, seconds in exchange.stages().items():
                self._metrics.stage[exchange.model, stage].observe(seconds)
        if self._access_log:
            log_request(exchange.facts(task))
        if self._tracing is not None:
            self._tracing.record(exchange)
