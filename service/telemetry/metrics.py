"""The Prometheus metrics of the service. All labels have a closed set of values: clients' input never becomes one."""

import platform
from bisect import bisect_left
from collections.abc import Container, Iterable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.metrics import MetricWrapperBase

from service.telemetry.counts import Counts
from service.telemetry.gpu import find_gpus
from service.telemetry.processes import Processes

disable_created_metrics()  # type: ignore[no-untyped-call]  # many series that Prometheus does not use

_SECONDS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


MetricT = TypeVar("MetricT", bound=MetricWrapperBase)


class Children(dict[tuple[str, ...], MetricT]):
    """A metric's children by label values: a dict takes a tenth of the time of the method `labels`."""

    def __init__(self, metric: MetricT) -> None:
        super().__init__()
        self._metric = metric

    def __missing__(self, labels: tuple[str, ...]) -> MetricT:
        child = self[labels] = self._metric.labels(*labels)
        return child


class Observed(Children[Histogram]):
    """A histogram's children; `Histogram.observe` takes more time than all else that a request's record needs."""

    def observe(self, seconds: float, *labels: str) -> None:
        """Count a time."""
        child = self[labels]
        child._sum.inc(seconds)
        child._buckets[bisect_left(child._upper_bounds, seconds)].inc(1)


class Metrics:
    """All metrics, on their own registry.

    Args:
        counts: the memory that several server processes share for their values; None: there is one process.
    """

    def __init__(self, counts: Counts | None = None) -> None:
        if counts is not None:
            counts.use()
        registry = CollectorRegistry()
        self._all = registry if counts is None else CollectorRegistry()
        if counts is not None:
            self._all.register(counts)
        counter = partial(Counter, registry=registry)
        gauge = partial(Gauge, registry=registry)
        histogram = partial(Histogram, registry=registry)
        self.requests = Children(
            counter("zooserve_requests", "Requests by outcome (HTTP status)", ["task", "model", "code"])
        )
        self.request = Observed(
            histogram(
                "zooserve_request_seconds",
                "Time of a request that was answered, or that waited until its deadline",
                ["task", "model"],
                buckets=_SECONDS,
            )
        )
        self.stage = Observed(
            histogram("zooserve_stage_seconds", "Time of a request by stage", ["model", "stage"], buckets=_SECONDS)
        )
        self.batch_size = histogram("zooserve_batch_size", "Images in a run", ["model"], buckets=_SIZES)
        self.queue_depth = gauge("zooserve_queue_depth", "Unanswered images", ["model"], multiprocess_mode="livesum")
        self.rejected = counter("zooserve_rejected", "Requests that were refused, by reason", ["model", "reason"])
        self.refused = counter(
            "zooserve_model_refused", "New versions that failed a check, so that the old one stays", ["model"]
        )
        self.gc_longest = gauge(
            "zooserve_gc_longest_pause_seconds",
            "Longest pause by Python's garbage collector since the models were loaded",
            multiprocess_mode="livemax",
        )
        self.model_info = gauge(
            "zooserve_model_info",
            "What is served, as labels; always 1",
            ["model", "version", "provider", "precision", "sha256"],
            multiprocess_mode="livemax",
        )
        self.model_ready = gauge(
            "zooserve_model_ready", "Whether a model passed all checks", ["model"], multiprocess_mode="livemin"
        )
        self.model_state = Children(
            gauge(
                "zooserve_model_state",
                "The state that a model is in: 1, all others 0",
                ["model", "state"],
                multiprocess_mode="livemostrecent",
            )
        )
        self.load = histogram(
            "zooserve_model_load_seconds",
            "Time of a model's load, with all checks",
            ["model"],
            buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
        )
        self.evictions = counter(
            "zooserve_model_evictions",
            "Models that were unloaded for others (memory) or after a time without requests (idle)",
            ["model", "why"],
        )
        self.waiting = gauge(
            "zooserve_model_waiting",
            "Requests that wait until a model is loaded",
            ["model"],
            multiprocess_mode="livesum",
        )
        self.model_bytes = gauge(
            "zooserve_model_resident_bytes",
            "Memory of a loaded model, 0 if it is not loaded",
            ["model", "memory"],
            multiprocess_mode="livesum",
        )
        restarts = counter("zooserve_process_restarts", "Processes that were started in place of one that had ended")
        restarts.inc(counts is not None and counts.replaces)
        self.engines = gauge(
            "zooserve_engines", "Processes that run models and answer", multiprocess_mode="livemostrecent"
        )
        self.ready = gauge("zooserve_ready", "Whether /readyz answers 200", multiprocess_mode="livemostrecent")
        self.live = gauge("zooserve_live", "Whether /livez answers 200", multiprocess_mode="livemostrecent")
        self.build_info = gauge(
            "zooserve_build_info",
            "What runs, as labels; always 1",
            ["version", "onnxruntime", "python"],
            multiprocess_mode="livemax",
        )
        self.build_info.labels(
            _version("zooserve"), _version("onnxruntime-gpu", "onnxruntime"), platform.python_version()
        ).set(1)
        self._machine = CollectorRegistry()  # the process that answers `/metrics` reads it for each request
        self._machine.register(Processes(counts))
        if gpus := find_gpus():
            self._machine.register(gpus)

    def count_resident(self, model: str, host: int, device: int) -> None:
        """Record what a model takes in this process, in bytes."""
        self.model_bytes.labels(model, "host").set(host)
        self.model_bytes.labels(model, "gpu").set(device)

    def end_states(self, models: Container[str]) -> None:
        """Set the states of all other models to 0: one whose folder was removed would be `failed` for ever.

        Args:
            models: that there are.
        """
        for name, state in [key for key in self.model_state if key[0] not in models]:
            self.model_state.pop((name, state)).set(0)

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._all) + generate_latest(self._machine)

    def collect(self) -> Iterable[Metric]:
        """Return our metrics as families of samples, summed over all processes."""
        return self._all.collect()


def _version(*distributions: str) -> str:
    """Return the version of the first distribution that is installed."""
    for name in distributions:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "unknown"
