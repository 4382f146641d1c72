"""What is counted as a success, and whose time."""

from types import SimpleNamespace

import pytest

from service.errors import Reason
from service.http.exchange import Exchange
from service.http.records import Records
from service.metrics import Metrics
from service.oip.statistics import statistics_of
from service.settings import Settings


def exchange(status: int, seconds: float) -> Exchange:
    """A request for `m` that was inferred, and ended with a status so many seconds after its start."""
    made = Exchange({"headers": [], "query_string": b""}, "/v2/models/{name}/infer")
    made.model, made.status, made.batch_size = "m", status, 2
    made.refusal = None if status == 200 else Reason.DEADLINE
    made.start -= seconds
    made.spans = [("queue", 0.0, seconds / 2), ("infer", seconds / 2, seconds)]
    return made


@pytest.mark.parametrize("status", [504, 499, 429, 400, 500])
def test_only_successes_are_successes(status):
    metrics = Metrics()
    records = Records(SimpleNamespace(settings=Settings(), metrics=metrics, tracing=None))
    for _ in range(3):
        records.note("tensors", exchange(200, 0.5))
    for _ in range(2):
        records.note("tensors", exchange(status, 30.0))
    (found,) = statistics_of([SimpleNamespace(name="m", version="1")], metrics.collect()).model_stats
    stats = found.inference_stats
    assert (stats.success.count, stats.fail.count) == (3, 2)
    assert stats.success.ns == pytest.approx(1.5e9)
    assert (stats.queue.count, stats.compute_infer.count) == (3, 3)
    assert stats.queue.ns == pytest.approx(0.75e9)
