"""A server on this machine is asked directly, whatever proxy the environment names; others as it says."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from zooserve_client.local import is_local

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def asked():
    """A stand-in on the loopback that notes what it is asked, as a server or as a proxy."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            server.paths.append(self.path)
            body = json.dumps({"models": []}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.paths = []
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(params=["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
def proxied(request, monkeypatch):
    """Names a proxy in the environment, in each way that there is."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
    return lambda address: monkeypatch.setenv(request.param, address)


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://localhost:3000", True),
        ("http://LOCALHOST.:3000", True),
        ("http://zooserve.localhost", True),
        ("http://127.0.0.1", True),
        ("https://127.9.8.7:3000/x", True),
        ("http://[::1]:3000", True),
        ("http://[::ffff:127.0.0.1]:3000", True),
        ("http://0.0.0.0:3000", True),
        ("http://user:key@127.0.0.1:3000", True),
        ("http://localhost.example.com", False),
        ("http://127.0.0.1.example.com", False),
        ("http://10.0.0.1:3000", False),
        ("http://[2001:db8::1]", False),
        ("http://localhost@example.com", False),
        ("", False),
    ],
)
def test_which_urls_are_this_machine(url, local):
    assert is_local(url) is local


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_local_server_is_reached_without_a_proxy(client, asked, proxied, host):
    proxied(NOWHERE)
    assert client(f"http://{host}:{asked.server_address[1]}", retries=0).models() == []
    assert asked.paths == ["/v1/models"]


def test_another_server_is_reached_through_the_proxy(client, asked, proxied):
    proxied(f"http://127.0.0.1:{asked.server_address[1]}")
    assert client("http://vision.example:3000", retries=0).models() == []
    assert asked.paths == ["http://vision.example:3000/v1/models"]
