"""Who makes room for a new connection, and when."""

import asyncio

import pytest

from service import limits as module
from service.limits import Places


class Holder:
    closed = False

    def give_up_place(self) -> None:
        assert not self.closed
        self.closed = True


@pytest.fixture(autouse=True)
def no_grace(monkeypatch):
    monkeypatch.setattr(module, "_GRACE_S", 0)


def scene(steps) -> None:
    async def run() -> None:
        await steps()

    asyncio.run(run())


def closed(holders) -> list[int]:
    return [index for index, holder in enumerate(holders) if holder.closed]


def test_who_waits_longest_goes_a_moment_later():
    async def steps() -> None:
        places, holders = Places(3, 2), [Holder() for _ in range(6)]
        assert all(places.take(holder) for holder in holders[:4])
        assert closed(holders) == []
        places.works(holders[0])
        await asyncio.sleep(0.01)
        assert closed(holders) == [1], "the first one has work"
        places.waits(holders[0])
        places.waits(holders[2])
        assert all(places.take(holder) for holder in holders[4:])
        await asyncio.sleep(0.01)
        assert closed(holders) == [0, 1, 3]

    scene(steps)


def test_there_are_never_more_than_the_spare_ones():
    async def steps() -> None:
        places, holders = Places(3, 2), [Holder() for _ in range(100)]
        for holder in holders:
            assert places.take(holder)
            assert sum(not each.closed for each in holders) - (99 - holders.index(holder)) <= 5
        await asyncio.sleep(0.01)
        assert closed(holders) == list(range(97))

    scene(steps)


def test_connections_with_work_are_never_closed():
    async def steps() -> None:
        places, holders = Places(3, 3), [Holder() for _ in range(6)]
        for holder in holders[:3]:
            assert places.take(holder)
            places.works(holder)
        assert not places.take(holders[3])
        places.waits(holders[1])
        assert places.take(holders[3])
        assert places.take(holders[4]), "the one before waits too"
        assert places.take(holders[5])
        places.works(holders[1])
        places.works(holders[3])
        await asyncio.sleep(0.01)
        assert closed(holders) == [4, 5]
        places.leave(holders[0])
        places.leave(holders[1])
        assert places.take(Holder())
        await asyncio.sleep(0.01)
        assert closed(holders) == [4, 5]

    scene(steps)
