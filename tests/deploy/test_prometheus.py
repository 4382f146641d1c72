"""Prometheus' files: its own tools accept them, every alert is tried and explained."""

import json
import re
import shutil
import subprocess

import pytest
import yaml

from service.http.server.refusals import too_many_bodies, too_many_connections
from service.request import STATUS
from tests.conftest import ROOT

DEPLOY = ROOT / "deploy"
FOLDER = DEPLOY / "prometheus"
RULES = [rule for group in yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"] for rule in group["rules"]]
DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboards" / "zooserve.json").read_text())
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian and Ubuntu: apt install prometheus)"
)
@pytest.mark.parametrize(
    "command",
    ["check config prometheus.yml", "check rules rules.yml", "test rules rules_test.yml"],
)
def test_promtool(command):
    process = subprocess.run(["promtool", *command.split()], check=False, cwd=FOLDER, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr


def test_every_alert_has_a_case_in_which_it_fires():
    fired = {
        re.search(r'alertname="(\w+)"', sample["labels"])[1]
        for case in yaml.safe_load((FOLDER / "rules_test.yml").read_text())["tests"]
        for test in case["promql_expr_test"]
        for sample in test["exp_samples"]
        if "alertname" in sample["labels"]
    }
    assert fired == set(ALERTS)


@pytest.mark.parametrize("name", ALERTS)
def test_whoever_is_woken_up_is_told_what_to_do(name):
    alert = ALERTS[name]
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert alert["annotations"].keys() == {"summary", "description", "runbook"}
    assert len(alert["annotations"]["description"]) > 80
    assert alert["annotations"]["runbook"] == f"deploy/README.md#{name.lower()}"
    assert f"\n### {name}\n" in (DEPLOY / "README.md").read_text()


def test_what_the_server_could_not_do_is_in_the_share_of_the_rejected():
    """Each reason for a 429, 503 or 504: the request was fine. All other reasons are the client's, or a fault."""
    (expr,) = (rule["expr"] for rule in RULES if rule.get("record") == "job:zooserve_rejected:ratio5m")
    counted = re.compile(re.search('reason=~"([^"]+)"', expr)[1])
    without_app = {each.reason: each.status for each in (too_many_connections(), too_many_bodies(1))}
    statuses = {reason.value: int(status) for reason, status in STATUS.items()} | without_app
    assert {reason for reason in statuses if counted.fullmatch(reason)} == {
        reason for reason, status in statuses.items() if status in {429, 503, 504}
    }
    (panel,) = (each for each in DASHBOARD["panels"] if each["title"] == "Refused or failed")
    assert f'reason=~"{counted.pattern}|internal"' in panel["targets"][0]["expr"]
