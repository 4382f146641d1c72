"""One trial: one server in one round, between two bare loops. Called by `loadtests.compare`."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from loadtests.client import Limits, Request, closed_loop, fetch, open_loop, run
from loadtests.compare.agreement import agree
from loadtests.compare.bare import BareLoop
from loadtests.compare.process import ServerError, on_cores, running
from loadtests.compare.scenarios import Burst, Overload, burst, overload
from loadtests.compare.servers import ROOT, Server
from loadtests.compare.work import Answer
from loadtests.stats import Summary, summarise
from loadtests.target import Target

STOPS = (KeyboardInterrupt, subprocess.CalledProcessError)  # Ctrl+C, a bare loop that failed: what is complete counts
_WARM_UP = 8  # clients while a server warms up


class WrongAnswerError(ServerError):
    """A server whose answer is not the bare loop's: nothing that was measured of it counts."""


class Plan(Struct, frozen=True):
    """What is measured, and how. Times are in seconds unless they say otherwise.

    Attributes:
        threads: of a peer's run of the graph; 0: as many as ONNX Runtime takes.
    """

    rounds: int = 3
    seconds: float = 10.0
    warm_up: float = 2.0
    bare_seconds: float = 2.0
    concurrency: tuple[int, ...] = (1, 8, 32)
    open_loop: tuple[str, ...] = ("50%", "80%")  # requests per second, or a share of the bare loop's
    scenarios: bool = True
    deadline_ms: float = 500.0
    patience: float = 180.0
    timeout: float = 30.0
    server_cores: tuple[int, ...] = (0,)
    client_cores: tuple[int, ...] = (1,)
    threads: int = 1


class OpenLoop(Struct, frozen=True):
    """An open loop at one rate, in requests per second."""

    offered: float
    summary: Summary


class Trial(Struct):
    """What came of one trial. `closed` is by concurrency, `open` by the rate as the plan words it.

    Attributes:
        before, after: the bare loop, the best one where several were run.
        pairs: the best two bare loops side by side, where these were run: before and after.
        model: its name, where several are measured.
    """

    server: str
    pixels: str
    round: int
    bare_loop: str
    before: Summary
    after: Summary | None = None
    ready_seconds: float = 0.0
    closed: dict[str, Summary] = {}
    open: dict[str, OpenLoop] = {}
    burst: Burst | None = None
    overload: Overload | None = None
    problem: str = ""
    pairs: list[Summary] = []
    model: str = ""


@dataclass(frozen=True)
class Bench:
    """Where trials take place: photo, folder of the model, folders for scratch files and logs, port, who is told."""

    plan: Plan
    photo: Path
    model: Path
    scratch: Path
    logs: Path
    port: int
    say: Callable[[str], None]

    def trial(self, server: Server, pixels: str, number: int) -> Trial:
        """Measure a server between two bare loops."""
        loop = server.bare_loop(pixels)
        before = self.bare(loop)
        trial = Trial(server.name, pixels, number, loop, before.summary)
        self.serve(trial, server, before.answer)
        trial.after = self.bare(loop).summary
        return trial

    def serve(self, trial: Trial, server: Server, answer: Answer) -> None:
        """Measure a server whose answer should be this one.

        A problem with it becomes part of the trial: the comparison goes on without it.
        """
        pixels, address = trial.pixels, Target.at("127.0.0.1", self.port)
        try:
            with running(
                server.command(server.environment / "bin", self.port),
                folder=server.folder,
                environment=server.environ(self.port, pixels, self.model, self.plan.threads)
                | {"HOME": str(self.scratch), "TMPDIR": str(self.scratch)},
                cores=set(self.plan.server_cores),
                log=self.logs / f"{server.name}-{self.model.parent.name}-{pixels}-{trial.round}.log",
                address=address,
                ready=server.ready,
                patience=self.plan.patience,
            ) as trial.ready_seconds:
                self.say(f"  ready after {trial.ready_seconds:.1f} s")
                self._measure(trial, server, address, answer)
        except (ServerError, OSError) as error:
            if isinstance(error, WrongAnswerError):
                trial.closed, trial.open, trial.burst, trial.overload = {}, {}, None, None
            trial.problem = str(error)
            self.say(f"  FAILED: {error}")

    def bare(self, loop: str, seconds: float | None = None, *options: str) -> BareLoop:
        """Run a bare loop on the servers' cores, with options of `loadtests.compare.bare`."""
        command = [sys.executable, "-m", "loadtests.compare.bare", "--loop", loop, "--photo", str(self.photo)]
        command += ["--model", str(self.model), *options]
        command += ["--seconds", str(self.plan.bare_seconds if seconds is None else seconds)]
        with on_cores(set(self.plan.server_cores)):
            done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE)  # noqa: S603
        found = msgspec.json.decode(done.stdout, type=BareLoop)
        if found.summary.requests:
            self.say(f"  bare loop {' '.join([loop, *options])}: {told(found.summary)}")
        return found

    def _measure(self, trial: Trial, server: Server, address: Target, answer: Answer) -> None:
        task = json.loads((self.model / "card.json").read_text(encoding="utf-8"))["task"]
        plan, request = self.plan, server.request(self.photo.read_bytes(), task)
        self._check(server, address, request, answer)
        limits = Limits(plan.warm_up, timeout=plan.timeout)
        run(closed_loop(address, [request], concurrency=_WARM_UP, limits=limits))
        limits = Limits(plan.seconds, timeout=plan.timeout)
        for concurrency in plan.concurrency:
            summary = summarise(run(closed_loop(address, [request], concurrency=concurrency, limits=limits)))
            trial.closed[str(concurrency)] = summary
            self.say(f"  concurrency {concurrency}: {told(summary)}")
        for words in plan.open_loop:
            rate = rate_of(words, trial.before.rate)
            summary = summarise(run(open_loop(address, [request], rate=rate, limits=limits)))
            trial.open[words] = OpenLoop(rate, summary)
            self.say(f"  open loop at {rate:.0f}/s: {told(summary)}")
        if plan.scenarios:
            self._scenarios(trial, server, address, request)
        self._check(server, address, request, answer)

    def _scenarios(self, trial: Trial, server: Server, address: Target, request: Request) -> None:
        plan = self.plan
        trial.burst = burst(address, request, plan.timeout)
        if trial.burst is not None:
            self.say(f"  burst: p50 {trial.burst.before:.1f} ms before, {trial.burst.after:.1f} ms after")
        busiest = max(trial.closed.values(), key=lambda summary: summary.rate, default=None)
        if busiest is not None and busiest.rate:
            told = {**request.headers, **server.deadline(plan.deadline_ms)}
            trial.overload = overload(
                address,
                replace(request, headers=told),
                capacity=busiest.rate,
                seconds=plan.seconds,
                deadline=plan.deadline_ms,
            )
            share = trial.overload.goodput / busiest.rate
            self.say(f"  overload at {trial.overload.offered:.0f}/s: goodput {share:.0%} of capacity")

    def _check(self, server: Server, address: Target, request: Request, answer: Answer) -> None:
        """Compare a server's answer with the bare loop's. A server that was just flooded gets time to breathe.

        Raises:
            WrongAnswerError: it is another answer.
            ServerError: there is none.
        """
        deadline = time.perf_counter() + self.plan.timeout
        said = "nothing"
        while time.perf_counter() < deadline:
            with suppress(TimeoutError):
                response = run(fetch(address, request, timeout=self.plan.timeout))
                if response.status == 200:
                    check_answer(server, response.body, answer["predictions"])
                    return
                said = f"{response.status} {response.body[:300]!r}"
            time.sleep(0.2)
        raise ServerError(f"it does not answer the photo with 200 but with {said}")


