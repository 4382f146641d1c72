"""Keep-alive connections to one server, for load tests that look into the answers."""

from loadtests.client import Connection, Response, Server, reusable


class Connections:
    """A connection that is free is used again, else one is made. For one event loop."""

    def __init__(self, server: Server, timeout: float) -> None:
        """Prepare for requests to `server`, each of which is given up after `timeout` seconds."""
        self.server = server
        self._timeout = timeout
        self._free: list[tuple[Connection, float]] = []  # with the `perf_counter()` of its last use

    async def exchange(self, request: bytes) -> Response:
        """Send an encoded request and wait for its answer.

        Raises:
            OSError: nobody listens, the connection broke, or (TimeoutError) no answer came in time.
        """
        connection = reusable(self._free) or await self.open()
        response = await connection.exchange(request, self._timeout)
        if connection.usable:
            self._free.append((connection, response.finished))
        return response

    async def open(self) -> Connection:
        """Connect anew.

        Raises:
            OSError: nobody listens, or (TimeoutError) nobody answered in time.
        """
        return await Connection.open(self.server, self._timeout)

    def close(self) -> None:
        """Close the connections that are free."""
        while self._free:
            self._free.pop()[0].close()
