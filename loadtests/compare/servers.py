"""The servers of the comparison: how each is started, asked and understood. A new peer is one entry and one folder."""

import json
import os
import sys
import sysconfig
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from loadtests.client import Request

ROOT = Path(__file__).parents[2]
PEERS = Path(__file__).parent / "peers"
ENVIRONMENTS = ROOT / "loadtests" / ".venvs"
_BOUNDARY = "zooserve-loadtests"
_SHOWN = ("onnxruntime", "pillow", "simplejpeg", "opencv-python-headless", "numpy")


@dataclass(frozen=True)
class Server:
    """One way to serve the work of `loadtests.compare.work`.

    Attributes:
        name: of its folder in `peers`, and of its environment.
        packages: whose versions are reported; the first is the server's own.
        command: from its environment's `bin` folder and the port to what starts it, in its folder.
        ready: path that answers 200 when it is ready.
        request: from a JPEG and a model's task to the request that has it answered.
        predictions: from the body of an answer to its predictions (see `agreement.agree`).
        variables: more of its process' environment, from the port, the pixels and the folder of the model.
        deadline: headers that tell it a request's deadline in ms, where it can be told.
        loopback: whether it listens on 127.0.0.1 alone. Where there is no sandbox, one that does not is left out.
    """

    name: str
    packages: tuple[str, ...]
    command: Callable[[Path, int], list[str]]
    ready: str
    request: Callable[[bytes, str], Request]
    predictions: Callable[[Any], list[dict[str, Any]]] = field(default=lambda body: list(body["predictions"]))
    variables: Callable[[int, str, Path], Mapping[str, str]] = field(default=lambda *_: {})
    deadline: Callable[[float], Mapping[str, str]] = field(default=lambda _: {})
    loopback: bool = True

    @property
    def folder(self) -> Path:
        """Where its code is."""
        return PEERS / self.name if self.name != "zooserve" else ROOT

    @property
    def environment(self) -> Path:
        """Its virtual environment."""
        return ENVIRONMENTS / self.name if self.name != "zooserve" else Path(sys.prefix)

    def bare_loop(self, pixels: str) -> str:
        """The bare loop that does the same work with the same pixels."""
        if self.name != "zooserve":
            return pixels
        return "zooserve" if pixels == "fast" else "zooserve-exact"

    def environ(self, port: int, pixels: str, model: Path, threads: int) -> dict[str, str]:
        """The environment of its process. Peers run a graph with so many threads; 0: as many as ONNX Runtime takes."""
        ours = {
            "COMPARE_PORT": str(port),
            "COMPARE_PIXELS": pixels,
            "COMPARE_MODEL": str(model),
            "COMPARE_THREADS": str(threads),
            "PYTHONPATH": str(ROOT),
        }
        path = f"{self.environment / 'bin'}:{os.environ.get('PATH', '')}"
        return {**os.environ, **ours, "PATH": path, **self.variables(port, pixels, model)}

    def versions(self) -> dict[str, str]:
        """What is installed in its environment of the packages that matter."""
        folder = sysconfig.get_path("purelib", vars={"base": str(self.environment)})
        found: dict[str, str] = {}
        for one in distributions(path=sys.path if self.name == "zooserve" else [folder]):
            found.setdefault(one.metadata["Name"].lower().replace("_", "-"), one.version)
        return {name: found[name] for name in (*self.packages, *_SHOWN) if name in found}


def _script(name: str = "server.py") -> Callable[[Path, int], list[str]]:
    return lambda bin_folder, _: [str(bin_folder / "python"), name]


def _raw(path: str) -> Callable[[bytes, str], Request]:
    return lambda jpeg, _: Request("POST", path, {"Content-Type": "image/jpeg"}, jpeg)


def _zooserve(jpeg: bytes, task: str) -> Request:
    """Masks as PNG: every server of the comparison writes them down so."""
    return _raw(f"/v1/{task}?mask=png" if task == "segment" else f"/v1/{task}")(jpeg, task)


def _multipart(path: str, part: str) -> Callable[[bytes, str], Request]:
    def request(jpeg: bytes, _: str) -> Request:
        head = (
            f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{part}"; filename="photo.jpg"\r\n'
            "Content-Type: image/jpeg\r\n\r\n"
        )
        body = head.encode() + jpeg + f"\r\n--{_BOUNDARY}--\r\n".encode()
        return Request("POST", path, {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}, body)

    return request


