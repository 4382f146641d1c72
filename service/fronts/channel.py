"""Messages between a front and the engine, over a Unix socket of the type SOCK_SEQPACKET.

A message is delivered whole or not at all, wakes the other side up, and the end of the other process is the end of its
messages. One that is large lies in an anonymous file (`memfd`), of which only the descriptor is sent.
"""

import mmap
import os
import shutil
import socket
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

Buffer = bytes | bytearray | memoryview | mmap.mmap
_INLINE = 32_768  # bytes of a body that are sent as they are
_MOST_FILES = 200  # in one message; the kernel allows 253
_LARGE = 0x80  # of the byte that says the kind: the body lies in a file
_BACKLOG = 128


class Kind(IntEnum):
    """What a message says. Bodies are described in `messages`."""

    WELCOME = 1
    TABLE = 2
    FOLLOWED = 3
    READY = 4
    DONE = 5
    TENSORS = 6
    ANSWER = 7
    FAILED = 8
    CALL = 9
    REPLY = 10
    GIVEN_UP = 11


class Message(NamedTuple):
    """A message that was received.

    Attributes:
        kind: a `Kind`; an int, as conversion takes time.
        body: its bytes; where it was large, a mapped file.
        files: descriptors, which belong to the receiver.
    """

    kind: int
    body: Buffer
    files: list[int]


class Channel:
    """One side of a connection. `send` may be called by several threads, `receive` by one."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def fileno(self) -> int:
        """The descriptor, to wait for messages."""
        return self._socket.fileno()

    def send(self, message: bytes, files: Sequence[int] = ()) -> None:
        """Send a small message, whose first byte is its kind, without waiting for room; see `Outbox`.

        Raises:
            OSError: the other side is gone.
            BlockingIOError: it has not read so much that there is room.
        """
        if files:
            socket.send_fds(self._socket, [message], list(files), socket.MSG_DONTWAIT)
        else:
            self._socket.send(message, socket.MSG_DONTWAIT)

    def receive(self) -> Message | None:
        """Receive the next message, without waiting for one; None at the end of the connection.

        Raises:
            OSError: the connection broke.
            BlockingIOError: there is no message.
        """
        data, ancillary, _, _ = self._socket.recvmsg(
            _INLINE + 1, socket.CMSG_SPACE(4 * (_MOST_FILES + 1)), socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT
        )
        if not data:
            return None
        files: list[int] = []
        for _, _, descriptors in ancillary:
            found = array("i")
            found.frombytes(descriptors[: len(descriptors) - len(descriptors) % found.itemsize])
            files += found
        kind = data[0]
        if kind & _LARGE:
            if not files:
                raise ConnectionAbortedError("a large message without its file")
            file = files.pop(0)
            try:
                return Message(kind & ~_LARGE, mmap.mmap(file, 0, prot=mmap.PROT_READ), files)
            finally:
                os.close(file)
        return Message(kind, data, files)

    def end(self) -> None:
        """End the connection for both sides; `receive` tells it to both."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:  # it has ended
            return

    def part(self) -> None:
        """End the connection for the other side alone: `receive` tells it there, and here when that side ends it."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:  # it has ended
            return

    def close(self) -> None:
        """Close this side. No thread may use it any more."""
        self._socket.close()


@contextmanager
def packed(kind: Kind, parts: Sequence[Buffer]) -> Iterator[tuple[bytes, list[int]]]:
    """Put a message together, and the file of its body where that is large; the file is closed when the block ends.

    Raises:
        OSError: no file can be made.
    """
    if sum(memoryview(part).nbytes for part in parts) <= _INLINE:
        yield b"".join((bytes((kind,)), *parts)), []
        return
    file = os.memfd_create("zooserve")
    try:
        for part in parts:
            left = memoryview(part).cast("B")
            while len(left):
                left = left[os.write(file, left) :]
        yield bytes((kind | _LARGE,)), [file]
    finally:
        os.close(file)


def body_of(message: Message) -> memoryview:
    """Return the body of a message: without the byte that says its kind, where it is small."""
    return memoryview(message.body) if isinstance(message.body, mmap.mmap) else memoryview(message.body)[1:]


def listen() -> tuple[socket.socket, int]:
    """Listen where only this process and its children can connect: at a path that does not exist any more.

    Returns:
        The socket, and a descriptor for `connect`. Both can be inherited, and end with the last process that has them.
    """
    folder = Path(tempfile.mkdtemp(prefix="zooserve-"))
    try:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(str(folder / "engine"))
        listener.listen(_BACKLOG)
        address = os.open(folder / "engine", os.O_PATH)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    listener.set_inheritable(True)
    os.set_inheritable(address, True)
    return listener, address


def connect(address: int) -> Channel:
    """Connect to where `listen` listens; raises `OSError`. Waits for nobody: the engine may accept later."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.connect(f"/proc/self/fd/{address}")
    except OSError:
        connection.close()
        raise
    return Channel(connection)
