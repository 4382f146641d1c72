"""The CPU image, built from the Dockerfile and started as a container engine would: read-only, as nobody, no rights.

It needs root, buildah and debootstrap (Debian's packages), and takes some minutes.
"""

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]
BASE, IMAGE = "localhost/zooserve-test-base", "localhost/zooserve-test"
NEEDED = ("buildah", "debootstrap", "unshare", "setpriv")
pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(os.geteuid() != 0, reason="building an image without an engine needs root"),
    pytest.mark.skipif(
        not all(map(shutil.which, NEEDED)), reason=f"building an image without an engine needs {', '.join(NEEDED)}"
    ),
]


def run(*command: object, **kwargs) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **kwargs)
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]} {done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """The image with an empty /models, on a minimal Debian with Python."""
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("nothing may be mounted here")
    if subprocess.run(["buildah", "inspect", "--type", "image", BASE], capture_output=True, check=False).returncode:
        folder = tmp_path_factory.mktemp("base")
        made = subprocess.run(
            ["debootstrap", "--variant=minbase", "--include=python3,python3-venv,ca-certificates", "bookworm", folder],
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode:
            pytest.skip(f"debootstrap cannot make a base image here: {made.stdout.strip()[-300:]}")
        container = run("buildah", "from", "scratch").strip()
        run("buildah", "add", container, folder, "/")
        run("buildah", "commit", container, BASE)
        run("buildah", "rm", container)
        shutil.rmtree(folder, ignore_errors=True)
    run(
        "buildah", "bud", "--isolation", "chroot", "--format", "docker", "--layers",
        "--volume", "/etc/ssl/certs:/etc/ssl/certs:ro",
        "--build-arg", f"BASE={BASE}", "--build-arg", "MODELS=none", "--build-arg", "VERSION=1.2.3",
        "--target", "cpu", "--file", "deploy/Dockerfile", "--tag", IMAGE, ".",
        cwd=ROOT,
    )  # fmt: skip
    return IMAGE


@pytest.fixture(scope="module")
def container(image, models, tmp_path_factory):
    """The running image with the default models on a volume; yields its address, its process and how long it took."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("container") / "log"
    environment = os.environ | {"HOST": "127.0.0.1", "PORT": str(port)}
    start = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [ROOT / "deploy" / "run-without-engine", image, models], env=environment, stdout=output, stderr=output
        )
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() - start < 120, log.read_text()
            try:
                if httpx.get(f"{url}/readyz", trust_env=False).status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        yield url, process, time.monotonic() - start
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def served_by(url: str) -> list[Path]:
    """The /proc folders of the container's server processes."""
    port = url.rpartition(":")[2]
    return [
        folder
        for folder in Path("/proc").glob("[0-9]*")
        if (folder / "cmdline").read_bytes().startswith(b"/opt/zooserve/bin/python")
        and f"PORT={port}".encode() in (folder / "environ").read_bytes().split(b"\0")
    ]


def test_it_holds_what_serving_needs_and_no_more(image):
    container = run("buildah", "from", "--pull-never", image).strip()
    try:
        root = Path(run("buildah", "mount", container).strip())
        packages = {path.name for path in root.glob("opt/zooserve/lib/python3*/site-packages/*")}
        code = {path.name for path in root.glob("opt/code/*")}
        assert {"onnxruntime", "bentoml"} <= packages
        assert {"commands", "evaluation", "scoring", "service", "zoo"} <= code
        assert not (packages | code) & {"torch", "torchvision", "onnx", "pip", "pytest", "ultralytics"}
        assert not list((root / "root" / ".cache").glob("*"))
        assert not (root / "usr/bin/gcc").exists()
        config = json.loads(run("buildah", "inspect", "--type", "image", image))["Docker"]["config"]
        assert config["User"] == "10001:10001"
        assert config["Healthcheck"]["Test"][0] == "CMD"
        assert config["Entrypoint"] == ["zooserve"]
        labels = {name.removeprefix("org.opencontainers.image."): value for name, value in config["Labels"].items()}
        assert (labels["version"], labels["base.name"], labels["licenses"]) == ("1.2.3", BASE, "Apache-2.0")
        assert not [each for each in config["Env"] if each.startswith("NVIDIA_VISIBLE_DEVICES")], "the runtime's choice"
        assert run(*config["Healthcheck"]["Test"][1:2], "--version")
        size = sum(path.lstat().st_size for path in (root / "opt").rglob("*") if not path.is_symlink())
        print(f"zooserve and its libraries take {size / 1e6:.0f} MB of the image")
        assert size < 700e6
    finally:
        run("buildah", "rm", container)


def test_it_answers_as_nobody_on_a_read_only_root(container, photo):
    url, _, seconds = container
    print(f"ready after {seconds:.1f} s")
    answer = httpx.post(f"{url}/v1/detect", files={"image": photo("coffee")}, trust_env=False).json()
    assert answer["predictions"][0]["label"] == "cup"
    body = {"images": [base64.b64encode(photo("chelsea")).decode()]}
    answer = httpx.post(f"{url}/v1/classify", json=body, trust_env=False).json()
    assert answer["predictions"][0]["label"] == "Egyptian cat"
    folders = served_by(url)
    assert folders
    for folder in folders:
        status = dict(line.split(":\t", 1) for line in (folder / "status").read_text().splitlines() if ":\t" in line)
        assert status["Uid"].split() == ["10001"] * 4
        assert int(status["CapEff"], 16) == 0
        assert status["NoNewPrivs"] == "1"
        mounts = {line.split()[1]: line.split()[3] for line in (folder / "mounts").read_text().splitlines()}
        assert "ro" in mounts["/"].split(",")
        assert "rw" in mounts["/tmp"].split(",")


def test_its_health_check_passes_and_fails(container, image):
    url, _, _ = container
    config = json.loads(run("buildah", "inspect", "--type", "image", image))["Docker"]["config"]
    assert config["Healthcheck"]["Test"][1:] == ["python3", "/usr/local/lib/zooserve/healthcheck.py"]
    check = [shutil.which("python3"), ROOT / "deploy" / "healthcheck.py"]
    port = url.rpartition(":")[2]
    assert subprocess.run(check, env=os.environ | {"PORT": port}, capture_output=True, check=False).returncode == 0
    assert subprocess.run(check, env=os.environ | {"PORT": "9"}, capture_output=True, check=False).returncode == 1


def test_drawings_have_letters_of_other_scripts(image):
    program = "from service.vision.fonts import drawable; import sys; print([drawable(s, 7)[0] for s in sys.argv[1:]])"
    names = ["cat", "кошка", "γάτα", "قطة", "חתול", "猫", "ネコ", "고양이"]
    assert run(ROOT / "deploy" / "run-without-engine", image, "-", "python", "-c", program, *names) == f"{names}\n"
