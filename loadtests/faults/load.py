"""The load during a fault: clients that ask without a pause, a probe, and what became of their requests."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from time import perf_counter

from msgspec import Struct

from loadtests.client import Connection, Request, fetch
from loadtests.percentiles import percentile
from loadtests.target import Target

_TIMEOUT = 20.0  # seconds; an answer that takes longer counts as lost
_PROBE_TIMEOUT = 1.0  # seconds, Kubernetes' default


class Outcome(Struct):
    """What a fault did.

    Attributes:
        answered: requests that were sent after the fault began and answered with 200.
        refused: those that were answered with another status, by status.
        turned_away: attempts to connect that nobody took in.
        lost: requests that were sent on an open connection and never answered.
        silence_s: the longest time after the fault in which nobody was answered.
        ready_s: seconds from the fault until `/readyz` answered 200 for good; 0: it never did otherwise.
        p99_ms: of the answers, before and after the fault.
    """

    fault: str
    answered: int
    refused: dict[str, int]
    turned_away: int
    lost: int
    silence_s: float
    ready_s: float
    p99_ms: tuple[float, float]


class Clients:
    """Clients that ask as fast as they are answered and connect while `/readyz`, which a probe asks, answers 200."""

    def __init__(self, address: Target, requests: Sequence[Request]) -> None:
        self._address = address
        self._requests = [request.encode(address) for request in requests]
        self._stop = False
        self._leaving = False
        self._tasks: list[asyncio.Task[None]] = []
        self.answers: list[tuple[float, float, int]] = []  # when it was sent, how long it took, its status
        self.lost: list[float] = []
        self.turned_away: list[float] = []
        self.not_ready: list[float] = []

    def add(self, clients: int) -> None:
        """Let more clients ask."""
        self._tasks += [asyncio.create_task(self._ask()) for _ in range(clients)]

    def watch(self) -> None:
        """Let the probe ask."""
        self._tasks.append(asyncio.create_task(self._probe()))

    async def end(self) -> None:
        """Wait for the last answers."""
        self._stop = True
        await asyncio.gather(*self._tasks)

    async def _ask(self) -> None:
        turn = 0
        while not self._stop:
            try:
                connection = await Connection.open(self._address, _TIMEOUT)
            except OSError:
                self.turned_away.append(perf_counter())
                await asyncio.sleep(0.05)
                continue
            while connection.usable and not self._stop:
                sent = perf_counter()
                try:
                    response = await connection.exchange(self._requests[turn % len(self._requests)], _TIMEOUT)
                except OSError:
                    self.lost.append(sent)
                    break
                self.answers.append((sent, response.finished - sent, response.status))
                turn += 1
                if response.status != 200:  # as somebody would who was told to come back later
                    await asyncio.sleep(0.02)
            connection.close()
            while self._leaving and not self._stop:  # a load balancer goes by readiness
                await asyncio.sleep(0.02)

    async def _probe(self) -> None:
        while not self._stop:
            asked = perf_counter()
            try:
                ready = (await fetch(self._address, Request("GET", "/readyz"), _PROBE_TIMEOUT)).status == 200
            except OSError:
                ready = False
            self._leaving = not ready
            if not ready:
                self.not_ready.append(asked)
            await asyncio.sleep(0.05)

    def outcome(self, name: str, begin: float) -> Outcome:
        """Sum up what happened since `begin`."""
        after = [answer for answer in self.answers if answer[0] >= begin]
        good = sorted(sent + took for sent, took, status in self.answers if status == 200 and sent + took >= begin)
        p99 = [
            1000 * (percentile([took for _, took, status in chosen if status == 200], 99) or 0.0)
            for chosen in ([answer for answer in self.answers if answer[0] < begin], after)
        ]
        return Outcome(
            name,
            answered=sum(status == 200 for _, _, status in after),
            refused=dict(sorted(Counter(str(status) for _, _, status in after if status != 200).items())),
            turned_away=sum(moment >= begin for moment in self.turned_away),
            lost=len(self.lost),
            silence_s=max((b - a for a, b in zip([begin, *good], good, strict=False)), default=0.0),
            ready_s=max((moment - begin for moment in self.not_ready if moment >= begin), default=0.0),
            p99_ms=(p99[0], p99[1]),
        )
