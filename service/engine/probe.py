"""Whether a server can run on the device that it is told to: tried before its processes are started.

`commands.serve` and `bento` call `check_device`. The trial has a process of its own, for CUDA keeps memory in the
process that has used it, and that which starts the others is not to hold any.
"""

import functools
import os
import subprocess
import sys
from typing import cast

import numpy as np

from service.engine.providers import Device, ProviderError, choose, gpu_count
from service.engine.session import Session
from service.settings import SettingError
from zoo.files import LINE, shown

_NOT_BUILT, _FAILED = 3, 4  # exit codes of the trial, whose last line says why
_TIMEOUT_S = 300.0  # TensorRT takes a minute to load from a slow disk
# One node, Identity, of one float: opset 17.
_GRAPH = (
    b'\x08\x08:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01'
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\x11"
)


@functools.cache
def check_device(device: Device, processes: int = 1) -> None:
    """Try every GPU that the server's processes will use; `auto` and `cpu` need none.

    Args:
        device: of the settings.
        processes: how many the server has; they share the GPUs.

    Raises:
        SettingError: the device cannot be used, with the reason.
    """
    if device in {"auto", "cpu"}:
        return
    found = gpu_count()
    numbers = [str(number) for number in range(min(processes, max(1, found)))]
    command = [sys.executable, "-m", "service.engine.probe", device, *numbers]
    paths = os.pathsep.join(path or "." for path in sys.path)
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and module
            command,
            env=os.environ | {"PYTHONPATH": paths},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise SettingError(f"ZOOSERVE_DEVICE={device}: the GPU has not answered within {_TIMEOUT_S:.0f} s.") from None
    if done.returncode == _NOT_BUILT:
        raise SettingError(_last(done.stdout))
    if done.returncode:
        ended = f"the trial of the device ended with {done.returncode}: {_last(done.stderr)}"
        said = _last(done.stdout) if done.returncode == _FAILED else ended
        raise SettingError(f"ZOOSERVE_DEVICE={device}: {said if found else f'{_no_gpu()} {said}'}")


def _last(printed: str) -> str:
    """Return the last line: ONNX Runtime may print others before it."""
    return shown((printed.strip().splitlines() or [""])[-1], LINE)


def _no_gpu() -> str:
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return f"no GPU can be used, as CUDA_VISIBLE_DEVICES={chosen} names none that is here."
    return "no GPU is visible: `nvidia-smi` tells whether the driver finds one."


def _main(device: Device, numbers: list[int]) -> int:
    """Try to run a graph on each of these GPUs; print why it cannot be, and return the exit code."""
    try:
        choose(device)
    except ProviderError as error:
        sys.stdout.write(f"\n{error}")
        return _NOT_BUILT
    for number in numbers:
        try:
            Session(_GRAPH, device, number).run({"x": np.zeros(1, np.float32)})
        except Exception as error:  # ONNX Runtime's errors have no common base of use
            sys.stdout.write("\n" + " ".join(f"GPU {number}: {error}".split()))
            return _FAILED
    return 0


if __name__ == "__main__":
    sys.exit(_main(cast(Device, sys.argv[1]), [int(number) for number in sys.argv[2:]]))
