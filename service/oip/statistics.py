"""Triton's statistics, computed from the service's metrics: for requests over all protocols, in all processes."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from prometheus_client import Metric

from service.oip.messages import AnyCard, Duration, InferenceStatistics, ModelStatistics, Statistics

_STAGES = {
    "queue": "queue",
    "decode": "compute_input",
    "infer": "compute_infer",
    "postprocess": "compute_output",
}
_STAGE_SUM = "zooserve_stage_seconds_sum"


def statistics_of(cards: Sequence[AnyCard], metrics: Iterable[Metric]) -> Statistics:
    """Compute the statistics of some models.

    Args:
        cards: of the models.
        metrics: the metric families from `Metrics.collect`.
    """
    values: dict[tuple[str, ...], float] = defaultdict(float)
    for family in metrics:
        for sample in family.samples:
            labels = sample.labels
            kind = labels.get("stage") or ("success" if labels.get("code", "200") == "200" else "fail")
            values[sample.name, labels.get("model", ""), kind] += sample.value
    return Statistics([_statistics(card, values) for card in cards])


def _statistics(card: AnyCard, values: dict[tuple[str, ...], float]) -> ModelStatistics:
    def value(name: str, kind: str = "success") -> float:
        return values[f"zooserve_{name}", card.name, kind]

    stages = {
        name: Duration(int(value("stage_seconds_count", stage)), int(1e9 * value("stage_seconds_sum", stage)))
        for stage, name in _STAGES.items()
    }
    # The sum of `request_seconds` includes failed requests; stages are recorded only for answered ones.
    whole = sum(seconds for (name, model, _), seconds in values.items() if (name, model) == (_STAGE_SUM, card.name))
    answered = Duration(int(value("requests_total")), int(1e9 * whole))
    failed = Duration(int(value("requests_total", "fail")), 0)
    return ModelStatistics(
        card.name,
        card.version,
        inference_count=int(value("batch_size_sum")),
        execution_count=int(value("batch_size_count")),
        inference_stats=InferenceStatistics(answered, failed, **stages),
    )