class Progress:
    """Tells how many trials there are, and how long those that are left will take."""

    def __init__(self, total: int, say: Callable[[str], None]) -> None:
        self._total, self._say, self._begun, self._begin = total, say, 0, time.perf_counter()

    def trial(self, words: str) -> None:
        """Announce a trial before it begins."""
        spent, left = time.perf_counter() - self._begin, self._total - self._begun
        hint = f", about {spent / self._begun * left / 60:.0f} min left" if self._begun else ""
        self._begun += 1
        self._say(f"{words}{hint}")


def run_rounds(bench: Bench, chosen: Sequence[tuple[Server, str]]) -> list[Trial]:
    """Measure all servers in every round. `STOPS` end it early; the trials that are complete count."""
    trials: list[Trial] = []
    progress = Progress(bench.plan.rounds * len(chosen), bench.say)
    try:
        for number in range(1, bench.plan.rounds + 1):
            for server, pixels in chosen:
                progress.trial(f"round {number} of {bench.plan.rounds}: {server.name} ({pixels})")
                trials.append(bench.trial(server, pixels, number))
    except STOPS as error:
        bench.say(f"stopped early {error}")
    return trials


def rate_of(words: str, bare_rate: float) -> float:
    """Turn `120` or `80%` (of the bare loop's rate) into requests per second.

    Raises:
        ValueError: it is neither, or not above 0.
    """
    try:
        rate = float(words.removesuffix("%")) * (bare_rate / 100 if words.endswith("%") else 1)
    except ValueError:
        rate = 0.0
    if not rate > 0:
        raise ValueError(f"{words}: expected requests per second, or a share of the bare loop's rate as `80%`")
    return rate


def check_answer(server: Server, body: bytes, expected: list[dict[str, Any]]) -> None:
    """Check that a server's answer is the expected one (see `agree`).

    Raises:
        WrongAnswerError: it is not.
    """
    try:
        right = agree(server.predictions(json.loads(body)), expected)
    except (ValueError, LookupError, TypeError):
        right = False
    if not right:
        raise WrongAnswerError(
            f"it answers {body[:1000]!r}, but the bare loop with the same pixels {str(expected)[:1000]}"
        )


def told(summary: Summary) -> str:
    """Say in a few words what came of a load."""
    if summary.p50 is None or summary.p99 is None:
        return f"nothing of {summary.requests} requests was answered ({summary.statuses or summary.failures})"
    wrong = f", {summary.errors} errors" if summary.errors else ""
    return f"{summary.rate:.1f}/s, p50 {summary.p50:.1f} ms, p99 {summary.p99:.1f} ms{wrong}"
