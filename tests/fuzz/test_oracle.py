"""What costs too much for its size is found, and what does not is left alone."""

import mmap

import pytest

from fuzz.oracle import CostError, Limit, judge, measure

TIGHT = Limit(seconds=0.05, seconds_each=1e-6, memory=20e6, memory_each=8.0)
UNHURRIED = TIGHT._replace(seconds=60.0)


def quadratic(data: bytes) -> None:
    for start in range(len(data)):
        data.count(b"x", start)


def greedy(data: bytes) -> None:
    """Take fresh pages from the system: an allocator may have some left that are resident already."""
    with mmap.mmap(-1, 2000 * len(data) + 1) as pages:
        pages[::4096] = b"x" * len(range(0, len(pages), 4096))


@pytest.mark.parametrize(
    ("check", "size", "limit", "fault"),
    [
        (lambda data: None, 100_000, TIGHT, ""),
        (quadratic, 100, TIGHT, ""),
        (quadratic, 100_000, TIGHT, "100000 bytes took .+ s, more than 0.15 s"),
        (greedy, 100, TIGHT, ""),
        (greedy, 50_000, UNHURRIED, "50000 bytes took .+ MB, more than 20 MB"),
    ],
)
def test_what_costs_too_much_is_found(check, size, limit, fault):
    if not fault:
        judge(check, bytes(size), limit)
        return
    with pytest.raises(CostError, match=fault):
        judge(check, bytes(size), limit)


def test_what_is_paid_only_once_does_not_count():
    seen = []

    def check(data: bytes) -> None:
        if not seen:
            seen.append(None)
            quadratic(bytes(100_000))

    judge(check, b"x", TIGHT)


def test_an_exception_of_the_parser_goes_through():
    with pytest.raises(ZeroDivisionError):
        judge(lambda data: 1 / 0, b"", TIGHT)


def test_memory_is_the_highest_and_not_what_is_left():
    assert measure(greedy, bytes(50_000)).memory == pytest.approx(100e6, rel=0.1)
