"""Starts `zooserve serve` on a free port of this machine, for load tests that start a server themselves."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil

from loadtests.compare.process import ServerError, free_port, tail, wait_until_ready
from loadtests.target import Target

_GRACE = 20.0  # seconds that the service gets to end
_LAST = 1.0  # seconds between the last answer of a service and its end, at most
SERVE = "from service.commands.serve import serve; serve()"  # works without an installation, on a PYTHONPATH


@contextmanager
def serving(log: Path, settings: Mapping[str, str], patience: float = 180.0) -> Iterator[tuple[Target, int]]:
    """Run the service until the block ends. Yields where it listens and its process id, once it is ready.

    Args:
        log: where it prints to.
        settings: environment variables, such as `ZOOSERVE_LOAD`.
        patience: seconds that it may take until it is ready.

    Raises:
        ServerError: it ended, or cannot be ready, or was not in time; with its reason. Or the block could not reach it.
    """
    address = Target.at("127.0.0.1", free_port())
    with ExitStack() as stack:
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            # This process ends in order then, and so ends the service, which is in a session of its own.
            stack.callback(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, _end))
        yield from _serve(log, address, settings, patience)


def _end(*_: object) -> None:
    sys.exit(128 + signal.SIGTERM)


def _serve(log: Path, address: Target, settings: Mapping[str, str], patience: float) -> Iterator[tuple[Target, int]]:
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - ourselves
            [sys.executable, "-c", SERVE, "--port", str(address.port)],
            env={**os.environ, **settings},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        wait_until_ready(process, address, "/readyz", time.perf_counter() + patience, log, _hopeless)
        try:
            yield address, process.pid
        except (ConnectionError, TimeoutError, psutil.Error) as error:
            with suppress(subprocess.TimeoutExpired):
                process.wait(_LAST)
            if process.poll() is None:
                raise ServerError(f"it does not do what is expected: {str(error) or repr(error)}") from error
        if process.poll() is not None:
            raise ServerError(f"the service died with exit code {process.returncode}:\n{tail(log)}")
    finally:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _hopeless(body: bytes) -> str:
    """Say why a service that answered `/readyz` like this will never be ready; nothing while models are loading."""
    said = json.loads(body)
    if any(model["state"] == "loading" for model in said["models"].values()):
        return ""
    reasons = {name: model["reason"] for name, model in said["models"].items() if model.get("reason")}
    return "; ".join([*filter(None, [said.get("problem")]), *(f"{name}: {reason}" for name, reason in reasons.items())])
