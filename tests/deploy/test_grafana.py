"""Grafana's files: the dashboard is sound, and what is provisioned is there."""

import json
import re
from itertools import combinations

import pytest
import yaml

from tests.conftest import ROOT

DEPLOY = ROOT / "deploy"
FOLDER = DEPLOY / "grafana"
DASHBOARD = json.loads((FOLDER / "dashboards" / "zooserve.json").read_text())
PANELS = {panel["title"]: panel for panel in DASHBOARD["panels"] if panel["type"] != "row"}


def test_panels_stand_side_by_side():
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    assert all(place["x"] >= 0 and place["x"] + place["w"] <= 24 for place in places)
    for a, b in combinations(places, 2):
        apart = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        below = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert apart or below, (a, b)


@pytest.mark.parametrize("title", PANELS)
def test_every_panel_asks_the_chosen_source(title):
    panel = PANELS[title]
    assert panel["targets"]
    for part in (panel, *panel["targets"]):
        assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    refs = [target["refId"] for target in panel["targets"]]
    assert len(set(refs)) == len(refs)


def test_only_variables_that_there_are():
    known = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps([DASHBOARD["panels"], DASHBOARD["annotations"]])))
    assert used <= known | {"__rate_interval"}


def test_what_is_provisioned_is_what_compose_brings():
    provisioning = FOLDER / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "zooserve.yaml").read_text())["providers"]
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    assert source["url"] == "http://prometheus:9090"
    assert "prometheus" in services
    mounts = [volume.split(":")[:2] for volume in services["grafana"]["volumes"]]
    assert ["./grafana/provisioning", "/etc/grafana/provisioning"] in mounts
    assert ["./grafana/dashboards", provider["options"]["path"]] in mounts


def test_refusals_that_are_no_mistakes_of_clients_are_told_from_the_others():
    rules = (DEPLOY / "prometheus" / "rules.yml").read_text()
    (reasons,) = re.findall(r'zooserve_rejected_total{reason=~"([^"]+)"', rules)
    for reason in reasons.split("|"):
        assert reason.replace(".+", "...") in PANELS["Refused, by reason"]["description"]


def test_panels_that_the_runbook_and_the_alerts_name_are_there():
    texts = [(DEPLOY / "README.md").read_text(), (DEPLOY / "prometheus" / "rules.yml").read_text()]
    named = {name for text in texts for name in re.findall('"([A-Z][^"{]*)"', text)} - {"CPUExecutionProvider"}
    titles = [panel["title"] for panel in DASHBOARD["panels"]]
    assert len(named) >= 5
    assert not [name for name in named if not any(title.startswith(name) for title in titles)]
