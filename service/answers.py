"""The answers of one HTTP connection, on their way to its transport."""

import asyncio
from collections.abc import Callable

_CONTINUE = b"HTTP/1.1 100 "  # comes before an answer


class Answers:
    """The transport of a connection as its requests use it.

    The head of an answer waits for the beginning of its body: each is a call of the system, and one for both takes half
    the time.

    Args:
        transport: of the connection.
        end: closes the connection.
    """

    def __init__(self, transport: asyncio.WriteTransport, end: Callable[[], None]) -> None:
        self._write, self._write_lines, self.is_closing = transport.write, transport.writelines, transport.is_closing
        self.end = end
        self._is_head, self._head = False, b""

    def begin(self) -> None:
        """Begin with the next answer."""
        self._is_head = True

    def write(self, data: bytes) -> None:
        """Send bytes of an answer; its head, which comes first, with those that are next."""
        if self._is_head and not data.startswith(_CONTINUE):
            self._is_head, self._head = False, data
        elif self._head:
            head, self._head = self._head, b""
            self._write_lines((head, data))
        else:
            self._write(data)

    def flush(self) -> None:
        """Send a head that waits: it has no body."""
        if self._head:
            self.write(b"")

    def close(self) -> None:
        """Close the connection after what was written."""
        self.flush()
        self.end()
