"""SIGTERM at full load: every request that the server took in is answered."""

import asyncio
import concurrent.futures
import http.client
import os
import signal
import threading
import time

import psutil
import pytest

from service import health
from service.health import Drain
from tests.conftest import serving

TRIES = int(os.environ.get("STOP_TRIES", "3"))


class Client:
    """Asks over a kept connection, as fast as it is answered, until the server is gone or says that it goes."""

    def __init__(self, url: str, image: bytes, stop: threading.Event) -> None:
        self.host = url.removeprefix("http://")
        self.image, self.stop = image, stop
        self.answered = 0
        self.failures: list[str] = []
        self.told = False

    def run(self) -> None:
        while not self.stop.is_set():
            connection = http.client.HTTPConnection(self.host, timeout=30)
            try:
                connection.connect()
            except OSError:
                return  # not taken in: nothing listens any more
            try:
                while not self.stop.is_set():
                    connection.request("POST", "/v1/classify", self.image, {"Content-Type": "image/jpeg"})
                    response = connection.getresponse()
                    body = response.read()
                    if response.status != 200:
                        self.failures.append(f"{response.status} {body[:200]!r}")
                    self.answered += 1
                    if response.getheader("connection") == "close":
                        self.told = True
                        return  # as a load balancer would: the server is leaving
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                return
            finally:
                connection.close()


@pytest.mark.timeout(300)
def test_no_accepted_request_is_lost(models, photo, tmp_path):
    from loadtests.album import jpeg

    image = jpeg("coffee", (640, 480)).data
    told = answered = 0
    for attempt in range(TRIES):
        settings = {"ZOOSERVE_MODELS": str(models), "ZOOSERVE_LOAD": "mobilenet_v2", "ZOOSERVE_DRAIN_S": "1"}
        with serving(tmp_path / f"log{attempt}", **settings) as server:
            server.wait(200)
            stop = threading.Event()
            clients = [Client(server.url, image, stop) for _ in range(16)]
            with concurrent.futures.ThreadPoolExecutor(len(clients)) as pool:
                running = [pool.submit(client.run) for client in clients]
                time.sleep(0.5)
                server.process.send_signal(signal.SIGTERM)
                time.sleep(0.2)
                assert server.client.get("/readyz").status_code == 503
                assert "about to stop" in server.client.get("/readyz").json()["problem"]
                server.client.close()
                concurrent.futures.wait(running, timeout=30)
                stop.set()
            assert server.process.wait(20) in (0, -signal.SIGTERM), server.log.read_text()
        assert [failure for client in clients for failure in client.failures] == []
        told += sum(client.told for client in clients)
        answered += sum(client.answered for client in clients)
    assert told == TRIES * 16
    print(f"{TRIES} tries: {answered} requests answered, none lost")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["all are told", "terminal"])
def test_all_processes_may_be_told_at_once(models, tmp_path, number):
    """As systemd tells all to stop, and a terminal that is closed those that it can see."""
    settings = {"ZOOSERVE_MODELS": str(models), "ZOOSERVE_LOAD": "lenet5", "ZOOSERVE_DRAIN_S": "1"}
    with serving(tmp_path / "log", ZOOSERVE_FRONTS="2", **settings) as server:
        server.wait(200)
        processes = psutil.Process(server.process.pid).children()
        assert any("service.bento:ZooServe" in each.cmdline() for each in processes)
        told = [each for each in processes if number == signal.SIGTERM or os.getpgid(each.pid) == server.process.pid]
        assert told
        for each in (server.process, *told):
            each.send_signal(number)
        time.sleep(0.5)
        assert "about to stop" in server.client.get("/readyz").json()["problem"], "it drains"
        digit = (models / "lenet5/1/golden/digit_7.png").read_bytes()
        assert server.client.post("/v1/classify", content=digit).status_code == 200
        server.client.close()
        assert server.process.wait(20) in (0, -signal.SIGTERM), server.log.read_text()
        assert psutil.wait_procs(processes, 5)[1] == []


def test_a_second_signal_stops_at_once_and_the_same_one_twice_does_not(monkeypatch):
    monkeypatch.setattr(health, "_SAME_S", 0.1)
    stopped = []

    async def stop() -> None:
        drain = Drain(60)
        drain.install()
        for pause, count in ((0, 0), (0.2, 0), (0, 1)):
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(pause)
            assert drain.on
            assert len(stopped) == count

    before = signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
    try:
        asyncio.run(stop())
    finally:
        signal.signal(signal.SIGTERM, before)
