"""The clients of the soak: mixed requests, a little rubbish, some hang-ups, and a look into every answer."""

import asyncio
import random
from array import array
from collections import Counter
from collections.abc import Sequence
from itertools import cycle
from time import monotonic
from typing import NamedTuple, overload

from loadtests.album import SAMPLES, Photo, jpeg
from loadtests.answers import Answers
from loadtests.connections import Connections
from loadtests.exchange import Request
from loadtests.rubbish import rubbish
from loadtests.target import Target

SIZES = ((320, 240), (640, 480), (1280, 960), (1920, 1280), (3000, 2000))
# What is asked of each task: options, and how often beside the others.
MIXED = {"classify": (({}, 5),), "detect": (({}, 3),), "segment": (({}, 1), ({"mask": "none"}, 1))}
_HANGS_UP_WITHIN = 0.05  # seconds
_LOST = 200  # failures in a row, without any answer in between, after which the service is taken for gone
_AFTER_FAILURE = 0.05  # seconds that a client waits after its connection failed, so that it does not spin


class Mix(NamedTuple):
    """Shares of the requests that must be refused, and that nobody waits for; the rest must be answered."""

    rubbish: float = 0.03
    hang_ups: float = 0.01


class Answered(NamedTuple):
    """A right answer: when it came, in seconds since the soak began, and how long it took, in seconds."""

    at: float
    latency: float


class RightAnswers(Sequence[Answered]):
    """Right answers in 16 bytes each, so that the client stays small for days."""

    def __init__(self) -> None:
        self._at, self._latency = array("d"), array("d")

    def append(self, at: float, latency: float) -> None:
        """Add one; both in seconds, as `Answered` has them."""
        self._at.append(at)
        self._latency.append(latency)

    @overload
    def __getitem__(self, which: int) -> Answered: ...
    @overload
    def __getitem__(self, which: slice) -> list[Answered]: ...
    def __getitem__(self, which: int | slice) -> Answered | list[Answered]:
        if isinstance(which, slice):
            return list(map(Answered, self._at[which], self._latency[which]))
        return Answered(self._at[which], self._latency[which])

    def __len__(self) -> int:
        return len(self._at)


class Clients:
    """All clients and what they saw.

    Attributes:
        answered: every right answer.
        refused, hung_up: how much rubbish was refused rightly, and how many requests were abandoned.
        errors: how often something was wrong, by what.
    """

    def __init__(
        self, asked: Sequence[Target], mix: Mix, timeout: float, photos: Sequence[Photo] = (), seed: int = 0
    ) -> None:
        """Prepare.

        Args:
            asked: targets with a task and a model that the server has, all of one server; at least one.
            mix: of what is asked.
            timeout: of an answer, in seconds.
            photos: what is sent; without any, sample photos from 320 x 240 to 3000 x 2000 pixels.
            seed: of what is random.
        """
        server = asked[0]
        self._connections = Connections(server, timeout)
        self._mix, self._seed = mix, seed
        self._first = Answers()
        photos = photos or [jpeg(name, size) for name, size in zip(cycle(SAMPLES), SIZES, strict=False)]
        self._requests: dict[str, bytes] = {}
        self._weights: list[int] = []
        for target in asked:
            for options, weight in MIXED[target.task]:
                path = target.question_with(options)
                for photo in photos:
                    request = Request("POST", path, {"Content-Type": photo.content_type}, photo.data)
                    self._requests[f"{path} {photo.name}"] = request.encode(server)
                    self._weights.append(weight)
        self._rubbish = [(one.name, one.request.encode(server), one.status) for one in rubbish(photos, asked)]
        self.begin = monotonic()
        self.answered = RightAnswers()
        self.refused = self.hung_up = 0
        self.errors: Counter[str] = Counter()
        self._lost = 0

    async def learn(self) -> None:
        """Ask everything once, alone: that is the right answer from then on.

        Raises:
            OSError: the service cannot be reached.
            ValueError: a request was not answered with 200.
        """
        for name, request in self._requests.items():
            response = await self._connections.exchange(request)
            if response.status != 200:
                raise ValueError(f"{name} was answered with {response.status}: {response.body[:300]!r}")
            self._first.learn(name, response.body)

    @property
    def gone(self) -> bool:
        """Whether the service no longer answers at all; the clients then stop."""
        return self._lost >= _LOST

    async def run(self, clients: int, seconds: float) -> None:
        """Let so many clients ask, each as soon as it has its answer."""
        self.begin = monotonic()
        await asyncio.gather(*(self._client(self._seed + n, seconds) for n in range(clients)))
        self._connections.close()

    async def _client(self, seed: int, seconds: float) -> None:
        chance = random.Random(seed)  # noqa: S311 - load, not secrets
        names = list(self._requests)
        while monotonic() - self.begin < seconds and not self.gone:
            dice = chance.random()
            try:
                if dice < self._mix.rubbish:
                    await self._send_rubbish(chance.randrange(len(self._rubbish)))
                else:
                    name = chance.choices(names, self._weights)[0]
                    if dice < self._mix.rubbish + self._mix.hang_ups:
                        await self._hang_up(name, chance.uniform(0, _HANGS_UP_WITHIN))
                    else:
                        await self._ask(name)
            except OSError as error:
                self.errors[f"no answer: {type(error).__name__}"] += 1
                self._lost += 1
                await asyncio.sleep(_AFTER_FAILURE)

    async def _ask(self, name: str) -> None:
        sent = monotonic()
        response = await self._connections.exchange(self._requests[name])
        now = monotonic()
        self._lost = 0
        if response.status != 200:
            self.errors[f"{name}: {response.status}"] += 1
        elif not self._first.right(name, response.body):
            self.errors[f"{name}: another answer than the first"] += 1
        else:
            self.answered.append(now - self.begin, now - sent)

    async def _send_rubbish(self, which: int) -> None:
        name, request, status = self._rubbish[which]
        response = await self._connections.exchange(request)
        if response.status == status:
            self.refused += 1
        else:
            self.errors[f"rubbish, {name}: {response.status} where {status} is right"] += 1

    async def _hang_up(self, name: str, after: float) -> None:
        connection = await self._connections.open()
        try:
            await connection.exchange(self._requests[name], after)
        except TimeoutError:  # that was the plan
            pass
        finally:
            connection.close()
        self.hung_up += 1
