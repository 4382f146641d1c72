"""The image's health check, taken from the Dockerfile and run as an engine does, without an image."""

import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.conftest import ROOT, free_port

(CHECK,) = re.findall(r"^HEALTHCHECK .*\\\n\s+CMD (\[.*\])$", (ROOT / "deploy" / "Dockerfile").read_text(), re.M)


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
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def check(port: int, **environment: str) -> int:
    command = json.loads(CHECK)
    assert command[0] == "python3"
    given = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    given |= {"PORT": str(port)} | environment
    return subprocess.run([sys.executable, *command[1:]], env=given, capture_output=True, check=False).returncode


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1), (404, 1)])
def test_it_says_what_livez_says(live, status, code):
    live.status = status
    assert check(live.server_address[1]) == code


def test_it_fails_where_nothing_listens():
    assert check(free_port()) == 1


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
def test_it_asks_no_proxy(live, name):
    assert check(live.server_address[1], **{name: "http://127.0.0.1:9"}) == 0


def test_composes_own_checks_ask_no_proxy_either():
    text = (ROOT / "deploy" / "compose.yaml").read_text()
    for command in re.findall(r"test: \[CMD, wget, (.*)\]", text):
        assert command.startswith('-Y, "off"')
