"""The second port at the start: who opens it, and what stands against it."""

import importlib.util
import socket
import time

import pytest
from click.testing import CliRunner

from service.commands.serve import serve
from tests.conftest import free_port, serving
from tests.service.grpc.conftest import Bare


def test_without_grpcio_the_error_says_what_to_install(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr("service.grpc.find_spec", lambda name: None if name == "grpc_health" else found(name))
    result = CliRunner().invoke(serve, env={"ZOOSERVE_GRPC_PORT": "8001"})
    assert result.exit_code == 1
    assert result.output == "Error: ZOOSERVE_GRPC_PORT=8001: gRPC is not installed: pip install -e '.[grpc]'.\n"


def test_a_port_in_use_is_named_in_the_error():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        result = CliRunner().invoke(serve, ["--port", str(free_port())], env={"ZOOSERVE_GRPC_PORT": str(taken)})
    assert result.exit_code == 1
    assert f"port {taken}: Address already in use. Choose another with ZOOSERVE_GRPC_PORT=." in result.output
    result = CliRunner().invoke(serve, ["--port", "8001"], env={"ZOOSERVE_GRPC_PORT": "8001"})
    assert "HTTP has this port" in result.output


@pytest.mark.parametrize("workers", ["1", "2"])
def test_every_process_listens_at_the_address_of_http(models, tmp_path, workers):
    settings = {"ZOOSERVE_GRPC_PORT": str(port := free_port()), "ZOOSERVE_MODELS": str(models)}
    settings |= {"ZOOSERVE_LOAD": "lenet5", "ZOOSERVE_WORKERS": workers}
    digit = (models / "lenet5/1/golden/digit_7.png").read_bytes()
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "contents": {"bytes_contents": [digit]}}
    with serving(tmp_path / "log", "--host", "localhost", **settings) as server:
        server.wait(200)
        end = time.monotonic() + 30
        while server.log.read_text().count("1 of 1 models are ready") < int(workers):
            assert time.monotonic() < end
            time.sleep(0.1)
        for _ in range(8):  # a connection each: the kernel spreads them
            bare = Bare(f"127.0.0.1:{port}")
            (output,) = bare("ModelInfer", {"model_name": "lenet5", "inputs": [tensor]}).outputs
            assert b'"label":"7"' in output.contents.bytes_contents[0]
            bare.channel.close()
        count = 'zooserve_requests_total{code="200",model="lenet5",task="classify"} 8.0'
        while count not in (metrics := server.client.get("/metrics").text):  # it is kept after the answer
            assert time.monotonic() < end, metrics
