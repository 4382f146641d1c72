"""The whole machine: servers, their client and the bare loops use all cores, and nothing is pinned.

Called by `python -m loadtests.compare --machine`. One client is compared with the quickest bare loop of any number of
threads, two clients with two bare loops side by side.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct

from loadtests.client import Load
from loadtests.compare.servers import Server
from loadtests.compare.trial import STOPS, Bench, Plan, Progress, Trial
from loadtests.compare.work import Answer
from loadtests.stats import Summary, summarise

MODELS = ("mobilenet_v2", "yolov4_tiny", "u2netp")
# Measured where they are exported, beside the bare loops only.
ALONE = ("deeplabv3_mobilenet_v2", "yolov8n", "yolov8n_onnx")
_NOT_YET = summarise(Load([], 0.0))
_START_BARE, _START_SERVER = 3.0, 12.0  # seconds that their starts take, for the estimate


class Way(NamedTuple):
    """One way to run bare loops: how many side by side, with how many threads (0: ONNX Runtime's own choice)."""

    copies: int
    threads: int
    spin: bool

    def __str__(self) -> str:
        threads = "default threads" if not self.threads else f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        words = f"{threads}, spinning" if self.spin else threads
        return f"{self.copies} loops, {words} each" if self.copies > 1 else words

    def options(self) -> list[str]:
        """Of `loadtests.compare.bare`."""
        spin = "--spin" if self.spin else "--no-spin"
        return [f"--copies={self.copies}", f"--threads={self.threads}", spin]


class Sweep(Struct, frozen=True):
    """The bare loops of a model at one time, by how each was run (see `Way`): alone, and two side by side."""

    model: str
    round: int
    alone: dict[str, Summary]
    pairs: dict[str, Summary]


class Task(NamedTuple):
    """A model to measure: where, and which servers with which pixels."""

    bench: Bench
    chosen: Sequence[tuple[Server, str]]

    @property
    def model(self) -> str:
        """Its name."""
        return self.bench.model.parent.name


def ways(cores: int) -> list[Way]:
    """Return all ways: 1, 2, 4, ... threads up to the cores, with and without spinning; and pairs.

    One thread has nothing to wait for, so it does not spin.
    """
    counts = sorted({2**n for n in range(1, cores.bit_length()) if 2**n <= cores} | {cores} - {1})
    alone = [Way(1, 1, spin=False), *(Way(1, n, spin) for n in counts for spin in (False, True))]
    return [*alone, Way(2, 1, spin=False), Way(2, 0, spin=True)]


def best(loops: dict[str, Summary]) -> str:
    """Return the name of the loop with the lowest median latency."""
    return min(loops, key=lambda name: loops[name].p50 or float("inf"))


def default_models(store: Path) -> tuple[list[Path], list[Path]]:
    """Return the folders of `MODELS`, and those of `ALONE` that are exported."""
    return [store / name / "1" for name in MODELS], [p for n in ALONE if (p := store / n / "1").is_dir()]


def estimate(plan: Plan, tasks: Sequence[Task]) -> float:
    """Seconds that it will take, about."""
    sweep = len(ways(len(plan.server_cores))) * (plan.bare_seconds + _START_BARE)
    server = _START_SERVER + plan.warm_up + len(plan.concurrency) * plan.seconds
    return plan.rounds * sum(2 * sweep + len(task.chosen) * server for task in tasks)


def run_machine(tasks: Sequence[Task]) -> tuple[list[Trial], list[Sweep]]:
    """Measure all servers with all models in every round, each time beginning with another server.

    `STOPS` end it early; the models of a round that are complete count.
    """
    plan, say = tasks[0].bench.plan, tasks[0].bench.say
    progress = Progress(plan.rounds * sum(len(task.chosen) for task in tasks), say)
    trials: list[Trial] = []
    sweeps: list[Sweep] = []
    answers: dict[tuple[str, str], Answer] = {}
    try:
        for number in range(1, plan.rounds + 1):
            for task in tasks:
                measured, around = _round(task, number, progress, answers)
                trials += measured
                sweeps += around
    except STOPS as error:
        say(f"stopped early {error}")
    return trials, sweeps


def _round(
    task: Task, number: int, progress: Progress, answers: dict[tuple[str, str], Answer]
) -> tuple[list[Trial], list[Sweep]]:
    """One model in one round. The bare loops run just before and just after zooserve."""
    trials: list[Trial] = []
    sweeps: list[Sweep] = []
    for server, pixels in _turned(task.chosen, number):
        progress.trial(f"round {number} of {task.bench.plan.rounds}: {task.model}, {server.name} ({pixels})")
        loop = server.bare_loop(pixels)
        if (task.model, loop) not in answers:
            answers[task.model, loop] = task.bench.bare(loop, 0.0).answer
        trial = Trial(server.name, pixels, number, "", _NOT_YET, model=task.model)
        ours = server.name == "zooserve"
        if ours:
            sweeps.append(_sweep(task, number, loop))
        task.bench.serve(trial, server, answers[task.model, loop])
        if ours:
            sweeps.append(_sweep(task, number, loop))
        trials.append(trial)
    names = [best(sweep.alone) for sweep in sweeps]
    for trial in trials:
        trial.bare_loop = names[0]
        trial.before, trial.after = (sweep.alone[name] for sweep, name in zip(sweeps, names, strict=True))
        trial.pairs = [sweep.pairs[best(sweep.pairs)] for sweep in sweeps]
    return trials, sweeps


def _sweep(task: Task, number: int, loop: str) -> Sweep:
    alone: dict[str, Summary] = {}
    pairs: dict[str, Summary] = {}
    for way in ways(len(task.bench.plan.server_cores)):
        summary = task.bench.bare(loop, None, *way.options()).summary
        (pairs if way.copies > 1 else alone)[str(way)] = summary
    return Sweep(task.model, number, alone, pairs)


def _turned(chosen: Sequence[tuple[Server, str]], number: int) -> Iterator[tuple[Server, str]]:
    first = (number - 1) % len(chosen)
    yield from chosen[first:]
    yield from chosen[:first]
