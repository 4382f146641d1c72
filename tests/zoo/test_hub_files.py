"""Files of the hub, downloaded by huggingface_hub from a server that answers as Hugging Face's does."""

import hashlib
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from zoo.sources.hub_files import HubPath, hub_file_of

pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed: it comes with zooserve[export]")
COMMIT, BODY = "c" * 40, b"weights" * 1000
DIGEST = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def hub():
    """A hub with lab/Net, which only a token opens. Yields its address and the tokens that it saw."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(b"")

        def do_GET(self) -> None:
            self.answer(BODY)

        def answer(self, body: bytes) -> None:
            seen.append(self.headers.get("Authorization"))
            if seen[-1] != "Bearer hf_right":
                self.send_response(403)
                self.send_header("X-Error-Code", "GatedRepo")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            known = self.path == f"/lab/Net/resolve/{COMMIT}/net.pt"
            self.send_response(200 if known else 404)
            self.send_header("X-Error-Code", "" if known else "EntryNotFound")
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{DIGEST}"')
            self.send_header("Content-Length", str(len(BODY) if known else 0))
            self.end_headers()
            self.wfile.write(body if known else b"")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", seen
        server.shutdown()
        thread.join()


def fetched(home: Path, hub: str, name: str = "net.pt", digest: str = DIGEST, **environment: str) -> str:
    """Fetch in a process of its own, because huggingface_hub reads its settings when it is imported."""
    code = (
        "from zoo.model_card import Source; from zoo.sources import fetch; from zoo.errors import ZooError\n"
        f"source = Source(url='https://huggingface.co/lab/Net/resolve/{COMMIT}/{name}', sha256='{digest}')\n"
        "try: print(fetch(source, progress=False))\n"
        "except ZooError as error: print('refused:', error)"
    )
    own = {"HF_HOME": str(home / "hf"), "HF_ENDPOINT": hub, "ZOOSERVE_CACHE": str(home / "cache"), **environment}
    run = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | own, capture_output=True, text=True, check=False, timeout=60
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_token_endpoint_cache_and_offline_are_huggingface_hub_s(hub, tmp_path):
    url, seen = hub
    assert "accept them at" in fetched(tmp_path, url)
    path = fetched(tmp_path, url, HF_TOKEN="hf_right")
    assert Path(path).read_bytes() == BODY
    assert Path(path).is_relative_to(tmp_path / "hf")
    asked = len(seen)
    assert fetched(tmp_path, "http://127.0.0.1:9", HF_HUB_OFFLINE="1") == path
    assert "HF_HUB_OFFLINE is set: unset it" in fetched(tmp_path, url, name="other.pt", HF_HUB_OFFLINE="1")
    assert len(seen) == asked


def test_missing_and_other_files_are_refused(hub, tmp_path):
    url, _ = hub
    assert "has no lab/Net/other.pt" in fetched(tmp_path, url, name="other.pt", HF_TOKEN="hf_right")
    refused = fetched(tmp_path, url.replace("//", "//me:secret@"), name="other.pt")
    assert f"accept them at {url}/lab/Net" in refused
    assert "secret" not in refused
    changed = fetched(tmp_path, url, digest="0" * 64, HF_TOKEN="hf_right")
    assert f"its sha256 is {DIGEST}, expected {'0' * 64}" in changed


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("https://huggingface.co/lab/Net/resolve/main/a/b%20c.pt", HubPath("lab/Net", "main", "a/b c.pt")),
        ("https://huggingface.co/lab/Net/blob/main/a.pt", None),
        ("https://huggingface.co.evil.example/lab/Net/resolve/main/a.pt", None),
        ("https://host/lab/Net/resolve/main/a.pt", None),
    ],
)
def test_addresses_of_the_hub_are_recognised(url, path):
    assert hub_file_of(url) == path
