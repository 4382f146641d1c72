"""A real Prometheus that watches a real server under load. The other files of this folder ask it."""

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
_SCRAPES = 12  # a second apart


class Prometheus:
    """A running server, asked over its HTTP interface."""

    def __init__(self, url: str, dead: str) -> None:
        self._client = httpx.Client(base_url=f"{url}/api/v1", timeout=10, trust_env=False)
        self.url, self.dead = url, dead

    def ask(self, path: str, **words: str) -> dict:
        response = self._client.get(path, params=words)
        assert response.status_code == 200, (words, response.text)
        return response.json()["data"]

    def query(self, expression: str) -> list[dict]:
        return self.ask("/query", query=expression)["result"]


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


@pytest.fixture(scope="session")
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
        yield running
    finally:
        over.set()
        process.terminate()
        process.wait(20)
        for client in clients:
            client.join(20)


def _scraped(prometheus: Prometheus) -> bool:
    try:
        found = prometheus.query("count_over_time(zooserve_ready[1m])")
    except httpx.TransportError:
        return False
    return bool(found) and int(found[0]["value"][1]) >= _SCRAPES


def _load(url: str, photo, over: threading.Event) -> None:
    """Pictures for every task, and rubbish, until it is over."""
    requests = [
        ("classify", photo("coffee")),
        ("detect", photo("coffee")),
        ("segment", photo("coffee")),
        ("classify?model=lenet5", photo("digit_7")),
        ("classify", b"no picture"),
    ]
    with httpx.Client(base_url=f"{url}/v1", timeout=60, trust_env=False) as client:
        while not over.is_set():
            for path, body in requests:
                client.post(f"/{path}", content=body)
