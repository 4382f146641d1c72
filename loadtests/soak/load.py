"""The clients of the soak: mixed questions, a little rubbish, some hang-ups, and a look into every answer."""

import asyncio
import random
from collections import Counter
from time import monotonic
from typing import NamedTuple

from loadtests.album import SAMPLES, jpeg
from loadtests.answers import Answers
from loadtests.client import Request, Server
from loadtests.connections import Connections
from loadtests.rubbish import rubbish

SIZES = ((320, 240), (640, 480), (1280, 960), (1920, 1280), (3000, 2000))
PATHS = {"/v1/classify": 5, "/v1/detect": 3, "/v1/segment": 1, "/v1/segment?mask=none": 1}
_HANGS_UP_WITHIN = 0.05  # seconds
_LOST = 200  # failures in a row, without any answer in between, after which the service is taken for gone
_AFTER_FAILURE = 0.05  # seconds that a client waits after its connection failed, so that it does not spin


class Mix(NamedTuple):
    """Shares of the requests that are none, and that nobody waits for; the rest are questions."""

    rubbish: float = 0.03
    hang_ups: float = 0.01


class Asked(NamedTuple):
    """An answered question: when its answer came, and how long it took, in seconds since the soak began."""

    at: float
    latency: float


class Crowd:
    """All clients and what they saw.

    Attributes:
        asked: every question that was answered rightly.
        refused, hung_up: how much rubbish was refused rightly, and how many requests were abandoned.
        errors: how often something was wrong, by what.
    """

    def __init__(self, address: Server, mix: Mix, timeout: float, seed: int = 0) -> None:
        self._connections = Connections(address, timeout)
        self._mix = mix
        self._seed = seed
        self._answers = Answers()
        address = self._connections.server
        photos = [jpeg(name, size) for name, size in zip(_in_turn(SAMPLES, len(SIZES)), SIZES, strict=True)]
        self._questions = {
            f"{path} {photo.name}": Request("POST", path, {"Content-Type": photo.content_type}, photo.data).encode(
                address
            )
            for path in PATHS
            for photo in photos
        }
        self._weights = [weight for weight in PATHS.values() for _ in photos]
        self._rubbish = [(r.name, r.request.encode(address), r.status) for r in rubbish(photos[0].data)]
        self.begin = monotonic()
        self.asked: list[Asked] = []
        self.refused = self.hung_up = 0
        self.errors: Counter[str] = Counter()
        self._lost = 0

    async def learn(self) -> None:
        """Ask every question once, alone: that is the right answer from then on.

        Raises:
            OSError: the service cannot be reached.
            ValueError: a question was not answered with 200.
        """
        for question, request in self._questions.items():
            response = await self._connections.exchange(request)
            if response.status != 200:
                raise ValueError(f"{question} was answered with {response.status}: {response.body[:300]!r}")
            self._answers.learn(question, response.body)

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
        questions = list(self._questions)
        while monotonic() - self.begin < seconds and not self.gone:
            dice = chance.random()
            try:
                if dice < self._mix.rubbish:
                    await self._send_rubbish(chance.randrange(len(self._rubbish)))
                else:
                    question = chance.choices(questions, self._weights)[0]
                    if dice < self._mix.rubbish + self._mix.hang_ups:
                        await self._hang_up(question, chance.uniform(0, _HANGS_UP_WITHIN))
                    else:
                        await self._ask(question)
            except OSError as error:
                self.errors[f"no answer: {type(error).__name__}"] += 1
                self._lost += 1
                await asyncio.sleep(_AFTER_FAILURE)

    async def _ask(self, question: str) -> None:
        sent = monotonic()
        response = await self._connections.exchange(self._questions[question])
        now = monotonic()
        self._lost = 0
        if response.status != 200:
            self.errors[f"{question}: {response.status}"] += 1
        elif not self._answers.right(question, response.body):
            self.errors[f"{question}: another answer than the first"] += 1
        else:
            self.asked.append(Asked(now - self.begin, now - sent))

    async def _send_rubbish(self, which: int) -> None:
        name, request, status = self._rubbish[which]
        response = await self._connections.exchange(request)
        if response.status == status:
            self.refused += 1
        else:
            self.errors[f"rubbish, {name}: {response.status} where {status} is right"] += 1

    async def _hang_up(self, question: str, after: float) -> None:
        connection = await self._connections.open()
        try:
            await connection.exchange(self._questions[question], after)
        except TimeoutError:  # that was the plan
            pass
        finally:
            connection.close()
        self.hung_up += 1


def _in_turn(names: tuple[str, ...], count: int) -> list[str]:
    return [names[n % len(names)] for n in range(count)]
