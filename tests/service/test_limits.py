"""Who makes room for a new connection, and when; how many connections the system allows; what is held in memory."""

import asyncio
import resource

import pytest

from service import limits as module
from service.errors import Reason, RequestError
from service.limits import FOR_PROBES, Bodies, Places, Share, Unread, files_for, most_connections


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


def test_a_share_counts_until_it_is_freed_or_its_user_is_gone():
    every = Bodies(10)
    one, other = (Share(every, "Clients have not taken answers") for _ in range(2))
    one.add(6)
    other.add(4)
    with pytest.raises(RequestError, match="not taken answers of 10 bytes") as refused:
        other.add(1)
    assert (refused.value.reason, refused.value.retry_after) == (Reason.QUEUE_FULL, 1)
    one.free(6)
    other.add(5)
    other.end()
    assert every.held == 0
    one.add(99)  # where there is no other
    one.end()
    assert every.held == 0


@pytest.mark.parametrize(
    ("notes", "aborted", "held"),
    [
        ([("a", 4), ("b", 4)], "", 8),
        ([("a", 4), ("b", 4), ("c", 4)], "a", 8),
        ([("a", 4), ("b", 4), ("a", 0), ("c", 4)], "", 8),
        ([("a", 4), ("b", 4), ("a", 4), ("c", 4)], "b", 8),  # `a` has read what it had not
        ([("a", 4), ("b", 4), ("c", 9)], "ab", 9),
        ([("a", 99)], "", 99),  # the only one
        ([("a", 0)], "", 0),
    ],
)
def test_answers_that_were_not_read_for_longest_make_room(notes, aborted, held):
    gone, unread = [], Unread(10)
    aborts = {name: (lambda name=name: gone.append(name)) for name, _ in notes}
    for name, size in notes:
        unread.note(aborts[name], size)
    assert ("".join(gone), unread.held) == (aborted, held)
    for abort in aborts.values():
        unread.note(abort, 0)
    assert unread.held == 0
