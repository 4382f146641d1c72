"""Which torch is installed, and from where: tried with a local index of small wheels."""

import base64
import hashlib
import http.server
import json
import os
import re
import socket
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "requirements" / "install.py"


def wheel(folder: Path, name: str, version: str) -> Path:
    """A wheel with one empty module."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": "",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{file},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()},"
        f"{len(text)}\n"
        for file, text in files.items()
    )
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
        archive.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")
    return path


@pytest.fixture(scope="module")
def indexes(tmp_path_factory):
    """Addresses of an index with CPU builds, and of one with all else, as PEP 503 has them."""
    root = tmp_path_factory.mktemp("indexes")
    for index, name, version in [
        ("cpu", "torch", "2.15.0+cpu"),
        ("cpu", "torchvision", "0.29.2+cpu"),
        ("pypi", "torch", "2.15.0"),
        ("pypi", "torchvision", "0.29.2"),
        ("pypi", "nvidia_cublas", "13.0"),
        ("pypi", "numpy", "2.5"),
    ]:
        folder = root / index / name.replace("_", "-")
        folder.mkdir(parents=True)
        made = wheel(folder, name, version)
        (folder / "index.html").write_text(f'<a href="{made.name.replace("+", "%2B")}">{made.name}</a>')

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *args: Quiet(*args, directory=str(root)))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield root, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def checkout(indexes, tmp_path):
    """A copy of the script, beside a small lock."""
    root, _ = indexes
    lines = []
    for name, version in [("torch", "2.15.0"), ("torchvision", "0.29.2"), ("nvidia-cublas", "13.0"), ("numpy", "2.5")]:
        (made,) = (root / "pypi" / name).glob("*.whl")
        lines.append(f"{name}=={version} \\\n    --hash=sha256:{hashlib.sha256(made.read_bytes()).hexdigest()}")
    (tmp_path / "export.txt").write_text("\n".join(lines) + "\n    # via what asks for it\n")
    (tmp_path / "install.py").write_bytes(SCRIPT.read_bytes())
    return tmp_path


def install(checkout, *arguments, **environment):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    home = {"HOME": str(checkout), "PIP_CONFIG_FILE": os.devnull}
    target = checkout / "site"
    more = json.dumps(["--target", str(target), "--no-cache-dir"])
    done = subprocess.run(
        [sys.executable, checkout / "install.py", "export", "--pip", more, *arguments],
        env={**clean, **home, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    found = sorted(path.name.removesuffix(".dist-info") for path in target.glob("*.dist-info"))
    return done, found


FROM_CPU_INDEX = ["numpy-2.5", "torch-2.15.0+cpu", "torchvision-0.29.2+cpu"]
AS_LOCKED = ["numpy-2.5", "nvidia_cublas-13.0", "torch-2.15.0", "torchvision-0.29.2"]


@pytest.fixture
def pip_uses(indexes, checkout):
    """Let the copied script hand pip the local index: a setting of pip would count as the user's choice of an index."""
    _, url = indexes
    source = (checkout / "install.py").read_text()
    assert '"--require-hashes"' in source
    (checkout / "install.py").write_text(
        source.replace('"--require-hashes"', f'"--require-hashes", "--index-url", "{url}/pypi"')
    )


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere PyPI's torch is the CPU build")
class TestChoice:
    def test_the_index_of_cpu_builds_where_it_answers(self, checkout, indexes, pip_uses):
        done, found = install(checkout, "--cpu", "--cpu-index", f"{indexes[1]}/cpu")
        assert done.returncode == 0, done.stdout + done.stderr
        assert found == FROM_CPU_INDEX
        assert "its CPU build" in done.stdout

    @pytest.mark.parametrize("why", ["gpu", "refuses", "silent", "named"])
    def test_the_lock_in_all_other_cases(self, checkout, indexes, pip_uses, why):
        with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and never answers
            url = {
                "refuses": "http://127.0.0.1:9",
                "silent": f"http://127.0.0.1:{silent.getsockname()[1]}",
            }.get(why, f"{indexes[1]}/cpu")
            arguments = [] if why == "gpu" else ["--cpu"]
            named = {"PIP_EXTRA_INDEX_URL": f"{indexes[1]}/pypi"} if why == "named" else {}
            done, found = install(checkout, *arguments, "--cpu-index", url, **named)
        assert done.returncode == 0, done.stdout + done.stderr
        assert found == AS_LOCKED
        said = {"gpu": "installing", "refuses": "does not answer", "silent": "does not answer", "named": "PIP_EXTRA"}
        assert said[why] in done.stdout


def test_another_file_than_the_locked_one_is_refused(checkout, indexes, pip_uses):
    lock = checkout / "export.txt"
    lock.write_text(re.sub(r"sha256:[0-9a-f]{64}", "sha256:" + 64 * "0", lock.read_text(), count=1))
    done, found = install(checkout)
    assert done.returncode != 0
    assert "hash" in (done.stdout + done.stderr).lower()
    assert found == []
