"""How connections are used again."""

import pytest

from loadtests.client import run
from loadtests.connections import Connections


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
