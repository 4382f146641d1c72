"""`ZOOSERVE_FRONTS`: a server of several processes answers as one does, and can lose any of them."""

import asyncio
import concurrent.futures
import contextlib
import http.client
import json
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from unittest.mock import MagicMock

import httpx
import numpy as np
import psutil
import pytest

from service import server as server_module
from service import supervisor
from service.engine.providers import CPU, CUDA
from service.settings import SettingError, Settings
from service.supervisor import gpu_of, with_fronts
from tests.conftest import free_port, serving

ADMIN = {"Authorization": "Bearer admin-key"}
COFFEE = "mobilenet_v2/1/golden/coffee.png"


@pytest.fixture(scope="module")
def fronted(models, mixed_store, tmp_path_factory):
    """Two fronts and an engine, with the default models and one of tensors; gRPC is at `server.grpc`."""
    folder = tmp_path_factory.mktemp("fronted")
    (folder / "models").mkdir()
    for path in [*models.iterdir(), mixed_store / "gru"]:
        (folder / "models" / path.name).symlink_to(path)
    settings = {"ZOOSERVE_FRONTS": "2", "ZOOSERVE_ADMIN_KEYS": "admin-key", "ZOOSERVE_WATCH_S": "0.2"}
    settings |= {"ZOOSERVE_GRPC_PORT": str(port := free_port()), "ZOOSERVE_MODELS": str(folder / "models")}
    with serving(folder / "log", **settings) as server:
        server.grpc = f"127.0.0.1:{port}"
        server.wait(200)
        wait_for(lambda: [listens(server, front) for front in fronts_of(server)] == [True, True])
        yield server


def named(server, text: str) -> list[psutil.Process]:
    """The processes of a server that live and have a text in their command line."""
    alive = []
    for child in psutil.Process(server.process.pid).children():
        with contextlib.suppress(psutil.Error):
            if child.status() != psutil.STATUS_ZOMBIE and text in child.cmdline():
                alive.append(child)
    return alive


def fronts_of(server) -> list[psutil.Process]:
    return named(server, "service.bento:ZooServe")


def engines_of(server) -> list[psutil.Process]:
    """The processes of a server's engines, by their number; of each the youngest only stands by."""
    oldest: dict[str, psutil.Process] = {}
    for process in sorted(named(server, "service.engine_process"), key=psutil.Process.create_time):
        with contextlib.suppress(psutil.Error):
            oldest.setdefault(process.cmdline()[-2], process)
    return [oldest[number] for number in sorted(oldest)]


def listens(server, process: psutil.Process) -> bool:
    port = int(server.url.rpartition(":")[2])
    with contextlib.suppress(psutil.Error):
        return any(each.status == "LISTEN" and each.laddr.port == port for each in process.net_connections("tcp"))
    return False


def wait_for(condition, seconds: float = 60):
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return value


def ask(server, path: str, body: bytes | None = None, times: int = 8, **headers: str) -> list[tuple[int, bytes]]:
    """Ask on connections that are open at the same time, so that both fronts have some."""
    host = server.url.removeprefix("http://")
    connections = [http.client.HTTPConnection(host, timeout=60) for _ in range(times)]
    for connection in connections:
        connection.request("POST" if body else "GET", path, body, headers)
    answers = [connection.getresponse() for connection in connections]
    found = [(answer.status, answer.read()) for answer in answers]
    for connection in connections:
        connection.close()
    return found


@pytest.mark.parametrize(
    "path",
    [
        "/v1/classify?top_k=3&localize=true",
        "/v1/classify?model=efficientnet_lite0",
        "/v1/embed?model=mobilenet_v2",
        "/v1/detect?score_threshold=0.3",
        "/v1/detect?tiles=300x300",
        "/v1/segment?model=u2netp&mask=rle",
        "/v1/segment?model=deeplabv3_mobilenet_v2",
        "/v1/pipelines/objects",
        "/v1/classify?model=none",
        "/v1/detect?score_threshold=7",
    ],
)
def test_answers_are_those_of_one_process(fronted, server, models, path):
    photo = (models / COFFEE).read_bytes()
    (expected,) = ask(server, path, photo, 1)
    status, body = expected[0], json.loads(expected[1])
    for found in ask(fronted, path, photo):
        assert found[0] == status
        assert as_one_process(json.loads(found[1])) == as_one_process(body)


