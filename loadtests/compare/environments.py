"""A virtual environment for each peer, made once and again when its requirements change.

Called by `loadtests.compare` before anything is measured, while there still is a network.
"""

import hashlib
import subprocess
import sys
from collections.abc import Iterable

import click

from loadtests.compare.servers import PEERS, Server


def ensure(servers: Iterable[Server]) -> dict[str, str]:
    """Make the environments that are missing. Returns why one could not be made, by the peer's name."""
    problems = {}
    for server in servers:
        if server.name != "zooserve" and not _current(server):
            click.echo(f"{server.name}: installing its environment into {server.environment} ...", err=True)
            try:
                _make(server)
            except subprocess.CalledProcessError as error:
                problems[server.name] = f"its environment cannot be made: {error}"
    return problems


def _make(server: Server) -> None:
    python = str(server.environment / "bin" / "python")
    subprocess.run([sys.executable, "-m", "venv", "--clear", server.environment], check=True)  # noqa: S603
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", _requirements(server)]
    subprocess.run(install, check=True)  # noqa: S603
    (server.environment / "requirements.sha256").write_text(_digest(server))


def _current(server: Server) -> bool:
    stamp = server.environment / "requirements.sha256"
    return stamp.is_file() and stamp.read_text() == _digest(server)


def _requirements(server: Server) -> str:
    return str(PEERS / server.name / "requirements.txt")


def _digest(server: Server) -> str:
    texts = [(PEERS / "common.txt").read_bytes(), (PEERS / server.name / "requirements.txt").read_bytes()]
    return hashlib.sha256(b"\0".join(texts)).hexdigest()
