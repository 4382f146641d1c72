"""What is measured of a zoo that is larger than its budget for memory."""

import asyncio
import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import cycle
from pathlib import Path
from statistics import mean
from time import perf_counter

from msgspec import Struct

from loadtests.album import standard_photo
from loadtests.client import Request, fetch, run
from loadtests.compare.process import ServerError
from loadtests.percentiles import percentile
from loadtests.processes import family, resident
from loadtests.serving import serving
from loadtests.target import Target
from loadtests.zoo_on_demand.store import PINNED, make_store

_LOOK_S = 0.1
_ROOM = 2  # sizes of the largest model: a load needs more than the model does
_SHORT_S, _WARM_S = 30.0, 5.0
_TRIES, _NOT_READY = 5, 503
Say = Callable[[str], None]


class Outcome(Struct, frozen=True):
    """What was found.

    Attributes:
        budget_mb, models, fit: of the test.
        loads_while_fitting, expected_loads: while as many models were asked for as fit.
        p99_quiet_ms, p99_during_loads_ms: of a pinned model, while a client asks loaded models, and others.
        requests, wrong, failed: of random requests to all models, and of these other answers and none.
        loads: during them.
        load_seconds: the mean time of a load, by original, with all checks, while requests are answered.
        over_budget: the largest share by which the models' memory was above the budget, 0.02 for 2 %.
    """

    budget_mb: float
    models: int
    fit: int
    loads_while_fitting: int
    expected_loads: int
    p99_quiet_ms: float
    p99_during_loads_ms: float
    requests: int
    wrong: int
    failed: int
    loads: int
    over_budget: float
    load_seconds: dict[str, float]


class Zoo:
    """A running server.

    Args:
        address: of it.
        process: its id.
        photo: that is asked about.
        tasks: by name of a model.
    """

    def __init__(self, address: Target, process: int, photo: bytes, tasks: dict[str, str]) -> None:
        self._address, self._photo, self._tasks = address, photo, tasks
        self._processes = family(process)

    def rss(self) -> int:
        """Resident memory of all its processes, in bytes."""
        return resident(self._processes)

    def loads(self) -> int:
        """How many models were loaded so far."""
        return int(sum(self._of_loads("count").values()))

    def load_seconds(self) -> dict[str, float]:
        """The mean time of a load, by model."""
        counts = self._of_loads("count")
        return {name: total / counts[name] for name, total in self._of_loads("sum").items() if counts[name]}

    def _of_loads(self, figure: str) -> dict[str, float]:
        text = run(fetch(self._address, Request("GET", "/metrics"))).body.decode()
        line = rf'^zooserve_model_load_seconds_{figure}\{{model="([^"]*)"\}} ([0-9.e+-]+)'
        return {name: float(value) for name, value in re.findall(line, text, re.MULTILINE)}

    def bytes_of(self) -> dict[str, int]:
        """What each model takes, as the server measured it."""
        body = run(fetch(self._address, Request("GET", "/v1/models"))).body
        return {model["name"]: model.get("bytes", 0) for model in json.loads(body)["models"]}

    async def ask(self, name: str) -> tuple[int, object, float]:
        """Ask a model about the photo: status, predictions, seconds."""
        path, headers = f"/v1/{self._tasks[name]}?model={name}", {"Content-Type": "image/jpeg"}
        start = perf_counter()
        response = await fetch(self._address, Request("POST", path, headers, self._photo), timeout=60.0)
        answer = json.loads(response.body).get("predictions") if response.status == 200 else response.body[:300]
        return response.status, answer, perf_counter() - start

    async def clients(
        self, count: int, seconds: float, name: Callable[[], str], seen: Callable[[str, int, object, float], None]
    ) -> None:
        """Let clients ask, each one request after the other."""
        end = perf_counter() + seconds

        async def client() -> None:
            while perf_counter() < end:
                asked = name()
                seen(asked, *await self.ask(asked))

        await asyncio.gather(*(client() for _ in range(count)))


