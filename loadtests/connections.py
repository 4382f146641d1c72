"""Keep-alive connections to one server, for everything that sends load of its own."""

from time import perf_counter

from loadtests.exchange import Connection, Response
from loadtests.target import Target

_IDLE = 3.0  # seconds after which a free connection is not used again: servers close theirs after 5 and more


class Connections:
    """A connection that is free is used again, else one is made. For one event loop."""

    def __init__(self, server: Target, timeout: float) -> None:
        """Prepare for requests to `server`, each of which is given up after `timeout` seconds."""
        self.server = server
        self._timeout = timeout
        self._free: list[tuple[Connection, float]] = []  # with the `perf_counter()` of its last use

    async def exchange(self, request: bytes) -> Response:
        """Send an encoded request and wait for its answer.

        Raises:
            OSError: nobody listens, the connection broke, or (TimeoutError) no answer came in time.
        """
        connection = self._reusable() or await self.open()
        response = await connection.exchange(request, self._timeout)
        if connection.usable:
            self._free.append((connection, response.finished))
        return response

    async def open(self) -> Connection:
        """Connect anew; the connection is the caller's.

        Raises:
            OSError: nobody listens, or (TimeoutError) nobody answered in time.
        """
        return await Connection.open(self.server, self._timeout)

    async def fill(self, size: int) -> None:
        """Open so many connections before they are needed.

        Raises:
            OSError: as `open`.
        """
        for _ in range(size):
            self._free.append((await self.open(), perf_counter()))
        now = perf_counter()  # however long that took: they are to be used, not to be replaced
        self._free = [(connection, now) for connection, _ in self._free]

    def close(self) -> None:
        """Close the connections that are free."""
        while self._free:
            self._free.pop()[0].close()

    def _reusable(self) -> Connection | None:
        """Take the connection that was used last; those that are too old or broken are closed."""
        while self._free:
            connection, used = self._free.pop()
            if connection.usable and perf_counter() - used < _IDLE:
                return connection
            connection.close()
        return None
