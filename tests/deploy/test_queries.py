"""Every query of rules, dashboard and autoscaler where nobody asks, and where there is nothing to ask about.

Prometheus divides 0 by 0 to NaN, which an alert ignores, a dashboard draws as nothing and an autoscaler takes for a
huge negative number. So none may answer it.
"""

import json
import shutil
import subprocess

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from service.telemetry.metrics import Metrics
from tests.conftest import ROOT

DEPLOY = ROOT / "deploy"
RULES = [
    rule
    for group in yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())["groups"]
    for rule in group["rules"]
]
PANELS = json.loads((DEPLOY / "grafana" / "dashboards" / "zooserve.json").read_text())
VARIABLES = {"$__rate_interval": "2m", "$job": "zooserve", "$instance": ".*", "$model": ".*"}
SCALED = yaml.safe_load((DEPLOY / "kubernetes" / "components" / "keda" / "scaledobject.yaml").read_text())
(SCALER,) = [trigger["metadata"]["query"].strip() for trigger in SCALED["spec"]["triggers"]]
# Panels with one number, which is a number always. (p99 of no requests is none.)
STATS = {panel["title"] for panel in PANELS["panels"] if panel["type"] == "stat"} - {"p99"}

pytestmark = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian and Ubuntu: apt install prometheus)"
)


def filled_in(expression: str) -> str:
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


DASHBOARD = [
    (panel["title"], filled_in(target["expr"])) for panel in PANELS["panels"] for target in panel.get("targets", [])
]
QUERIES = {
    **{f"rule {n}": rule["expr"] for n, rule in enumerate(RULES)},
    **{f"recorded {n}": rule["record"] for n, rule in enumerate(RULES) if "record" in rule},
    **{f"panel {n}": expression for n, (_, expression) in enumerate(DASHBOARD)},
    **{f"annotation {n}": filled_in(each["expr"]) for n, each in enumerate(PANELS["annotations"]["list"])},
    "scaler": SCALER,
}


def series(values: str) -> list[dict]:
    """All series that a server has, each with these values (after Prometheus' notation; V is what it is now)."""
    metrics = Metrics()
    metrics.requests["classify", "m", "200"].inc(9)
    metrics.request.observe(0.02, "classify", "m")
    for stage in ("read", "decode", "queue", "infer", "postprocess", "encode"):
        metrics.stage.observe(0.02, "m", stage)
    metrics.batch_size.labels("m").observe(3)
    metrics.queue_depth.labels("m").set(0)
    for reason in ("queue_full", "internal"):
        metrics.rejected.labels("m", reason).inc(0)
    metrics.refused.labels("m").inc(0)
    metrics.model_info.labels("m", "1", "CUDAExecutionProvider", "fp32", "0").set(1)
    metrics.model_ready.labels("m").set(1)
    metrics.model_state["m", "ready"].set(1)
    for gauge in (metrics.live, metrics.ready):
        gauge.set(1)
    found = [{"series": 'up{job="zooserve", instance="a"}', "values": "1x90"}]
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            labels = {"job": "zooserve", "instance": "a"} | sample.labels
            text = ", ".join(f"{name}={json.dumps(value)}" for name, value in labels.items())
            found.append({"series": f"{sample.name}{{{text}}}", "values": values.replace("V", f"{sample.value:.17g}")})
    for name in ("used", "total"):
        gpu = f'zooserve_gpu_memory_{name}_bytes{{job="zooserve", instance="a", gpu="0"}}'
        found.append({"series": gpu, "values": "0x90"})
    return found


def no_number(expression: str) -> str:
    """A query that has an answer only where another answers NaN or infinity."""
    return f"count(({expression}) != ({expression})) or count(abs({expression}) == Inf)"


