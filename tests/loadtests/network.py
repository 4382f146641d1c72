"""A server in a network namespace of its own, behind TLS, a path prefix and an API key: as far away as one machine can.

The namespace is made and removed by the test. Its addresses are of 198.18.0.0/15, which is kept for measurements.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PREFIX, API_KEY = "/vision", "a-key-of-the-tests"
HTTP_PORT, GRPC_PORT, HTTPS_PORT, GRPCS_PORT = 3000, 8001, 8443, 8444


class UnavailableError(Exception):
    """Namespaces may not be made here, with the reason."""


@dataclass(frozen=True)
class RemoteServer:
    """A server on another host.

    Attributes:
        url: of HTTP over TLS, with the path prefix.
        grpc_url: of gRPC over TLS.
        api_key: that it wants.
        ca_file: the certificate of the authority that signed its own.
        pid: of its first process; it is a process of this machine.
    """

    url: str
    grpc_url: str
    api_key: str
    ca_file: Path
    pid: int

    @property
    def options(self) -> list[str]:
        """What the load tests are given, but for the key."""
        return ["--url", self.url, "--remote", "--ca-file", str(self.ca_file)]

    @property
    def environment(self) -> dict[str, str]:
        """What the load tests are started with: the key, too."""
        return os.environ | {"ZOOSERVE_API_KEY": self.api_key}


@contextmanager
def remote(folder: Path, models: Path, load: str) -> Iterator[RemoteServer]:
    """Serve some models of a store, named with commas, until the block ends. Logs and certificates lie in `folder`.

    Raises:
        UnavailableError: this machine or this user cannot make namespaces.
    """
    with _namespace() as (name, host):
        certificate, key, ca_file = _certificates(folder, host)
        inside = ["ip", "netns", "exec", name]
        environment = os.environ | {
            "ZOOSERVE_MODELS": str(models),
            "ZOOSERVE_LOAD": load,
            "ZOOSERVE_API_KEYS": API_KEY,
            "ZOOSERVE_GRPC_PORT": str(GRPC_PORT),
            "ZOOSERVE_DRAIN_S": "0.1",
        }
        server = [str(Path(sys.executable).with_name("zooserve")), "serve", "--port", str(HTTP_PORT)]
        proxy = [sys.executable, str(Path(__file__).with_name("tls_proxy.py")), certificate, key, host]
        proxy += [str(HTTPS_PORT), PREFIX, str(HTTP_PORT), str(GRPCS_PORT), str(GRPC_PORT)]
        with (
            _running([*inside, *server], folder / "server.log", environment) as process,
            _running([*inside, *proxy], folder / "proxy.log", environment),
        ):
            probe = [*inside, "curl", "-sf", "--noproxy", "*", f"http://127.0.0.1:{HTTP_PORT}/readyz"]
            _wait(probe, process, folder / "server.log")
            url, grpc_url = f"https://{host}:{HTTPS_PORT}{PREFIX}", f"grpcs://{host}:{GRPCS_PORT}"
            yield RemoteServer(url, grpc_url, API_KEY, ca_file, process.pid)


@contextmanager
def _namespace() -> Iterator[tuple[str, str]]:
    """Make a namespace, and a cable to it. Yields its name and its address."""
    if shutil.which("ip") is None:
        raise UnavailableError("there is no `ip` (iproute2)")
    pid = os.getpid()
    name, cable = f"zooserve-{pid}", f"zs{pid}"
    network = f"198.{18 + pid % 2}.{pid // 2 % 256}"
    here, there = (f"{network}.{pid // 512 % 64 * 4 + last}" for last in (1, 2))
    commands = [
        f"ip netns add {name}",
        f"ip link add {cable} type veth peer name eth0 netns {name}",
        f"ip addr add {here}/30 dev {cable}",
        f"ip link set {cable} up",
        f"ip -n {name} addr add {there}/30 dev eth0",
        f"ip -n {name} link set eth0 up",
        f"ip -n {name} link set lo up",
    ]
    try:
        for command in commands:
            done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
            if done.returncode:
                raise UnavailableError(f"`{command}`: {done.stderr.strip()}")
        yield name, there
    finally:
        subprocess.run(["ip", "link", "del", cable], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def _certificates(folder: Path, host: str) -> tuple[str, str, Path]:
    """Make an authority, and a certificate of its for an address. Returns that, its key, and the authority's."""
    if shutil.which("openssl") is None:
        raise UnavailableError("certificates are made with openssl")
    new = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=tests"
    for more in (
        "-keyout ca.key -out ca.pem -addext keyUsage=critical,keyCertSign",
        "-keyout served.key -out served.pem -CA ca.pem -CAkey ca.key -addext basicConstraints=critical,CA:FALSE",
    ):
        command = ["openssl", *new.split(), *more.split(), "-addext", f"subjectAltName=IP:{host}"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return str(folder / "served.pem"), str(folder / "served.key"), folder / "ca.pem"


@contextmanager
def _running(command: list[str], log: Path, environment: dict[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait(probe: list[str], process: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + 90
    while subprocess.run(probe, capture_output=True, check=False).returncode:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.2)