def _base64(jpeg: bytes, _: str) -> Request:
    """Open Inference Protocol, the image as base64 in JSON: MLServer reads no binary tensors of text."""
    photo = {
        "name": "image",
        "shape": [1, 1],
        "datatype": "BYTES",
        "parameters": {"content_type": "base64"},
        "data": [b64encode(jpeg).decode()],
    }
    body = json.dumps({"inputs": [photo]}).encode()
    return Request("POST", "/v2/models/predict/infer", {"Content-Type": "application/json"}, body)


def _binary_tensor(jpeg: bytes, _: str) -> Request:
    """Open Inference Protocol with Triton's binary extension: the JSON, then the image's length and its bytes."""
    size = len(jpeg) + 4
    photo = {"name": "image", "shape": [1, 1], "datatype": "BYTES", "parameters": {"binary_data_size": size}}
    head = json.dumps({"inputs": [photo]}).encode()
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    return Request("POST", "/v2/models/predict/infer", headers, head + len(jpeg).to_bytes(4, "little") + jpeg)


def _tensor_of_json(body: Any) -> list[dict[str, Any]]:
    return list(json.loads(body["outputs"][0]["data"][0])["predictions"])


SERVERS: dict[str, Server] = {
    server.name: server
    for server in (
        Server(
            "zooserve",
            ("zooserve", "bentoml", "starlette", "uvicorn", "uvloop"),
            lambda bin_folder, port: [str(bin_folder / "zooserve"), "serve", "--port", str(port)],
            ready="/readyz",
            request=_zooserve,
            deadline=lambda milliseconds: {"X-Request-Timeout-Ms": f"{milliseconds:g}"},
            variables=lambda _, pixels, model: {
                "ZOOSERVE_MODELS": str(model.parents[1]),
                "ZOOSERVE_LOAD": model.parent.name,
                "ZOOSERVE_PIXELS": "fast" if pixels == "fast" else "exact",
            },
        ),
        Server(
            "fastapi",
            ("fastapi", "uvicorn", "uvloop"),
            _script(),
            ready="/health",
            request=_multipart("/predict", "image"),
        ),
        Server(
            "bentoml",
            ("bentoml", "uvicorn"),
            lambda bin_folder, port: [str(bin_folder / "bentoml"), "serve", "server:Predict", f"--port={port}"],
            ready="/readyz",
            request=_multipart("/predict", "images"),
            predictions=lambda body: list(body[0]["predictions"]),
            variables=lambda *_: {"BENTOML_HOST": "127.0.0.1", "BENTOML_DO_NOT_TRACK": "True"},
        ),
        Server(
            "litserve",
            ("litserve", "fastapi", "uvicorn"),
            _script(),
            ready="/health",
            request=_multipart("/predict", "image"),
        ),
        Server(
            "mlserver",
            ("mlserver", "fastapi", "uvicorn"),
            lambda bin_folder, _: [str(bin_folder / "mlserver"), "start", "."],
            ready="/v2/models/predict/ready",
            request=_base64,
            predictions=_tensor_of_json,
            variables=lambda port, *_: {
                "MLSERVER_HOST": "127.0.0.1",
                "MLSERVER_HTTP_PORT": str(port),
                "MLSERVER_GRPC_PORT": str(port + 1),
                "MLSERVER_METRICS_PORT": str(port + 2),
                "MLSERVER_DEBUG": "false",
            },
        ),
        Server(
            "rayserve",
            ("ray", "starlette", "uvicorn"),
            _script(),
            ready="/-/healthz",
            request=_raw("/predict"),
            variables=lambda *_: {"RAY_USAGE_STATS_ENABLED": "0"},
            loopback=False,  # its own processes talk over 0.0.0.0
        ),
        Server(
            "pytriton",
            ("nvidia-pytriton",),
            _script(),
            ready="/v2/models/predict/ready",
            request=_binary_tensor,
            predictions=_tensor_of_json,
            # Triton's Python backend links libpython by name.
            variables=lambda *_: {
                "LD_LIBRARY_PATH": f"{sysconfig.get_config_var('LIBDIR')}:{os.environ.get('LD_LIBRARY_PATH', '')}"
            },
        ),
        Server(
            "torchserve",
            ("torchserve", "torch"),
            _script(),
            ready="/ping",
            request=_raw("/predictions/predict"),
        ),
    )
}
