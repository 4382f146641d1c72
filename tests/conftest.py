"""What the tests share: the exported models, sample photos, and a running server."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
from hypothesis import settings

from tests.service.engine import apart
from tests.slow import left_out, place, runs_alone, why_slow
from zoo import catalog
from zoo.extras import installed

settings.register_profile("same", derandomize=True)  # a test that passes once passes again
settings.load_profile("same")
# Of torch and NumPy, here and in processes that are started: other tests run on the other cores, and threads that wait
# for each other keep them busy.
os.environ["OMP_NUM_THREADS"] = "1"
ROOT = Path(__file__).parent.parent
NVIMGCODEC = "nvidia-nvimgcodec-cu13", "0.9.0.20"
RAY = "ray", "2.60.0"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not import a file whose tests would all be left out: what it imports, or makes, takes seconds."""
    return True if left_out(collection_path, config.option.markexpr) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `make check` leaves out, and what runs alone; where several processes share the files, sort them."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: place(item.path))
    for item in items:
        if runs_alone(item.path):
            item.add_marker(pytest.mark.alone)
        if reason := why_slow(item.path, set(getattr(item, "fixturenames", ()))):
            item.add_marker(pytest.mark.slow(reason))


@pytest.fixture(scope="session", autouse=True)
def _nothing_of_the_user(tmp_path_factory) -> Iterator[None]:
    """Settings, cards and measured profiles of whoever runs the tests are not seen, and get nothing from them."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("ZOOSERVE_")]:
            if name != "ZOOSERVE_CACHE":
                patch.delenv(name)
        for name in ("HOST", "PORT"):  # what `zooserve serve` reads as well
            patch.delenv(name, raising=False)
        patch.setenv("ZOOSERVE_CARDS", str(tmp_path_factory.mktemp("cards")))
        yield


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    """A store with the default models and no others; `make test` exports them first."""
    store = tmp_path_factory.mktemp("store")
    store.chmod(0o755)  # the image reads it as another user
    for card in (card for card in catalog.cards() if card.default):
        exported = ROOT / "models" / card.name / card.version
        if not exported.is_dir():
            pytest.fail(f"{card.name} is not exported: run `make models` first")
        shutil.copytree(exported, store / card.name / card.version)
    return store


@pytest.fixture(scope="session")
def conversions(tmp_path_factory) -> Iterator[None]:
    """What was converted before in this run of the tests is not converted again."""
    from tests.export.kept import keep

    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "conversions"
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        keep(patch, folder)
        yield


@pytest.fixture(scope="session")
def photo():
    """The bytes of a sample photo by name."""
    return lambda name: catalog.sample(name).read_bytes()


class Server:
    """A running `zooserve serve` and a client for it."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, log: Path) -> None:
        self.process, self.url, self.log = process, url, log
        self.client = httpx.Client(base_url=url, timeout=60, trust_env=False)

    def wait(self, until: int, seconds: float = 60) -> dict:
        """Wait until `/readyz` answers with a status, and return its body."""
        end = time.monotonic() + seconds
        while True:
            assert self.process.poll() is None, self.log.read_text()
            with contextlib.suppress(httpx.TransportError):
                response = self.client.get("/readyz")
                body = response.json()
                if response.status_code == until and "loading" not in {m["state"] for m in body["models"].values()}:
                    return body
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.1)

    def wait_for_log(self, text: str, count: int, seconds: float = 60) -> None:
        """Wait until the server, or its processes together, have logged a text so many times."""
        end = time.monotonic() + seconds
        while self.log.read_text().count(text) < count:
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.05)

    def resident(self) -> int:
        """Resident memory of the server's processes, in bytes."""
        import psutil

        root = psutil.Process(self.process.pid)
        return sum(process.memory_info().rss for process in (root, *root.children(recursive=True)))


def needs(extra: str) -> None:
    """Skip a test where an extra is not installed. The library is not imported: Ultralytics' changes this process."""
    if not installed(extra):
        pytest.skip(f"needs the extra `{extra}`")


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def serving(log: Path, *arguments: str, port: int = 0, cwd: Path = ROOT, **environment: str) -> Iterator[Server]:
    """Start a server on a port of the loopback (0: any that is free), and end it with all its processes."""
    port = port or free_port()
    command = [str(Path(sys.executable).with_name("zooserve")), "serve", "--port", str(port), *arguments]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=os.environ | {"ZOOSERVE_DRAIN_S": "0.1"} | environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield Server(process, f"http://127.0.0.1:{port}", log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise


@pytest.fixture(scope="session")
def server(models, tmp_path_factory):
    """A server with the default models, shared by all tests that only ask it questions."""
    with serving(tmp_path_factory.mktemp("server") / "log", ZOOSERVE_MODELS=str(models)) as server:
        server.wait(200)
        yield server


@pytest.fixture(scope="session")
def my_onnx(tmp_path_factory) -> Path:
    """A classifier as its owner exports it: mobilenet_v2 as float32 [N, 3, 224, 224] -> logits, normalised outside."""
    import torch
    from torchvision.models import mobilenet_v2

    from zoo.sources import fetch_all

    network = mobilenet_v2()
    network.load_state_dict(torch.load(fetch_all(catalog.find("mobilenet_v2").sources)["weights"], weights_only=True))
    path = tmp_path_factory.mktemp("own") / "my.onnx"
    torch.onnx.export(
        network.eval(),
        (torch.zeros(2, 3, 224, 224),),
        path,
        dynamo=True,
        opset_version=18,
        external_data=False,
        input_names=["x"],
        output_names=["y"],
        dynamic_shapes=({0: torch.export.Dim("n")},),
        verbose=False,
    )
    return path


def fetched(request, package: str, version: str, size: str) -> Path:
    """A folder with a package, fetched once into the cache; skips where it cannot be had. The progress is seen."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    try:
        with capture.global_and_fixture_disabled():
            return apart.fetch(
                package, version, size, [f"{package}=={version}"], lambda text: print(f"\n{text}", flush=True)
            )
    except apart.UnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def ray(request) -> Iterator[None]:
    """Ray, installed or fetched once into the cache: what it needs beside is of `zooserve[dev]`."""
    if installed("ray"):
        yield
        return
    packages = fetched(request, *RAY, "75 MB")
    path = os.pathsep.join([str(ROOT), str(ROOT / "client"), str(packages)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", path)
        yield


@pytest.fixture(scope="session")
def with_nvimgcodec(request) -> Callable:
    """Calls a function of a module in a process in which nvImageCodec is installed, fetched once into the cache."""
    return partial(apart.call, fetched(request, *NVIMGCODEC, "25 MB"), {})
