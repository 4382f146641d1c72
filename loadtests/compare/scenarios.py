"""Two situations that closed loops at a steady pace do not show: right after a burst, and at twice the capacity.

Called by `loadtests.compare` on each server, after the closed loops.
"""

from msgspec import Struct

from loadtests.client import Limits, Load, Request, closed_loop, open_loop, run
from loadtests.percentiles import percentile
from loadtests.stats import elapsed, milliseconds, summarise
from loadtests.target import Target

BURST = 64
_QUIET = 100  # requests at concurrency 1, before and after
_REFUSED = (429, 503)


class Burst(Struct, frozen=True):
    """The median latency of single requests just before and after a burst, in ms; how much of it was answered."""

    before: float
    after: float
    answered: int

    @property
    def ratio(self) -> float:
        """After over before."""
        return self.after / self.before


class Overload(Struct, frozen=True):
    """What a server made of more requests than it can answer. Times are in ms, rates per second.

    Attributes:
        capacity: the rate that it answered in the closed loop.
        offered: the rate of the requests.
        deadline: within which an answer is of use. It is told to servers that can be told.
        goodput: rate of the answers (200) within the deadline.
        accepted: how many requests were answered with 200, in or after their deadline.
        accepted_p99: of their latencies.
        refused: how many requests were answered with 429 or 503.
        refused_p50, refused_p99: of the latencies of those.
        expired: how many requests were answered with 504.
        unanswered: how many got no answer: the client gave up, or the connection broke, or could not be had.
        other: how many were answered with any other status.
    """

    capacity: float
    offered: float
    deadline: float
    goodput: float
    accepted: int
    accepted_p99: float | None
    refused: int
    refused_p50: float | None
    refused_p99: float | None
    expired: int
    unanswered: int
    other: int


def burst(address: Target, request: Request, timeout: float) -> Burst | None:
    """Send single requests, then 64 at once, then single requests again. None where nothing was answered."""

    def alone() -> float | None:
        limits = Limits(seconds=timeout, requests=_QUIET, timeout=timeout)
        return summarise(run(closed_loop(address, [request], concurrency=1, limits=limits))).p50

    before = alone()
    limits = Limits(seconds=timeout, requests=BURST, timeout=timeout)
    flood = summarise(run(closed_loop(address, [request], concurrency=BURST, limits=limits)))
    after = alone()
    return Burst(before, after, flood.succeeded) if before and after else None


def overload(address: Target, request: Request, *, capacity: float, seconds: float, deadline: float) -> Overload:
    """Offer twice the capacity as Poisson arrivals. The client gives up after four deadlines; `deadline` is in ms."""
    limits = Limits(seconds, timeout=4 * deadline / 1000)
    load = run(open_loop(address, [request], rate=2 * capacity, limits=limits))
    return judge(load, capacity=capacity, deadline=deadline)


def judge(load: Load, *, capacity: float, deadline: float) -> Overload:
    """Count what became of an overload of twice the capacity; `deadline` is in ms."""
    useful = [s for s in load.samples if s.status == 200 and 1000 * s.latency <= deadline]
    accepted = milliseconds(s for s in load.samples if s.status == 200)
    refused = milliseconds(s for s in load.samples if s.status in _REFUSED)
    expired = sum(s.status == 504 for s in load.samples)
    unanswered = sum(bool(s.failure) for s in load.samples)
    return Overload(
        capacity=capacity,
        offered=len(load.samples) / load.window,
        deadline=deadline,
        goodput=len(useful) / elapsed(Load(useful, load.window)),
        accepted=len(accepted),
        accepted_p99=percentile(accepted, 99),
        refused=len(refused),
        refused_p50=percentile(refused, 50),
        refused_p99=percentile(refused, 99),
        expired=expired,
        unanswered=unanswered,
        other=len(load.samples) - len(accepted) - len(refused) - expired - unanswered,
    )
