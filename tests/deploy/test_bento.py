"""The Bento: complete, and `bentoml serve` on it answers."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import httpx
import psutil
import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
BENTOML = [sys.executable, "-m", "bentoml"]


@pytest.fixture(scope="module")
def checkout(models, tmp_path_factory):
    """The project as somebody has it who exported the default models, in a folder of its own."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("zoo", "service", "models"):
        source = models if name == "models" else ROOT / name
        shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="module")
def home(checkout, tmp_path_factory):
    """A BENTOML_HOME that holds the Bento."""
    home = tmp_path_factory.mktemp("bentoml")
    environment = os.environ | {"BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True"}
    built = subprocess.run(
        [*BENTOML, "build"], cwd=checkout, env=environment, capture_output=True, text=True, check=False
    )
    assert "Successfully built" in built.stdout + built.stderr, built.stderr
    return home


def source(home: Path) -> Path:
    (bento,) = (path for path in (home / "bentos" / "zooserve").iterdir() if path.is_dir())
    return bento / "src"


def test_it_holds_what_is_served_and_no_more(home):
    folder = source(home)
    assert {path.name for path in folder.iterdir()} == {
        "LICENSE", "README.md", "bentofile.yaml", "models", "pyproject.toml", "service", "zoo",
    }  # fmt: skip
    assert {path.name for path in (folder / "models").iterdir()} >= {"mobilenet_v2", "yolov4_tiny", "u2netp"}
    assert not list(folder.rglob("__pycache__"))


def test_it_names_all_that_the_project_needs(home):
    named = (source(home).parent / "env" / "python" / "requirements.txt").read_text().splitlines()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["cpu"]]
    assert {Requirement(line).name for line in needed} <= {Requirement(line).name for line in named}


@pytest.mark.timeout(120)
def test_it_serves(home, photo, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path / "log"
    command = [*BENTOML, "serve", "zooserve:latest", "--host", "127.0.0.1", "--port", str(port)]
    environment = os.environ | {
        "BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True",
        "ZOOSERVE_LOAD": "mobilenet_v2", "ZOOSERVE_DRAIN_S": "0",
    }  # fmt: skip
    with log.open("wb") as output:
        server = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=output, stderr=output)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client:
            end = time.monotonic() + 90
            while True:
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < end, log.read_text()
                try:
                    if client.get("/readyz").status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                time.sleep(0.2)
            answer = client.post("/v1/classify", content=photo("coffee")).json()
            assert answer["predictions"][0]["label"] == "espresso"
            folders = {Path(child.cwd()) for child in psutil.Process(server.pid).children(recursive=True)}
            assert source(home).resolve() in {folder.resolve() for folder in folders}
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)
