"""`zooserve reload`: it reaches a server on this machine whatever proxy the environment names."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from click.testing import CliRunner

from service.commands.reload import reload


@pytest.fixture
def asked():
    """A stand-in on the loopback that notes what it is asked, as a server or as a proxy."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            server.paths.append(self.path)
            server.keys.append(self.headers.get("Authorization", "").encode("latin-1").decode())
            body = json.dumps({"models": [{"name": "lenet5", "state": "ready"}], "detail": "A reason."}).encode()
            self.send_response(server.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.paths, server.keys, server.status = [], [], 200
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def run(url: str, **environment: str):
    nothing = dict.fromkeys(("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"))
    return CliRunner().invoke(reload, ["lenet5", "--server", url], env=nothing | environment)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
def test_a_local_server_is_asked_directly(asked, host, variable):
    result = run(f"http://{host}:{asked.server_address[1]}", **{variable: "http://127.0.0.1:9"})
    assert result.exit_code == 0, result.output
    assert asked.paths == ["/v1/models/lenet5/load", "/v1/models"]


def test_another_server_is_asked_through_the_proxy(asked):
    result = run("http://vision.example", http_proxy=f"http://127.0.0.1:{asked.server_address[1]}")
    assert result.exit_code == 0, result.output
    assert asked.paths == ["http://vision.example/v1/models/lenet5/load", "http://vision.example/v1/models"]


@pytest.mark.parametrize(("given", "sent"), [("sesame\n", "sesame"), ("schlüssel", "schlüssel")])
def test_the_key_is_sent_as_the_server_reads_it(asked, given, sent):
    result = run(f"http://127.0.0.1:{asked.server_address[1]}", ZOOSERVE_ADMIN_KEY=given)
    assert result.exit_code == 0, result.output
    assert asked.keys == [f"Bearer {sent}"] * 2


@pytest.mark.parametrize(
    ("status", "said"), [(401, "A reason. Give it by --key or ZOOSERVE_ADMIN_KEY.\n"), (403, "A reason.\n")]
)
def test_a_refusal_without_a_key_says_how_to_give_one(asked, status, said):
    asked.status = status
    result = run(f"http://127.0.0.1:{asked.server_address[1]}")
    assert result.exit_code == 1
    assert result.output == f"Error: {said}"


def test_a_key_that_no_header_can_hold_is_refused_and_not_printed():
    result = run("http://127.0.0.1:9", ZOOSERVE_ADMIN_KEY="sesame\nsesame")
    assert result.exit_code == 2
    assert "--key: it has a line break" in result.output
    assert "sesame" not in result.output


@pytest.mark.parametrize("address", ["127.0.0.1:9", "127.0.0.1:port", "[::1", ""])
def test_a_password_of_an_address_is_not_printed(address):
    result = run(f"http://me:secret@{address}")
    assert result.exit_code == 1
    assert "cannot be reached" in result.output
    assert "secret" not in result.output
