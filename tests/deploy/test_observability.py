"""A real Prometheus watches a real server under load: all rules are evaluated, and every panel has data."""

import json
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

import httpx
import pytest
import yaml

from tests.conftest import ROOT

DEPLOY = ROOT / "deploy"
RULES = [
    rule
    for group in yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())["groups"]
    for rule in group["rules"]
]
PANELS = json.loads((DEPLOY / "grafana" / "dashboards" / "zooserve.json").read_text())["panels"]
QUERIES = [(panel["title"], target["expr"]) for panel in PANELS for target in panel.get("targets", [])]
VARIABLES = {"$__rate_interval": "10s", "$job": "zooserve", "$instance": ".*", "$model": ".*"}
_SCRAPES = 12  # a second apart


class Prometheus:
    """A running server, asked over its HTTP interface."""

    def __init__(self, url: str, dead: str) -> None:
        self._client = httpx.Client(base_url=f"{url}/api/v1", timeout=10, trust_env=False)
        self.url, self.dead = url, dead
        self.moment = None  # when the load ended; queries are about it

    def ask(self, path: str, **params) -> dict:
        response = self._client.get(path, params=params)
        assert response.status_code == 200, (params, response.text)
        return response.json()["data"]

    def query(self, expression: str) -> list[dict]:
        return self.ask("/query", query=expression, time=self.moment or time.time())["result"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _configuration(folder: Path, *targets: str) -> Path:
    """`deploy/prometheus/prometheus.yml`, with these targets and every second."""
    given = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    given["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    given["rule_files"] = [str(DEPLOY / "prometheus" / name) for name in given["rule_files"]]
    (job,) = [job for job in given["scrape_configs"] if job["job_name"] == "zooserve"]
    del job["dns_sd_configs"]
    job["static_configs"] = [{"targets": list(targets)}]
    given["scrape_configs"] = [job]
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(given))
    return path


@pytest.fixture(scope="module")
def prometheus(server, photo, tmp_path_factory):
    """Prometheus, after some scrapes of the server under load; a second target (`dead`) does not answer."""
    binary = shutil.which("prometheus")
    if binary is None:
        pytest.skip("prometheus is not installed (Debian and Ubuntu: apt install prometheus)")
    folder = tmp_path_factory.mktemp("prometheus")
    address, dead = f"127.0.0.1:{_free_port()}", f"127.0.0.1:{_free_port()}"
    configuration = _configuration(folder, server.url.removeprefix("http://"), dead)
    over = threading.Event()
    clients = [threading.Thread(target=_load, args=(server.url, photo, over), daemon=True) for _ in range(2)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                binary,
                f"--config.file={configuration}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={address}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        for client in clients:
            client.start()
        running = Prometheus(f"http://{address}", dead)
        end = time.monotonic() + 90
        while not _scraped(running):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < end, (folder / "log").read_text()
            time.sleep(0.3)
        running.moment = time.time()
        over.set()
        yield running
    finally:
        over.set()
        process.terminate()
        process.wait(20)
        for client in clients:
            client.join(20)


def _scraped(prometheus: Prometheus) -> bool:
    try:
        if httpx.get(f"{prometheus.url}/-/ready", trust_env=False).status_code != 200:
            return False  # it reads its log first
        found = prometheus.query("count_over_time(zooserve_ready[1m])")
    except httpx.TransportError:
        return False
    return bool(found) and int(found[0]["value"][1]) >= _SCRAPES


def _load(url: str, photo, over: threading.Event) -> None:
    """Images for every task, and invalid files, until it is over."""
    requests = [
        ("classify", photo("coffee")),
        ("detect", photo("coffee")),
        ("segment", photo("coffee")),
        ("classify?model=lenet5", photo("digit_7")),
        ("classify", b"not an image"),
    ]
    with httpx.Client(base_url=f"{url}/v1", timeout=60, trust_env=False) as client:
        while not over.is_set():
            for path, body in requests:
                client.post(f"/{path}", content=body)


def filled_in(expression: str) -> str:
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    assert "$" not in expression
    return expression


def test_all_rules_can_be_evaluated(prometheus):
    rules = [rule for group in prometheus.ask("/rules")["groups"] for rule in group["rules"]]
    assert len(rules) == len(RULES)
    assert {rule["name"]: rule.get("lastError") for rule in rules if rule["health"] != "ok"} == {}


@pytest.mark.parametrize("name", [rule["record"] for rule in RULES if "record" in rule])
def test_what_is_recorded_has_data(prometheus, name):
    assert prometheus.query(name), name


def test_who_is_down_is_seen_and_who_is_up_is_left_alone(prometheus):
    (there,) = [group for group in prometheus.ask("/rules")["groups"] if group["name"] == "zooserve-there"]
    alerts = [alert for rule in there["rules"] for alert in rule["alerts"]]
    assert [(alert["labels"]["alertname"], alert["labels"]["instance"]) for alert in alerts] == [
        ("ZooserveDown", prometheus.dead)
    ]
    assert alerts[0]["annotations"]["summary"] == f"{prometheus.dead} does not answer."


@pytest.mark.parametrize(("title", "expression"), QUERIES)
def test_every_query_has_an_answer(prometheus, title, expression):
    answer = prometheus.query(filled_in(expression))
    if title.startswith("GPU"):  # there may be none here
        return
    assert answer, expression
    assert not any(sample["value"][1] == "NaN" for sample in answer if not sample["metric"].get("model"))
