"""A service under test: found, asked once, its senders started. Called by `loadtests.loadgen`'s commands."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlencode

from loadtests.album import Photo, album
from loadtests.client import Limits, Request, closed_loop, fetch, run
from loadtests.loadgen.sut import SystemUnderTest
from loadtests.loadgen.trial import Spec, Trial, conduct
from loadtests.loadgen.wire import Plan
from loadtests.stats import summarise
from loadtests.target import Target as ServerTarget

_PATIENCE = 60.0  # seconds that the senders get to be ready
_PROBE = 2.0  # seconds
_TOLD_EVERY = 10.0  # seconds


class TargetError(Exception):
    """A service that does not answer as it should, with what it said."""


@dataclass(frozen=True)
class Target:
    """The service, and how it is asked.

    Attributes:
        url: of the service, on this machine.
        task, model: the endpoint, and the model's name; empty for the task's default.
        photos: a folder; None for the zoo's samples.
        connections: the most that are open at a time, over all senders.
        senders: processes that send.
        timeout: seconds after which an answer is no longer waited for.
        logs: a folder that keeps what LoadGen writes, by test; None keeps nothing.
    """

    url: str
    task: str
    model: str
    photos: Path | None
    connections: int
    senders: int
    timeout: float
    logs: Path | None

    @property
    def path(self) -> str:
        """Of the requests."""
        return f"/v1/{self.task}" + (f"?{urlencode({'model': self.model})}" if self.model else "")


class Bench:
    """Tests of one service. Made by `bench`. `model` and `version` are those that answered."""

    def __init__(self, target: Target, say: Callable[[str], None], logs: Path) -> None:
        self.target = target
        self.photos: list[Photo] = album(target.photos)
        self._say = say
        self._logs = logs
        self._address = ServerTarget.parse(target.url)
        self._requests = [Request("POST", target.path, {"Content-Type": p.content_type}, p.data) for p in self.photos]
        answer = self._ask()
        self.model, self.version = str(answer["model"]), str(answer["version"])
        self._tests = 0
        self.sut = SystemUnderTest(self._plan(), target.senders)

    def probe(self, clients: int) -> float:
        """Return the rate that so many clients reach in two seconds.

        Raises:
            TargetError: they reach nothing.
        """
        limits = Limits(_PROBE, timeout=self.target.timeout)
        summary = summarise(run(closed_loop(self._address, self._requests, concurrency=clients, limits=limits)))
        if not summary.succeeded:
            raise TargetError(f"nothing was answered with 200: {summary.statuses or summary.failures}")
        self._say(f"probe, {clients} clients: {summary.rate:.1f} per second")
        return summary.rate

    def conduct(self, spec: Spec) -> Trial:
        """Run one test and say how it goes.

        Raises:
            TrialError: a sender ended, or the test did not end.
        """
        self._tests += 1
        told = 0.0

        def on_second(passed: float, answered: int) -> None:
            nonlocal told
            if passed - told >= _TOLD_EVERY:
                told = passed
                self._say(f"  {passed:.0f} s, {answered} answers")

        self._say(f"test {self._tests}: {spec.scenario} at {spec.target_qps:.1f} per second")
        logs = self._logs / f"{self._tests:02}-{spec.scenario}-{spec.target_qps:.1f}"
        trial = conduct(spec, self.sut, len(self.photos), logs, on_second)
        verdict = "VALID" if trial.summary.valid else "INVALID"
        self._say(
            f"  LoadGen: {verdict}; {trial.summary.rate:.1f} per second, p99 {trial.summary.p99:.1f} ms, "
            f"{trial.errors} errors"
        )
        return trial

    def _ask(self) -> dict[str, object]:
        try:
            response = run(fetch(self._address, self._requests[0], self.target.timeout))
        except OSError as error:
            raise TargetError(f"{self.target.url} does not answer ({error}): start it with `make serve`") from error
        if response.status != 200:
            raise TargetError(f"{self.target.path} answers {response.status}: {response.body[:300]!r}")
        return dict(json.loads(response.body))

    def _plan(self) -> Plan:
        return Plan(
            host=self._address.host,
            port=self._address.port,
            path=self.target.path,
            photos=[(photo.content_type, photo.data) for photo in self.photos],
            connections=max(1, self.target.connections // self.target.senders),
            timeout=self.target.timeout,
        )


@contextmanager
def bench(target: Target, say: Callable[[str], None]) -> Iterator[Bench]:
    """Find the service and start the senders.

    Raises:
        TargetError: it does not answer a photo with 200.
        SenderError: a sender could not start.
        ValueError: a wrong URL, or no photos.
    """
    with ExitStack() as stack:
        logs = target.logs or Path(stack.enter_context(TemporaryDirectory(prefix="loadgen-")))
        found = Bench(target, say, logs)
        stack.enter_context(found.sut)
        found.sut.wait(_PATIENCE)
        yield found
