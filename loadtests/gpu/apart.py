"""Runs a part of a step in a process of its own, with a time limit, and passes its rows on."""

import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic

import msgspec

from loadtests.gpu.plan import Plan
from loadtests.gpu.rows import Row

_BEFORE = 5.0  # seconds before its limit a process begins nothing new
_GRACE = 20.0  # seconds that it gets to stop its servers
_LAST_LINES = 3  # of what it wrote, in the row of a process that failed


def run_part(plan: Plan, seconds: float, on_row: Callable[[Row], None]) -> None:
    """Do a part of a step. Whatever happens to its process becomes a row.

    Args:
        plan: of the part.
        seconds: that it may take.
        on_row: is told of every row, when it comes.
    """
    plan = msgspec.structs.replace(plan, limit=max(1.0, seconds - _BEFORE))
    ours, theirs = os.pipe()
    with tempfile.TemporaryFile() as written:
        process = subprocess.Popen(  # noqa: S603 - ourselves
            [sys.executable, "-m", "loadtests.gpu.step", msgspec.json.encode(plan).decode(), str(theirs)],
            env={**os.environ, "LD_LIBRARY_PATH": libraries()},
            pass_fds=[theirs],
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=written,
            start_new_session=True,
        )
        os.close(theirs)
        try:
            in_time = True
            for line in _lines(ours, monotonic() + seconds):
                if line is None:
                    in_time = False
                    break
                on_row(msgspec.json.decode(line, type=Row))
            code = _end(process, 0 if not in_time else _GRACE)
        finally:
            os.close(ours)
            _end(process, 0)
        way = f"part {plan.part}" if plan.part else "the step"
        if not in_time:
            on_row(Row(plan.step, "-", way, note=f"stopped: it took longer than {seconds:.0f} s"))
        elif code:
            written.seek(0)
            lines = [line.strip() for line in written.read().decode(errors="replace").splitlines() if line.strip()]
            said = " / ".join(lines[-_LAST_LINES:])[-300:]
            ended = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            on_row(Row(plan.step, "-", way, note=f"its process {ended}: {said}"))


def libraries() -> str:
    """Return `LD_LIBRARY_PATH` with the folders of NVIDIA's wheels, wherever Python looks.

    ONNX Runtime only looks beside itself, and a PyTorch built for CUDA brings them, too.
    """
    folders = [str(path) for base in sys.path if base for path in sorted(Path(base).glob("nvidia/*/lib"))]
    return os.pathsep.join(filter(None, [os.environ.get("LD_LIBRARY_PATH", ""), *folders]))


def _lines(pipe: int, deadline: float) -> Iterator[bytes | None]:
    """Yield whole lines until the other end is closed; None, as the last, when the time is up."""
    rest = b""
    while True:
        left = deadline - monotonic()
        if left <= 0 or not select.select([pipe], [], [], left)[0]:
            yield None
            return
        if not (read := os.read(pipe, 1 << 16)):
            return
        *lines, rest = (rest + read).split(b"\n")
        yield from lines


def _end(process: "subprocess.Popen[bytes]", patience: float) -> int:
    """Wait for a process; then stop it, so that it can stop its servers, and at last kill it and its group."""
    with suppress(subprocess.TimeoutExpired):
        return process.wait(patience)
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        return process.wait(_GRACE)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()
