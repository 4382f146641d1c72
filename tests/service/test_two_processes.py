"""Two server processes behind one port: what is done to one holds for the other, and one can die."""

import concurrent.futures
import contextlib
import http.client
import shutil
import threading
import time

import psutil
import pytest

from tests.conftest import serving

ADMIN = {"Authorization": "Bearer admin-key"}


@pytest.fixture(scope="module")
def pair(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    shutil.copytree(models / "lenet5", folder / "models" / "lenet5")
    environment = {"ZOOSERVE_WORKERS": "2", "ZOOSERVE_WATCH_S": "0.2", "ZOOSERVE_ADMIN_KEYS": "admin-key"}
    with serving(folder / "log", ZOOSERVE_MODELS=str(folder / "models"), **environment) as server:
        server.wait(200)
        wait_for(lambda: len(processes(server)) == 2)
        yield server


def processes(server) -> list[psutil.Process]:
    alive = []
    for child in psutil.Process(server.process.pid).children():
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            if "service.bento:ZooServe" in child.cmdline():
                alive.append(child)
    return alive


def wait_for(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def ask(server, path: str, body: bytes | None = None, times: int = 12) -> list[int]:
    """Ask on connections that are open at the same time, so that both processes have some; return the statuses."""
    host = server.url.removeprefix("http://")
    connections = [http.client.HTTPConnection(host, timeout=30) for _ in range(times)]
    for connection in connections:
        connection.request("POST" if body else "GET", path, body)
    answers = [connection.getresponse() for connection in connections]
    statuses = [answer.status for answer in answers if answer.read() is not None]
    for connection in connections:
        connection.close()
    return statuses


def test_both_unload_and_load(pair, models):
    digit = (models / "lenet5/1/golden/digit_7.png").read_bytes()

    def both_say(what: str) -> bool:
        """Whether both processes logged it. Which of them answers a request is the kernel's choice."""
        lines = pair.log.read_text().splitlines()[logged:]
        return all(any(f":zooserve:{n}]" in line and what in line for line in lines) for n in (1, 2))

    for _ in range(2):
        logged = len(pair.log.read_text().splitlines())
        assert pair.client.post("/v1/models/lenet5/unload", headers=ADMIN).status_code == 200
        wait_for(lambda: both_say("lenet5 was unloaded"))
        assert set(ask(pair, "/v1/classify", digit)) == {404}
        assert pair.client.post("/v1/models/lenet5/load", headers=ADMIN).status_code == 200
        wait_for(lambda: both_say("lenet5 is ready"))
        assert set(ask(pair, "/v1/classify", digit)) == {200}


@pytest.mark.timeout(120)
def test_a_killed_process_is_replaced_and_no_request_is_refused(pair, models):
    """What the killed one had in hand is lost with it; nobody is refused, neither now nor while the new one loads."""
    digit = (models / "lenet5/1/golden/digit_7.png").read_bytes()
    killed = processes(pair)[0]
    stop = threading.Event()

    def client() -> tuple[int, list[str]]:
        broken, wrong = 0, []
        while not stop.is_set():
            connection = http.client.HTTPConnection(pair.url.removeprefix("http://"), timeout=30)
            try:
                connection.request("POST", "/v1/classify", digit)
                answer = connection.getresponse()
                if b'"label":"7"' not in (body := answer.read()):
                    wrong.append(f"{answer.status} {body.decode()}")
            except (OSError, http.client.HTTPException):
                broken += 1
            finally:
                connection.close()
        return broken, wrong

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        running = [pool.submit(client) for _ in range(4)]
        try:
            time.sleep(0.5)
            starts = pair.log.read_text().count("1 of 1 models are ready")
            killed.kill()
            wait_for(lambda: len(alive := processes(pair)) == 2 and killed.pid not in {p.pid for p in alive})
            pair.wait_for_log("1 of 1 models are ready", starts + 1)
            time.sleep(0.5)  # the new one answers too
        finally:
            stop.set()
        outcomes = [future.result() for future in running]
    assert [status for _, wrong in outcomes for status in wrong] == []
    assert sum(broken for broken, _ in outcomes) <= 4, "more was lost than the killed process can have had in hand"
    wait_for(lambda: set(ask(pair, "/readyz")) == {200})


@pytest.mark.timeout(180)
def test_a_model_that_the_settings_do_not_name_is_loaded_by_both_or_by_none(models, tmp_path):
    for name in ("lenet5", "deeplabv3_mobilenet_v2", "efficientnet_lite0"):
        shutil.copytree(models / name, tmp_path / "models" / name)
    (tmp_path / "models" / "efficientnet_lite0" / "1" / "model.onnx").write_bytes(b"no graph")
    photo = (models / "efficientnet_lite0/1/golden/coffee.png").read_bytes()
    environment = {"ZOOSERVE_WORKERS": "2", "ZOOSERVE_WATCH_S": "0", "ZOOSERVE_ADMIN_KEYS": "admin-key"}
    environment |= {"ZOOSERVE_LOAD": "lenet5", "ZOOSERVE_MODELS": str(tmp_path / "models")}
    with serving(tmp_path / "log", **environment) as server:
        server.wait(200)
        wait_for(lambda: server.log.read_text().count("1 of 1 models are ready") == 2)
        path = "/v1/segment?model=deeplabv3_mobilenet_v2&mask=none"
        assert set(ask(server, path, photo)) == {404}
        for _ in range(2):
            assert (
                server.client.post("/v1/models/deeplabv3_mobilenet_v2/load", headers=ADMIN, timeout=60).status_code
                == 200
            )
            assert set(ask(server, path, photo)) == {200}
            assert set(ask(server, "/readyz")) == {200}
            assert server.client.post("/v1/models/deeplabv3_mobilenet_v2/unload", headers=ADMIN).status_code == 200
            assert set(ask(server, path, photo)) == {503}
        refused = server.client.post("/v1/models/efficientnet_lite0/load", headers=ADMIN)
        assert refused.status_code != 200
        assert set(ask(server, "/v1/classify?model=efficientnet_lite0", photo)) == {404}
        assert set(ask(server, "/readyz")) == {200}
