"""A network and a process tree of the comparison's own: nothing in it is reached from outside, and nothing outlives it.

`loadtests.compare` runs itself again in Linux namespaces: one whose only network device is a loopback, and one whose
processes all end when the comparison does, even if that is killed.
"""

import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence

_INSIDE = "ZOOSERVE_COMPARE_SANDBOX"
_FLAGS = ("--map-root-user", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 0x1


def inside() -> bool:
    """Whether this process runs in the sandbox."""
    return os.environ.get(_INSIDE) == "1"


def enter(module: str, arguments: Sequence[str]) -> bool:
    """Run `python -m module arguments` in a sandbox instead of this process, or return False where that cannot be had.

    Returns True at once when called inside.
    """
    if not inside():
        unshare = [shutil.which("unshare") or "unshare", *_FLAGS]
        try:
            subprocess.run([*unshare, "true"], capture_output=True, check=True)  # noqa: S603
        except (OSError, subprocess.CalledProcessError):
            return False
        command = [*unshare, sys.executable, "-m", module, *arguments]
        os.execve(command[0], command, {**os.environ, _INSIDE: "1"})  # noqa: S606
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh", b"lo", _IFF_UP))
    return True