def as_one_process(body):
    """An answer whose numbers are rounded: the number of threads of a run may change the last digit."""
    if isinstance(body, dict):
        return {key: as_one_process(value) for key, value in body.items()}
    if isinstance(body, list):
        return [as_one_process(value) for value in body]
    return (
        round(body, 3) if isinstance(body, float) else re.sub(r"Loaded.*", "", body) if isinstance(body, str) else body
    )


def test_tensors_over_http(fronted, oip):
    given = np.random.default_rng(0).random((300, 5, 8), np.float32)
    head = {"inputs": [{"name": "x", "shape": given.shape, "datatype": "FP32", "data": given.ravel().tolist()}]}
    (_, expected), *_ = ask(oip, "/v2/models/gru/infer", json.dumps(head).encode(), 1)
    for status, found in ask(fronted, "/v2/models/gru/infer", json.dumps(head).encode(), 4):
        assert status == 200, found
        for one, other in zip(json.loads(found)["outputs"], json.loads(expected)["outputs"], strict=True):
            assert (one["name"], one["shape"]) == (other["name"], other["shape"])
            np.testing.assert_allclose(one["data"], other["data"], atol=1e-5)


def test_grpc(fronted, triton):
    client = triton.InferenceServerClient(fronted.grpc)
    assert client.is_server_ready()
    given = triton.InferInput("x", [3, 5, 8], "FP32")
    given.set_data_from_numpy(np.ones((3, 5, 8), np.float32))
    assert client.infer("gru", [given]).as_numpy("logits").shape == (3, 3)
    client.close()


def metric(server, name: str) -> float:
    text = httpx.get(f"{server.url}/metrics", trust_env=False, timeout=30).text
    found = re.findall(rf"^{re.escape(name)} (\S+)$", text, re.M)
    return float(found[0]) if found else float("nan")


def test_metrics_and_models_speak_of_the_whole(fronted, server, models):
    digit = (models / "lenet5/1/golden/digit_7.png").read_bytes()
    counted = 'zooserve_requests_total{code="200",model="lenet5",task="classify"}'
    before, rows = metric(fronted, counted), metric(fronted, 'zooserve_batch_size_sum{model="lenet5"}')
    assert {status for status, _ in ask(fronted, "/v1/classify?model=lenet5", digit, 20)} == {200}
    time.sleep(0.1)
    for _ in range(4):  # by whichever front
        assert metric(fronted, counted) == (0 if np.isnan(before) else before) + 20
        assert metric(fronted, 'zooserve_batch_size_sum{model="lenet5"}') == (0 if np.isnan(rows) else rows) + 20
        assert metric(fronted, "zooserve_processes") == 3
        assert metric(fronted, "zooserve_engines") == 1
        assert metric(fronted, 'zooserve_model_ready{model="lenet5"}') == 1
        assert metric(fronted, 'zooserve_queue_depth{model="lenet5"}') == 0
        assert metric(fronted, "zooserve_ready") == 1
    for path in ("/v1/models/lenet5", "/v1/models"):
        (expected,) = ask(server, path, None, 1)
        for status, found in ask(fronted, path, None, 4):
            body = json.loads(found)
            assert status == 200
            if path == "/v1/models":
                assert [model for model in body["models"] if model["name"] != "gru"] == json.loads(expected[1])[
                    "models"
                ]
            else:
                assert body["card"] == json.loads(expected[1])["card"]
                assert body["profile"]["max_batch"] >= 1


def test_an_administrator_reaches_all(fronted, models):
    digit = (models / "lenet5/1/golden/digit_7.png").read_bytes()
    unload_and_load(fronted, digit)
    assert fronted.client.post("/v1/models/none/load", headers=ADMIN).status_code == 404
    assert fronted.client.post("/v1/models/reload", headers=ADMIN).status_code == 200


