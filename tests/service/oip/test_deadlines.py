"""Limits of time count from the moment at which a request's head has arrived, over both protocols."""

import asyncio
import contextlib
import json
import socket
import time

import grpc
import numpy as np
import pytest

from service.grpc.schema import SERVICE, message

X = {"name": "x", "shape": [1, 2, 8], "datatype": "FP32"}
LATE = 0.8  # seconds between a request's head and the rest of it
LIMIT = 0.4


def slowly(server, headers: str, parameters: dict) -> int:
    """Send a request's head, and its body later; the status of the answer."""
    body = json.dumps({"inputs": [X | {"data": np.zeros(16).tolist()}], "parameters": parameters}).encode()
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        head = f"POST /v2/models/gru/infer HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
        connection.sendall(head.encode())
        time.sleep(LATE)
        connection.sendall(body)
        return int(connection.recv(4096).split()[1])


@pytest.mark.parametrize(
    ("headers", "parameters", "status"),
    [
        ("", {}, 200),
        (f"X-Request-Timeout-Ms: {1000 * LIMIT:.0f}\r\n", {}, 504),
        ("", {"timeout": int(1e6 * LIMIT)}, 504),
        ("X-Request-Timeout-Ms: 20000\r\n", {"timeout": 20_000_000}, 200),
    ],
)
def test_a_passed_deadline_over_http(oip, headers, parameters, status):
    assert slowly(oip, headers, parameters) == status


@pytest.mark.parametrize(
    ("microseconds", "code"), [(int(1e6 * LIMIT), grpc.StatusCode.DEADLINE_EXCEEDED), (20_000_000, grpc.StatusCode.OK)]
)
def test_a_passed_deadline_over_grpc(oip, microseconds, code):
    request = message("ModelInferRequest")(model_name="gru", inputs=[X], raw_input_contents=[bytes(64)])
    request.parameters["timeout"].int64_param = microseconds

    async def ask() -> grpc.StatusCode:
        async with grpc.aio.insecure_channel(oip.grpc) as channel:
            call = channel.stream_stream(f"/{SERVICE.full_name}/ModelInfer")(timeout=30)
            await asyncio.sleep(LATE)
            await call.write(request.SerializeToString())
            await call.done_writing()
            with contextlib.suppress(grpc.RpcError):
                await call.read()
            return await call.code()

    assert asyncio.run(ask()) is code
