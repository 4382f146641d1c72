"""What is counted as a success, and whose time."""

from types import SimpleNamespace

import pytest

from service.errors import Reason, RequestError
from service.keys import Guard
from service.oip.statistics import statistics_of
from service.request import Lifecycle, RequestContext
from service.settings import Settings
from service.telemetry.metrics import Metrics


def request(lifecycle: Lifecycle, status: int, seconds: float) -> RequestContext:
    """A request for `m` that was inferred, and ended with a status so many seconds after its start."""
    made = RequestContext(lifecycle, {}, "/v2/models/{name}/infer", "tensors")
    made.model, made.status, made.batch_size = "m", status, 2
    made.error = None if status == 200 else RequestError(Reason.DEADLINE, "It came too late.")
    made.start -= seconds
    made.spans = [("queue", 0.0, seconds / 2), ("infer", seconds / 2, seconds)]
    return made


@pytest.mark.parametrize("status", [504, 499, 429, 400, 500])
def test_statistics_count_only_status_200_as_success(status):
    metrics = Metrics()
    runtime = SimpleNamespace(settings=Settings(), metrics=metrics, tracing=None, on_demand=None, pipelines=None)
    lifecycle = Lifecycle(runtime, Guard("", ""))
    for _ in range(3):
        lifecycle.record(request(lifecycle, 200, 0.5))
    for _ in range(2):
        lifecycle.record(request(lifecycle, status, 30.0))
    (found,) = statistics_of([SimpleNamespace(name="m", version="1")], metrics.collect()).model_stats
    stats = found.inference_stats
    assert (stats.success.count, stats.fail.count) == (3, 2)
    assert stats.success.ns == pytest.approx(1.5e9)
    assert (stats.queue.count, stats.compute_infer.count) == (3, 3)
    assert stats.queue.ns == pytest.approx(0.75e9)