def unload_and_load(server, digit: bytes) -> None:
    """Unload and load lenet5, which each front must know at once."""
    for _ in range(3):
        assert server.client.post("/v1/models/lenet5/unload", headers=ADMIN).status_code == 200
        assert {status for status, _ in ask(server, "/v1/classify?model=lenet5", digit)} == {503}
        assert server.client.post("/v1/models/lenet5/load", headers=ADMIN).status_code == 200
        assert {status for status, _ in ask(server, "/v1/classify?model=lenet5", digit)} == {200}


class Load:
    """Clients that ask one after the other until the block ends, each on a new connection."""

    def __init__(self, server, body: bytes, clients: int = 4) -> None:
        self._server, self._body = server, body
        self._stop, self._pool = threading.Event(), concurrent.futures.ThreadPoolExecutor(clients)
        self._clients = clients
        self.answered, self.broken, self.unready, self.wrong = 0, [], 0, []

    def __enter__(self) -> "Load":
        self._running = [self._pool.submit(self._ask) for _ in range(self._clients)]
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for future in self._running:
            future.result()

    def _ask(self) -> None:
        while not self._stop.is_set():
            connection = http.client.HTTPConnection(self._server.url.removeprefix("http://"), timeout=30)
            try:
                connection.request("POST", "/v1/classify?model=lenet5", self._body)
                answer = connection.getresponse()
                body = answer.read()
                if answer.status == 503 and answer.getheader("Retry-After"):
                    self.unready += 1
                    time.sleep(0.02)
                elif answer.status == 200 and b'"label":"7"' in body:
                    self.answered += 1
                else:
                    self.wrong.append((answer.status, body[:200]))
            except (OSError, http.client.HTTPException):
                self.broken.append(time.monotonic())
            finally:
                connection.close()


@pytest.mark.timeout(240)
def test_any_process_may_be_killed(models, tmp_path):
    digit = (models / "lenet5/1/golden/digit_7.png").read_bytes()
    settings = {"ZOOSERVE_FRONTS": "2", "ZOOSERVE_ENGINES": "2", "ZOOSERVE_LOAD": "lenet5"}
    settings |= {"ZOOSERVE_MODELS": str(models), "ZOOSERVE_ADMIN_KEYS": "admin-key"}
    with serving(tmp_path / "log", **settings) as server:
        server.wait(200)
        wait_for(lambda: [listens(server, front) for front in fronts_of(server)] == [True, True])
        wait_for(lambda: metric(server, "zooserve_engines") == 2)
        with Load(server, digit) as load:
            kills = []
            for _ in range(3):
                time.sleep(0.5)
                killed = fronts_of(server)[0]
                kills.append(time.monotonic())
                killed.kill()
                wait_for(lambda killed=killed: len(alive := fronts_of(server)) == 2 and killed not in alive)
                wait_for(lambda: all(listens(server, front) for front in fronts_of(server)))
            assert load.unready == 0, "there was always a front, and an engine"
            broken = len(load.broken)
            assert all(any(0 <= moment - kill < 1 for kill in kills) for moment in load.broken)
            assert broken <= 3 * 4 * 2, "what it had, and what waited at its socket until the kernel had closed that"
            for number in (0, 1):
                before, killed = load.answered, engines_of(server)[number]
                killed.kill()
                wait_for(lambda before=before: load.answered > before + 20)
                wait_for(lambda killed=killed: killed not in engines_of(server))
                wait_for(lambda: metric(server, "zooserve_engines") == 2)
            assert load.unready <= 2 * 4, "the other engine answers"
            for _ in range(2):
                before, killed = load.answered, engines_of(server)
                for engine in killed:
                    engine.kill()
                wait_for(lambda killed=killed: not set(killed) & set(engines_of(server)))
                wait_for(lambda before=before: load.answered > before + 20)
                wait_for(lambda: metric(server, "zooserve_engines") == 2)
        assert load.wrong == []
        assert load.unready > 0
        assert len(load.broken) == broken, "an engine's end breaks no connection"
        assert server.log.read_text().count("has ended and is started again in") == 2 + 2 * 2
        assert metric(server, "zooserve_process_restarts_total") >= 2 + 2 * 2, "of the engines, and of fronts"
        assert server.wait(200)["ready"]
        unload_and_load(server, digit)
        everyone = [*fronts_of(server), *named(server, "service.engine_process")]
        server.process.kill()
        psutil.wait_procs(everyone, 30)
        assert not [process for process in everyone if process.is_running() and process.status() != "zombie"]
    assert not list(Path("/dev/shm").glob("*zooserve*")), "shared memory has no names that could be left"


