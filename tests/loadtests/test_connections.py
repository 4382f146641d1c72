"""How connections are used again."""

import asyncio

import pytest

from loadtests import connections
from loadtests.client import run
from loadtests.connections import Connections


def test_connections_that_took_long_to_open_are_used(tiny, monkeypatch):
    monkeypatch.setattr(connections, "_IDLE", 0.3)

    async def go():
        found = Connections(tiny.address, 5.0)
        opened = found.open

        async def slowly():
            await asyncio.sleep(0.15)
            return await opened()

        monkeypatch.setattr(found, "open", slowly)
        await found.fill(4)
        request = tiny.get("/wait/0.05").encode(tiny.address)
        await asyncio.gather(*(found.exchange(request) for _ in range(4)))
        found.close()

    run(go())
    assert tiny.connections == 4


def test_connections_are_used_again(tiny):
    request = tiny.get("/ok").encode(tiny.address)
    last = tiny.get("/last").encode(tiny.address)

    async def load():
        found = Connections(tiny.address, timeout=5.0)
        for one in (request, request, request, last, request):
            assert (await found.exchange(one)).body == b"ok"
        found.close()

    run(load())
    assert tiny.connections == 2


@pytest.mark.parametrize(("path", "error"), [("/wait/5", TimeoutError), ("/break", ConnectionError)])
def test_failures(tiny, path, error):
    async def load():
        await Connections(tiny.address, timeout=0.2).exchange(tiny.get(path).encode(tiny.address))

    with pytest.raises(error):
        run(load())
