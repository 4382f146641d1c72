"""A server that is hard to reach: TLS of a private authority, a key, a proxy with a path prefix, another namespace.

`conftest` makes fixtures of it for all load tests.
"""

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtests.served import served
from loadtests.target import Target, TargetError
from tests.conftest import ROOT, free_port

KEY = "sesame"
MODELS = "mobilenet_v2,lenet5,yolov4_tiny"  # it cannot segment
_numbers = itertools.count(os.getpid() * 4)


class NoNamespaceError(Exception):
    """No network namespace may be made, and why."""


@dataclass(frozen=True)
class Far:
    """Where the server is reached: `url` through the proxy, with its prefix; `direct`, and `grpc`; all with TLS.

    Attributes:
        remote: whether it is in another network namespace; else `reason` says why not.
    """

    url: str
    direct: str
    grpc: str
    authority: Path
    remote: bool
    reason: str = ""

    @property
    def options(self) -> list[str]:
        """Of every command, but for the URL and the key."""
        return ["--ca-file", str(self.authority), *(["--remote"] if self.remote else [])]

    def target(self, url: str, **changes) -> Target:
        given = {"api_key": KEY, "ca_file": self.authority, "remote": self.remote} | changes
        return Target.parse(url, **given)


def certificates(folder: Path, address: str) -> None:
    """Make an authority, `authority.pem`, and a certificate of it for an address, `served.pem`, `served.key`."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=folder)

    new = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-x509"]
    openssl(*new, "-keyout", "authority.key", "-out", "authority.pem", "-subj", "/CN=an authority")
    signed = ["-CA", "authority.pem", "-CAkey", "authority.key", "-addext", f"subjectAltName=IP:{address}"]
    openssl(*new, "-keyout", "served.key", "-out", "served.pem", "-subj", "/CN=server", *signed, "-addext",
            "basicConstraints=critical,CA:FALSE")  # fmt: skip


@contextlib.contextmanager
def namespace() -> Iterator[tuple[str, str]]:
    """Make a network namespace, and a link to it. Yields its name and the address in it.

    Raises:
        NoNamespaceError: it may not.
    """
    number = next(_numbers)
    name, near, far = f"zoo{number}", f"zn{number % 10**8}", f"zf{number % 10**8}"
    net = f"10.{200 + number % 50}.{number // 50 % 250}"

    def ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True)

    if shutil.which("ip") is None:
        raise NoNamespaceError("network namespaces are made with `ip`, which is not installed")
    try:
        ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        raise NoNamespaceError(f"no network namespace may be made here: {error.stderr.decode().strip()}") from error
    try:
        ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", name)
        ip("addr", "add", f"{net}.1/24", "dev", near)
        ip("link", "set", near, "up")
        ip("-n", name, "addr", "add", f"{net}.2/24", "dev", far)
        ip("-n", name, "link", "set", far, "up")
        ip("-n", name, "link", "set", "lo", "up")
        yield name, f"{net}.2"
    except subprocess.CalledProcessError as error:
        raise NoNamespaceError(f"no link into one may be made here: {error.stderr.decode().strip()}") from error
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@contextlib.contextmanager
def far_server(folder: Path, models: Path, inside: Sequence[str], address: str, reason: str = "") -> Iterator[Far]:
    """Run the server and its proxy, by a command that begins with `inside`, where they have `address`.

    `reason` says why they are not in a namespace.
    """
    certificates(folder, address)
    port, grpc_port, proxy_port = free_port(), free_port(), free_port()
    settings = {
        "ZOOSERVE_MODELS": str(models),
        "ZOOSERVE_LOAD": MODELS,
        "ZOOSERVE_API_KEYS": KEY,
        "ZOOSERVE_GRPC_PORT": str(grpc_port),
        "ZOOSERVE_TLS_CERTIFICATE": str(folder / "served.pem"),
        "ZOOSERVE_TLS_KEY": str(folder / "served.key"),
        "ZOOSERVE_DRAIN_S": "0.1",
    }
    serve = [str(Path(sys.executable).with_name("zooserve")), "serve", "--host", address, "--port", str(port)]
    proxy = [sys.executable, str(Path(__file__).with_name("prefix_proxy.py")), address, str(proxy_port), "/vision"]
    proxy += [f"https://{address}:{port}", *(str(folder / f) for f in ("served.pem", "served.key", "authority.pem"))]
    with (folder / "log").open("wb") as log:
        environment = os.environ | settings
        processes = [
            subprocess.Popen(
                [*inside, *command], cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
            )
            for command in (serve, proxy)
        ]
    urls = (f"https://{address}:{p}" for p in (proxy_port, port))
    far = Far(
        f"{next(urls)}/vision",
        next(urls),
        f"grpcs://{address}:{grpc_port}",
        folder / "authority.pem",
        bool(inside),
        reason,
    )
    try:
        end = time.monotonic() + 90
        while not _ready(far):
            assert all(p.poll() is None for p in processes), (folder / "log").read_text()
            assert time.monotonic() < end, (folder / "log").read_text()
            time.sleep(0.2)
        yield far
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def _ready(far: Far) -> bool:
    try:
        return all(not served(far.target(url)).problem for url in (far.url, far.grpc))
    except TargetError:
        return False
