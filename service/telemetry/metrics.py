"""The Prometheus metrics of the service. All labels have a closed set of values: clients' input never becomes one."""

import platform
from collections.abc import Iterable
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
        self.requests = Children(
            Counter(
                "zooserve_requests", "Requests by outcome (HTTP status)", ["task", "model", "code"], registry=registry
            )
        )
        self.request = Children(
            Histogram(
                "zooserve_request_seconds",
                "Time of a request that was answered, or that waited until its deadline",
                ["task", "model"],
                buckets=_SECONDS,
                registry=registry,
            )
        )
        self.stage = Children(
            Histogram(
                "zooserve_stage_seconds",
                "Time of a request by stage",
                ["model", "stage"],
                buckets=_SECONDS,
                registry=registry,
            )
        )
        self.batch_size = Histogram(
            "zooserve_batch_size", "Images in a run", ["model"], buckets=_SIZES, registry=registry
        )
        self.queue_depth = Gauge(
            "zooserve_queue_depth", "Unanswered images", ["model"], multiprocess_mode="livesum", registry=registry
        )
        self.rejected = Counter(
            "zooserve_rejected", "Requests that were refused, by reason", ["model", "reason"], registry=registry
        )
        self.refused = Counter(
            "zooserve_model_refused",
            "New versions that failed a check, so that the old one stays",
            ["model"],
            registry=registry,
        )
        self.gc_longest = Gauge(
            "zooserve_gc_longest_pause_seconds",
            "Longest pause by Python's garbage collector since the models were loaded",
            multiprocess_mode="livemax",
            registry=registry,
        )
        self.model_info = Gauge(
            "zooserve_model_info",
            "What is served, as labels; always 1",
            ["model", "version", "provider", "precision", "sha256"],
            multiprocess_mode="livemax",
            registry=registry,
        )
        self.model_ready = Gauge(
            "zooserve_model_ready",
            "Whether a model passed all checks",
            ["model"],
            multiprocess_mode="livemin",
            registry=registry,
        )
        self.model_state = Children(
            Gauge(
                "zooserve_model_state",
                "The state that a model is in: 1, all others 0",
                ["model", "state"],
                multiprocess_mode="livemostrecent",
                registry=registry,
            )
        )
        self.load = Histogram(
            "zooserve_model_load_seconds",
            "Time of a model's load, with all checks",
            ["model"],
            buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
            registry=registry,
        )
        self.evictions = Counter(
            "zooserve_model_evictions",
            "Models that were unloaded for others (memory) or after a time without requests (idle)",
            ["model", "why"],
            registry=registry,
        )
        self.waiting = Gauge(
            "zooserve_model_waiting",
            "Requests that wait until a model is loaded",
            ["model"],
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.model_bytes = Gauge(
            "zooserve_model_resident_bytes",
            "Memory of a loaded model, 0 if it is not loaded",
            ["model", "memory"],
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.ready = Gauge(
            "zooserve_ready",
            "Whether /readyz answers 200",
            multiprocess_mode="livemostrecent",
            registry=registry,
        )
        self.live = Gauge(
            "zooserve_live", "Whether /livez answers 200", multiprocess_mode="livemostrecent", registry=registry
        )
        self.build_info = Gauge(
            "zooserve_build_info",
            "What runs, as labels; always 1",
            ["version", "onnxruntime", "python"],
            multiprocess_mode="livemax",
            registry=registry,
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
