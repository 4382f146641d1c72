"""A reverse proxy for tests: ends TLS, takes a path prefix off, and passes HTTP/1.1 on; or gRPC, byte by byte.

    python tls_proxy.py CERTIFICATE KEY HOST HTTPS_PORT PREFIX HTTP_PORT GRPCS_PORT GRPC_PORT

It listens on HOST and asks 127.0.0.1. Prints a line once it listens. Whoever leaves the prefix out gets 404.
"""

import asyncio
import ssl
import sys
from contextlib import suppress
from functools import partial

_LOST = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on what comes, as it comes, and then the end."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    with suppress(OSError):
        writer.write_eof() if writer.can_write_eof() else writer.close()


async def pass_requests(prefix: str, reader: asyncio.StreamReader, onward: asyncio.StreamWriter) -> bytes:
    """Pass on requests without the prefix. Returns an answer of the proxy's own, after which the connection ends."""
    while True:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        method, path, rest = head.split(" ", 2)
        if not path.startswith(f"{prefix}/"):
            return _LOST
        lines = [line.lower().partition(":") for line in head.split("\r\n")[1:]]
        length = next((int(value) for name, _, value in lines if name == "content-length"), 0)
        onward.write(
            f"{method} {path.removeprefix(prefix)} {rest}".encode("latin-1") + await reader.readexactly(length)
        )
        await onward.drain()


async def serve(prefix: str | None, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one connection. Without a prefix its bytes are passed on as they are."""
    answers, onward = await asyncio.open_connection("127.0.0.1", port)
    back = asyncio.create_task(copy(answers, writer))
    try:
        if prefix is None:
            await copy(reader, onward)
        else:
            there = asyncio.create_task(pass_requests(prefix, reader, onward))
            await asyncio.wait((there, back), return_when=asyncio.FIRST_COMPLETED)
            if there.done():
                writer.write(there.result())
            there.cancel()
    except (OSError, asyncio.IncompleteReadError):  # the client is gone
        pass
    finally:
        if prefix is None:
            with suppress(OSError):
                await back
        back.cancel()
        onward.close()
        writer.close()


async def main(
    certificate: str, key: str, host: str, https: int, prefix: str, http: int, grpcs: int, grpc: int
) -> None:
    """Listen until the process is ended."""

    def context(protocol: str) -> ssl.SSLContext:
        made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        made.load_cert_chain(certificate, key)
        made.set_alpn_protocols([protocol])
        return made

    await asyncio.start_server(partial(serve, prefix, http), host, https, ssl=context("http/1.1"))
    await asyncio.start_server(partial(serve, None, grpc), host, grpcs, ssl=context("h2"))
    print("listening", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    certificate, key, host, https, prefix, *ports = sys.argv[1:]
    asyncio.run(main(certificate, key, host, int(https), prefix, *map(int, ports)))
