"""The image's health check, taken from the Dockerfile and run as an engine does, without an image."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.conftest import ROOT, free_port, serving

DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
(CHECK,) = re.findall(r"^HEALTHCHECK .*\\\n\s+CMD (\[.*\])$", DOCKERFILE, re.M)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    if not shutil.which("openssl"):
        pytest.skip("certificates are made with openssl, which is not installed")
    folder = tmp_path_factory.mktemp("certificates")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", folder / "own.key", "-out", folder / "own.pem", "-subj", "/CN=zooserve.example.com"]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture
def live():
    """Stands in for the server: `status` is what /livez answers."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(server.status if self.path == "/livez" else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.status = 200
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def check(port: int, **environment: str) -> int:
    command = json.loads(CHECK)
    assert command[0] == "python3"
    given = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    given |= {"PORT": str(port)} | environment
    (copied, place) = re.search(r"^COPY (\S+healthcheck.py) (\S+)$", DOCKERFILE, re.M).groups()
    assert command[1] == place
    return subprocess.run([sys.executable, ROOT / copied], env=given, capture_output=True, check=False).returncode


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1), (404, 1)])
def test_it_says_what_livez_says(live, status, code):
    live.status = status
    assert check(live.server_address[1]) == code


def test_it_fails_where_nothing_listens():
    assert check(free_port()) == 1


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
def test_it_asks_no_proxy(live, name):
    assert check(live.server_address[1], **{name: "http://127.0.0.1:9"}) == 0


@pytest.mark.parametrize("clients", [False, True])
def test_a_server_that_speaks_tls(models, certificates, tmp_path, clients):
    settings = {
        "ZOOSERVE_MODELS": str(models),
        "ZOOSERVE_LOAD": "lenet5",
        "ZOOSERVE_TLS_CERTIFICATE": str(certificates / "own.pem"),
        "ZOOSERVE_TLS_KEY": str(certificates / "own.key"),
        **({"ZOOSERVE_TLS_CLIENTS": str(certificates / "own.pem")} if clients else {}),
    }
    with serving(tmp_path / "log", **settings) as server:
        port = int(server.url.rpartition(":")[2])
        deadline = time.monotonic() + 60
        while check(port, **settings):
            assert time.monotonic() < deadline, server.log.read_text()
            time.sleep(0.2)
        assert check(port, **{name: value for name, value in settings.items() if "TLS" not in name}) == 1, "no HTTP"
    assert check(port, **settings) == 1, "nobody listens any more"


def test_composes_own_checks_ask_no_proxy_either():
    text = (ROOT / "deploy" / "compose.yaml").read_text()
    for command in re.findall(r"test: \[CMD, wget, (.*)\]", text):
        assert command.startswith('-Y, "off"')
