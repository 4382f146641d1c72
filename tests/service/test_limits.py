"""Who makes room for a new connection, and when; and how many connections the system allows."""

import asyncio
import resource

import pytest

from service import limits as module
from service.limits import FOR_PROBES, Places, files_for, most_connections


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


@pytest.mark.parametrize("listeners", [1, 2])
@pytest.mark.parametrize("wanted", [1, 40, 2000, 100_000])
@pytest.mark.parametrize("hard", [16, 64, 300, 1024, 4096, 524_288, resource.RLIM_INFINITY])
def test_connections_fit_the_files_that_may_be_open(monkeypatch, listeners, wanted, hard):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, hard))
    most = most_connections(wanted, listeners)
    assert 1 <= most <= wanted
    if hard == resource.RLIM_INFINITY or files_for(wanted, listeners) <= hard:
        assert most == wanted
    elif hard >= 300 and most < wanted:
        used = files_for(most, listeners) - files_for(0, listeners) + listeners * FOR_PROBES + min(256, hard // 4)
        assert hard - 4 < used <= hard
