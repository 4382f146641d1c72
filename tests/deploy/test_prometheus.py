"""Prometheus' files: its own tools accept them, and a real one fills the recorded series and sees who is down."""

import re
import shutil
import subprocess

import pytest
import yaml

from tests.deploy.conftest import DEPLOY

FOLDER = DEPLOY / "prometheus"
RULES = [rule for group in yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"] for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDS = [rule["record"] for rule in RULES if "record" in rule]


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


def test_all_rules_can_be_evaluated(prometheus):
    rules = [rule for group in prometheus.ask("/rules")["groups"] for rule in group["rules"]]
    assert len(rules) == len(RULES)
    assert {rule["name"]: rule.get("lastError") for rule in rules if rule["health"] != "ok"} == {}


@pytest.mark.parametrize("name", RECORDS)
def test_what_is_recorded_has_data(prometheus, name):
    assert prometheus.query(name), name


def test_who_is_down_is_seen_and_who_is_up_is_left_alone(prometheus):
    (there,) = [group for group in prometheus.ask("/rules")["groups"] if group["name"] == "zooserve-there"]
    alerts = [alert for rule in there["rules"] for alert in rule["alerts"]]
    assert [(alert["labels"]["alertname"], alert["labels"]["instance"]) for alert in alerts] == [
        ("ZooserveDown", prometheus.dead)
    ]
    assert alerts[0]["annotations"]["summary"] == f"{prometheus.dead} does not answer."