@pytest.mark.parametrize(
    ("given", "gpus", "expected"),
    [
        (Settings(), 0, (0, 0)),
        (Settings(device="cpu"), 1, (0, 0)),
        (Settings(fronts=3), 0, (3, 1)),
        (Settings(engines=2), 0, (2, 2)),
        (Settings(fronts=1, engines=2), 0, (1, 2)),
        (Settings(device="cuda"), 1, (5, 1)),
        (Settings(device="cuda"), 2, (5, 2)),
        (Settings(device="cuda", engines=1), 2, (5, 1)),
        (Settings(device="cuda"), 8, (5, 8)),
        (Settings(device="cuda", workers=2), 1, (0, 0)),
        (Settings(device="cuda", fronts=0), 1, (0, 0)),
        (Settings(fronts=2, workers=2), 0, "ZOOSERVE_WORKERS=2"),
        (Settings(engines=2, workers=2), 0, "ZOOSERVE_WORKERS=2"),
        (Settings(fronts=0, engines=2), 0, "ZOOSERVE_FRONTS to at least 1"),
        (Settings(fronts=2, engines=17), 0, "there are 16 cores"),
        (Settings(device="cuda", fronts=2, engines=3), 2, "there are 2 GPUs"),
    ],
)
def test_how_many_fronts_and_engines(monkeypatch, given, gpus, expected):
    monkeypatch.setattr("service.supervisor.gpu_count", lambda: gpus)
    monkeypatch.setattr("service.supervisor.usable_cores", lambda: 16)
    if isinstance(expected, str):
        with pytest.raises(SettingError, match=expected):
            with_fronts(given)
    else:
        chosen = with_fronts(given)
        assert (chosen.fronts, chosen.engines) == expected


@pytest.mark.parametrize(
    ("visible", "expected"), [(None, ["0", "1"]), ("3,5", ["3", "5"]), ("GPU-a,GPU-b,GPU-c", ["GPU-a", "GPU-b"])]
)
def test_each_engine_sees_its_own_gpu(monkeypatch, visible, expected):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [gpu_of(0), gpu_of(1)] == expected


@pytest.mark.parametrize(
    ("device", "providers", "gpus", "expected"),
    [
        ("cpu", [CUDA, CPU], 2, False),
        ("auto", [CPU], 2, False),
        ("auto", [CUDA, CPU], 0, False),
        ("auto", [CUDA, CPU], 2, True),
        ("cuda", [CUDA, CPU], 0, True),
    ],
)
def test_engines_have_cores_of_their_own_unless_they_have_gpus(monkeypatch, device, providers, gpus, expected):
    monkeypatch.setattr(supervisor, "available_providers", lambda: providers)
    monkeypatch.setattr(supervisor, "gpu_count", lambda: gpus)
    assert supervisor._on_gpu(Settings(device=device)) is expected


@pytest.mark.parametrize(("given", "armed"), [({"workers": 2}, [60.0]), ({"fronts": 2}, [60.0]), ({"fronts": 1}, [])])
def test_one_of_several_processes_ends_if_it_hangs(monkeypatch, given, armed):
    seen = []
    monkeypatch.setattr(server_module, "end_unless_alive", seen.append)
    runtime = MagicMock(settings=Settings(**given))

    async def note() -> None:
        noting = asyncio.create_task(server_module._note_state(runtime))
        await asyncio.sleep(0.01)
        noting.cancel()

    asyncio.run(note())
    assert seen == armed


def test_a_process_that_stands_still_ends_itself():
    """In a call that holds the interpreter's lock, as a library's may."""
    code = "import ctypes; from service import supervisor; supervisor._STILL_S = 1\n"
    code += "for _ in range(3): supervisor.end_unless_alive(0.5)\nctypes.PyDLL(None).sleep(60)"
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode == 1
    assert "Timeout" in done.stderr
    assert time.monotonic() - begun < 30
