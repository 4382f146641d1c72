"""Keep-alive connections to one server, for load tests that look into the answers."""

from urllib.parse import urlsplit

from loadtests.client import Address, Connection, Response, reusable


def address_of(url: str) -> Address:
    """Return where `http://HOST:PORT` is, on this machine.

    Raises:
        ValueError: it is not such a URL, or another machine's.
    """
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/"):
        raise ValueError(f"{url}: expected http://127.0.0.1:PORT")
    return Address(parts.hostname, parts.port or 80).checked()


class Connections:
    """A connection that is free is used again, else one is made. For one event loop."""

    def __init__(self, address: Address, timeout: float) -> None:
        """Prepare for requests to `address`, each of which is given up after `timeout` seconds.

        Raises:
            ValueError: the address is not on this machine.
        """
        self.address = address.checked()
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
        return await Connection.open(self.address, self._timeout)

    def close(self) -> None:
        """Close the connections that are free."""
        while self._free:
            self._free.pop()[0].close()
