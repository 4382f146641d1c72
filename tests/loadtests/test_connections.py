"""Where a service may be, and how connections to it are used again."""

import pytest

from loadtests.client import Address, run
from loadtests.connections import Connections, address_of


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://127.0.0.1:3000", ("127.0.0.1", 3000)),
        ("http://localhost:3000/", ("127.0.0.1", 3000)),
        ("http://127.0.0.1", ("127.0.0.1", 80)),
        ("http://[::1]:81", ("::1", 81)),
    ],
)
def test_address(url, address):
    assert address_of(url) == address


@pytest.mark.parametrize(
    "url", ["127.0.0.1:3000", "https://127.0.0.1", "http://", "http://127.0.0.1/v1", "http://10.0.0.1:3000", ""]
)
def test_no_address(url):
    with pytest.raises(ValueError, match=r"127\.0\.0\.1"):
        address_of(url)


def test_connections_are_used_again(tiny):
    request = tiny.get("/ok").encode(tiny.address)
    last = tiny.get("/last").encode(tiny.address)

    async def load():
        connections = Connections(tiny.address, timeout=5.0)
        for one in (request, request, request, last, request):
            assert (await connections.exchange(one)).body == b"ok"
        connections.close()

    run(load())
    assert tiny.connections == 2


@pytest.mark.parametrize(("path", "error"), [("/wait/5", TimeoutError), ("/break", ConnectionError)])
def test_failures(tiny, path, error):
    async def load():
        await Connections(tiny.address, timeout=0.2).exchange(tiny.get(path).encode(tiny.address))

    with pytest.raises(error):
        run(load())


def test_this_machine_only():
    with pytest.raises(ValueError, match="loopback"):
        Connections(Address("10.0.0.1", 80), 1.0)
