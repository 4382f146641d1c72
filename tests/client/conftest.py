"""Both clients behind one face, so that every test is of both."""

import asyncio

import pytest
from zooserve_client import AsyncClient, Client


class Asked:
    """Calls a client's method; answers that come one by one come as a list."""

    def __init__(self, kind, *where, **how):
        self._kind, self._where, self._how = kind, where, how

    def __getattr__(self, name):
        return lambda *given, **how: (self._now if self._kind is Client else self._later)(name, *given, **how)

    def _now(self, name, *given, **how):
        with Client(*self._where, **self._how) as client:
            answer = getattr(client, name)(*given, **how)
            return list(answer) if hasattr(answer, "__next__") else answer

    def _later(self, name, *given, **how):
        async def ask():
            async with AsyncClient(*self._where, **self._how) as client:
                answer = getattr(client, name)(*given, **how)
                return [each async for each in answer] if hasattr(answer, "__anext__") else await answer

        return asyncio.run(ask())


@pytest.fixture(params=[Client, AsyncClient])
def client(request):
    """Makes a client with the arguments of either kind."""
    return lambda *where, **how: Asked(request.param, *where, **how)