def promtool(tmp_path, tests: list[dict]) -> str:
    """Run tests of queries; returns what went wrong."""
    file = tmp_path / "test.yml"
    rules = [str(DEPLOY / "prometheus" / "rules.yml")]
    file.write_text(yaml.safe_dump({"rule_files": rules, "evaluation_interval": "1m", "tests": tests}))
    done = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def case(input_series: list[dict], expected: dict[str, list[dict]], minutes: int = 60) -> dict:
    asked = [
        {"expr": expression, "eval_time": f"{minutes}m", "exp_samples": samples}
        for expression, samples in expected.items()
    ]
    return {"interval": "15s", "input_series": input_series, "promql_expr_test": asked}


# Silent for an hour; silent from the start; silent since its counters began anew.
@pytest.mark.parametrize("values", ["Vx240", "0x240", "Vx60 0x180"])
def test_queries_without_traffic(tmp_path, values):
    assert promtool(tmp_path, [case(series(values), {no_number(query): [] for query in QUERIES.values()})]) == ""


def test_there_are_no_series(tmp_path):
    assert promtool(tmp_path, [case([], {no_number(query): [] for query in QUERIES.values()})]) == ""


@pytest.mark.parametrize("values", ["Vx240", "0x240", None])
def test_single_numbers_are_numbers_always(tmp_path, values):
    given = series(values) if values else []
    queries = {f"count({expression})": [{"value": 1}] for title, expression in DASHBOARD if title in STATS}
    assert promtool(tmp_path, [case(given, queries)]) == ""
    assert len(queries) == len(STATS)


OTHERS = [  # other namespaces and jobs are not counted
    {
        "series": f'zooserve_stage_seconds_sum{{namespace="{space}", job="{job}", model="m", stage="queue"}}',
        "values": "0+900x120",
    }
    for space, job in (("other", "zooserve"), ("default", "another"))
] + [{"series": 'up{namespace="other", job="zooserve", instance="a"}', "values": "1x120"}]


@pytest.mark.parametrize(
    ("values", "up", "minutes", "expected"),
    [
        # Two models on two replicas, each with 6 seconds of requests in every 15 s.
        pytest.param("0+6x60", "1x60", 10, 1.6, id="traffic"),
        pytest.param("0+960x60", "1x60", 10, 256, id="saturation: all replicas' queues are full"),
        pytest.param("0+6x20 120+0x100", "1x120", 20, 0, id="silence after it"),
        pytest.param("0x100", "1x100", 20, 0, id="silence"),
        pytest.param(None, "1x60", 10, 0, id="no series: nobody has asked yet"),
        # No answer, not 0: KEDA takes it for an error, and `fallback` keeps the replicas.
        pytest.param("0+6x20 stale", "1x20 0x80", 20, None, id="no server can be scraped"),
        pytest.param("0+6x20 stale", "1x20 stale", 20, None, id="no server is known"),
        pytest.param(None, None, 10, None, id="another namespace than the pods'"),
    ],
)
def test_the_autoscaler_asks_for_work_in_flight_and_has_a_number_if_there_is_one(
    tmp_path, values, up, minutes, expected
):
    given = [
        {
            "series": f'zooserve_stage_seconds_sum{{namespace="default", job="zooserve", model="{model}", '
            f'stage="{stage}", instance="{instance}"}}',
            "values": "0+900x120" if stage == "read" else values,  # slow uploads are not counted
        }
        for model in "mn"
        for instance in "ab"
        for stage in ("read", "queue")
        if values
    ]
    if up:
        given += [{"series": f'up{{namespace="default", job="zooserve", instance="{x}"}}', "values": up} for x in "ab"]
    # In whole ten thousandths: promtool compares numbers exactly.
    answer = [] if expected is None else [{"value": expected}]
    asked = case([*given, *OTHERS], {f"round({SCALER}, 0.0001)": answer}, minutes)
    assert promtool(tmp_path, [asked]) == ""


def test_no_answer_is_an_error_to_the_autoscaler():
    """By default KEDA takes it for 0, and takes the pods away."""
    (metadata,) = (trigger["metadata"] for trigger in SCALED["spec"]["triggers"])
    assert metadata["ignoreNullValues"] == "false"
    assert SCALED["spec"]["fallback"]["behavior"] == "currentReplicasIfHigher"