class Trial:
    """One store of models, and what its server answers.

    Args:
        folders: of the exported models that are copied.
        count: how many models there are.
        clients: that ask at the same time.
        folder: for the store, the log and the profiles.
        say: is told what is under way.
    """

    def __init__(self, folders: list[Path], count: int, clients: int, folder: Path, say: Say) -> None:
        self._store, self._log, self._say, self._clients = folder / "models", folder / "log", say, clients
        self._made = make_store(folders, count, self._store)
        self._photo, self._chance = standard_photo(), random.Random(0)  # noqa: S311 - the same each time
        cards = {name: json.loads((self._store / name / "1" / "card.json").read_bytes()) for name in self._made}
        self._tasks = {name: card["task"] for name, card in cards.items()}
        self._settings = {
            "ZOOSERVE_MODELS": str(self._store),
            "ZOOSERVE_PIN": PINNED,
            "ZOOSERVE_LOAD": "",
            "ZOOSERVE_TIMEOUT_MS": "60000",
            "XDG_CACHE_HOME": str(folder / "cache"),
        }
        self._right: dict[str, object] = {}  # by original
        self._times: list[float] = []
        self.wrong: list[str] = []
        self.failed: list[str] = []

    def run(self, fit: int, seconds: float) -> Outcome:
        """Measure all.

        Args:
            fit: how many models have room, on average.
            seconds: of random requests.

        Raises:
            ServerError: the server cannot be started, or does not answer.
        """
        self._say("loading each original twice, to see what it takes")
        sizes = [self._sizes() for _ in range(2)][-1]
        budget = sum(sizes.values()) * fit / len(sizes) + _ROOM * max(sizes.values())
        together = _as_many(sizes, budget)
        with self._serving(budget) as (address, process):
            zoo = Zoo(address, process, self._photo, self._tasks)
            self._ask(zoo, [PINNED], min(_WARM_S, seconds))
            base = zoo.rss() - sizes[PINNED]
            self._say(f"{len(together)} models that fit together, of {len(sizes)}")
            begun = zoo.loads()
            self._ask(zoo, together, min(_SHORT_S, seconds))
            fitting = zoo.loads() - begun
            self._say("a pinned model, while nothing is loaded, and while others are")
            quiet, during = _disturbed(zoo, together, list(sizes), min(_SHORT_S, seconds))
            self._say(f"random requests to all {len(sizes)} models for {seconds:g} s")
            begun, self._times = zoo.loads(), []
            peak = self._ask(zoo, list(sizes), seconds)
            loads, seconds_of = zoo.loads() - begun, zoo.load_seconds()
        return Outcome(
            budget_mb=round(budget / 1e6, 1),
            models=len(sizes),
            fit=len(together),
            loads_while_fitting=fitting,
            expected_loads=len(together) - 1,
            p99_quiet_ms=round(1000 * quiet, 2),
            p99_during_loads_ms=round(1000 * during, 2),
            requests=len(self._times),
            wrong=len(self.wrong),
            failed=len(self.failed),
            loads=loads,
            over_budget=round(max(0.0, (peak - base) / budget - 1), 4),
            load_seconds={
                original: round(mean(s for name, s in seconds_of.items() if self._made[name] == original), 3)
                for original in dict.fromkeys(self._made[name] for name in seconds_of)
            },
        )

    def _serving(self, budget: float) -> AbstractContextManager[tuple[Target, int]]:
        return serving(self._log, self._settings | {"ZOOSERVE_MEMORY_MB": str(budget / 1e6)})

    def _sizes(self) -> Mapping[str, int]:
        """Load the first copy of each original; return what each model takes, and note the answers."""
        self._right = {}
        with self._serving(1e12) as (address, process):
            zoo = Zoo(address, process, self._photo, self._tasks)
            for name, original in self._made.items():
                if original not in self._right:
                    for _ in range(_TRIES):  # on a busy machine it takes long to measure what a model takes
                        status, answer, _ = run(zoo.ask(name))
                        if status != _NOT_READY:
                            break
                    if status != 200:
                        raise ServerError(f"{name} answers {status}: {answer!r}")
                    self._right[original] = answer
            sizes = zoo.bytes_of()
            first = {original: name for name, original in reversed(self._made.items())}
            return {name: sizes[first[original]] for name, original in self._made.items()}

    def _ask(self, zoo: Zoo, names: Sequence[str], seconds: float) -> int:
        """Ask models at random; return the most memory, in bytes."""

        def seen(name: str, status: int, answer: object, took: float) -> None:
            self._times.append(took)
            if status != 200:
                self.failed.append(f"{name}: {status} {answer!r}")
            elif answer != self._right[self._made[name]]:
                self.wrong.append(f"{name}: {answer!r:.200}")

        async def both() -> int:
            peak = 0

            async def watch() -> None:
                nonlocal peak
                while True:
                    peak = max(peak, zoo.rss())
                    await asyncio.sleep(_LOOK_S)

            watching = asyncio.ensure_future(watch())
            await zoo.clients(self._clients, seconds, lambda: self._chance.choice(names), seen)
            watching.cancel()
            return peak

        return run(both())


def _as_many(sizes: Mapping[str, int], budget: float) -> list[str]:
    """As many models as have room together, in the store's order."""
    chosen: list[str] = []
    for name in sizes:
        if sum(sizes[each] for each in [*chosen, name]) + _ROOM * max(sizes.values()) <= budget:
            chosen.append(name)
    return chosen


def _disturbed(zoo: Zoo, loaded: Sequence[str], names: Sequence[str], seconds: float) -> tuple[float, float]:
    """The 99th percentile of a pinned model's seconds.

    Args:
        zoo: that answers.
        loaded: models that fit together; a second client asks them in turn, in the first measurement.
        names: all models; in the second measurement that client asks these, which are loaded for it.
        seconds: of each measurement.
    """

    async def measure(asked: Sequence[str]) -> float:
        took: list[float] = []

        def seen(_: str, status: int, answer: object, seconds: float) -> None:
            if status != 200:  # a refusal is quick
                raise ServerError(f"{PINNED} answers {status}: {answer!r}")
            took.append(seconds)

        others = cycle(name for name in asked if name != PINNED)
        await asyncio.gather(
            zoo.clients(1, seconds, lambda: PINNED, seen),
            zoo.clients(1, seconds, lambda: next(others), lambda *_: None),
        )
        return percentile(took, 99) or 0.0

    return run(measure(loaded)), run(measure(names))
