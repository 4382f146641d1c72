"""`python -m loadtests.fronts`: what front processes cost, and what is lost when one, or the engine, is killed.

Cost and hand-over are measured with a simulated GPU (`tests/service/engine/cuda_stub`): kernels take 1 ms and 0.1 ms
per image, and compute nothing. Latency beside one process, and kills, are measured on the CPU.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import sleep

import click
from msgspec import Struct
from PIL import Image

from loadtests.album import encode
from loadtests.client import Limits, Request, closed_loop, run
from loadtests.compare.process import ServerError
from loadtests.fronts.cost import Cost, cost_of, engine_of, fronts_of, metric, open_files
from loadtests.fronts.kills import Kills, kill, listens, ready
from loadtests.fronts.simulated import UnavailableError, simulated_gpu
from loadtests.goals import Goal, verdict
from loadtests.options import json_option, model_option
from loadtests.percentiles import percentile
from loadtests.report import machine, write_report
from loadtests.serving import serving
from loadtests.target import Target

_PACKAGES = ("zooserve", "onnxruntime", "bentoml", "uvicorn", "numpy")
PARTS = ("cost", "handover", "spread", "kills", "latency")
_RUN_US = "1:1100,32:4200"  # 1 ms, and 0.1 ms per image
_SLOW_US = "1:4000,32:7000"  # so slow that batches fill
_PHOTO = Path(__file__).parents[2] / "docs" / "coffee.jpg"
_CORES = 16
_CLIENTS, _WAVE = 32, 64
_ROUNDS = 3
_FEW = 10  # files that may be open for a moment
_START_S = 0.3  # of an engine, besides loading the model
_STANDS_BY_S = 2.0  # after the start; then all fronts listen, and an engine stands by in the place of the one that runs
_EXAMPLES = """
\b
Examples:
  python -m loadtests.fronts                              all of it, some twenty minutes
  python -m loadtests.fronts --only handover --only cost  with the simulated GPU alone
  python -m loadtests.fronts --only kills --front-kills 10 --engine-kills 2
"""


class Outcome(Struct):
    """What was measured; None where it was left out.

    Attributes:
        one: of a server with one front.
        light: of the same, with an image that is decoded in a tenth of the time.
        engine: processor time of the engine per image in milliseconds, and rows of a run, when batches are full.
        handover_ms: p50 and p99.
        connections: of 64 that are opened at once, how many each of two fronts has.
        front_kills, engine_kills: with two fronts.
        files: open in all processes of the server before all kills, and after them.
        load_s: the time in which the model of the kills is loaded.
        latency_ms: p50 of one client, by round: one process, one front.
    """

    one: Cost | None = None
    light: Cost | None = None
    engine: tuple[float, float] | None = None
    handover_ms: tuple[float, float] | None = None
    connections: list[int] | None = None
    front_kills: Kills | None = None
    engine_kills: Kills | None = None
    files: tuple[int, int] | None = None
    load_s: float | None = None
    latency_ms: list[tuple[float, float]] = []


@click.command(epilog=_EXAMPLES)
@model_option("--model", "mobilenet_v2", "classifier")
@click.option("--only", "parts", multiple=True, type=click.Choice(PARTS), help="Parts to measure.  [default: all]")
@click.option("--seconds", default=15.0, show_default=True, type=click.FloatRange(1), help="Of each load.")
@click.option("--images", default=2000, show_default=True, type=click.IntRange(10), help="Of the hand-over.")
@click.option("--front-kills", default=100, show_default=True, type=click.IntRange(1), help="SIGKILLs of a front.")
@click.option("--engine-kills", default=20, show_default=True, type=click.IntRange(1), help="SIGKILLs of an engine.")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1), help="Of the latency.")
@json_option()
def main(
    model: Path,
    parts: tuple[str, ...],
    seconds: float,
    images: int,
    front_kills: int,
    engine_kills: int,
    rounds: int,
    json_path: Path | None,
) -> None:
    """Measure front processes and the engine behind them.

    Cost and hand-over are measured with a simulated GPU, which needs gcc; all else runs on the CPU. What a front costs
    is measured on a core that it has alone.
    """
    before, outcome = machine(), Outcome()
    chosen = parts or PARTS
    try:
        with TemporaryDirectory() as folder:
            trial = Trial(model.resolve(), Path(folder), seconds)
            if "cost" in chosen:
                outcome.one, outcome.light = trial.cost()
                outcome.engine = trial.engine(images)
            if "handover" in chosen:
                outcome.handover_ms = trial.handover(images)
            if "spread" in chosen:
                outcome.connections = trial.spread()
            if "kills" in chosen:
                trial.kills(outcome, front_kills, engine_kills)
            if "latency" in chosen:
                outcome.latency_ms = trial.latency(rounds)
    except (ServerError, UnavailableError) as error:
        raise click.ClickException(str(error)) from error
    for goal in goals(outcome):
        click.echo(str(goal))
    settings = {"model": model.parent.name, "seconds": seconds, "run_us": _RUN_US, "slow_run_us": _SLOW_US}
    write_report(json_path, "fronts", before, _PACKAGES, settings, outcome)


class Trial:
    """Starts servers, and measures them.

    Args:
        model: the folder of an exported classifier.
        folder: for logs and the simulated GPU.
        seconds: of each load.
    """

    def __init__(self, model: Path, folder: Path, seconds: float) -> None:
        self._model, self._folder, self._seconds = model, folder, seconds
        photo = Image.open(_PHOTO)
        self._photo, light = encode(photo.resize((640, 480)), 90), encode(photo.resize((64, 64)), 90)
        self._light = light + bytes(len(self._photo) - len(light))  # what follows the end of a JPEG is not read
        self._request = Request(
            "POST", f"/v1/classify?model={model.parent.name}", {"content-type": "image/jpeg"}, self._photo
        )

    def cost(self) -> tuple[Cost, Cost]:
        """Measure the processor time of an image, and of one of as many bytes and few pixels: the median of rounds.

        With a simulated GPU and one front. What an image costs besides decoding is read off the second: of the first it
        is the difference of two large numbers, each of which changes from run to run.
        """
        with self._serving(1, simulated_gpu(self._folder, _RUN_US)) as (address, process):

            def middle(photo: bytes) -> Cost:
                rounds = range(_ROUNDS)
                found = [cost_of(address, process, photo, self._model, _CLIENTS, self._seconds) for _ in rounds]
                return sorted(found, key=lambda cost: cost.front_ms)[_ROUNDS // 2]

            return middle(self._photo), middle(self._light)

    def engine(self, images: int) -> tuple[float, float]:
        """Measure the processor time of the engine, when batches are full, and the rows of a run: the median of rounds.

        Without the copies to the simulated GPU: a real one makes them itself.
        """
        rounds = [self._without_http(_SLOW_US, images, _WAVE, {"STUB_COPIES": "0"}) for _ in range(_ROUNDS)]
        milliseconds, rows = sorted(rounds)[_ROUNDS // 2]
        return milliseconds, rows

    def handover(self, images: int) -> tuple[float, float]:
        """Measure the hand-over with a simulated GPU: p50 and p99 in milliseconds."""
        found = self._without_http(_RUN_US, images, 0, {})
        return percentile(found, 50) or 0.0, percentile(found, 99) or 0.0

    def _without_http(self, run_us: str, images: int, wave: int, more: dict[str, str]) -> list[float]:
        command = [sys.executable, "-m", "loadtests.fronts.handover"]
        command += [str(self._model.parents[1]), self._model.parent.name, str(images), str(wave)]
        environment = os.environ | simulated_gpu(self._folder, run_us) | self._settings(1) | more
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            raise ServerError(f"the engine could not be measured:\n{done.stderr[-2000:]}")
        found: list[float] = json.loads(done.stdout)
        return found

    def spread(self) -> list[int]:
        """Open 64 connections to two fronts at once; return how many each has."""
        with self._serving(2, {}) as (address, process):
            sleep(_STANDS_BY_S)  # the server is ready when the first front is

            async def open_all() -> list[int]:
                load = closed_loop(address, [self._request], concurrency=64, limits=Limits(3.0))
                asked = asyncio.create_task(load)
                await asyncio.sleep(1.5)
                found = [
                    sum(each.status == "ESTABLISHED" for each in front.net_connections("tcp"))
                    for front in fronts_of(process)
                ]
                await asked
                return found

            return run(open_all())

    def kills(self, outcome: Outcome, fronts: int, engines: int) -> None:
        """Kill fronts, then engines, of a server with two fronts."""
        with self._serving(2, {}) as (address, process):

            def whole() -> bool:
                found = fronts_of(process)
                return len(found) == 2 and all(listens(each, address.port) for each in found) and ready(address)

            sleep(_STANDS_BY_S)
            before = open_files(process)
            outcome.front_kills = kill(address, lambda: fronts_of(process), fronts, self._request, 8, whole)
            find = partial(engine_of, process)
            outcome.engine_kills = kill(address, find, engines, self._request, 8, whole, _STANDS_BY_S)
            sleep(_STANDS_BY_S)
            outcome.files = before, open_files(process)
            count = metric(address, "zooserve_model_load_seconds_count")
            outcome.load_s = metric(address, "zooserve_model_load_seconds_sum") / max(1.0, count)

    def latency(self, rounds: int) -> list[tuple[float, float]]:
        """Measure one client's p50 of one process and of one front, in turns; on the CPU."""
        with self._serving(0, {}) as (alone, _), self._serving(1, {}) as (fronted, _):
            return [(self._p50(alone), self._p50(fronted)) for _ in range(rounds)]

    def _p50(self, address: Target) -> float:
        limits = Limits(min(5.0, self._seconds))
        load = run(closed_loop(address, [self._request], concurrency=1, limits=limits))
        return 1000 * (percentile([each.latency for each in load.samples if each.status == 200], 50) or 0.0)

    def _serving(self, fronts: int, more: Mapping[str, str]) -> AbstractContextManager[tuple[Target, int]]:
        return serving(self._folder / f"log-{fronts}", self._settings(fronts) | dict(more))

    def _settings(self, fronts: int) -> dict[str, str]:
        return {
            "ZOOSERVE_MODELS": str(self._model.parents[1]),
            "ZOOSERVE_LOAD": self._model.parent.name,
            "ZOOSERVE_FRONTS": str(fronts),
            "ZOOSERVE_WATCH_S": "0",
            "ZOOSERVE_DRAIN_S": "0",
        }


def goals(outcome: Outcome) -> list[Goal]:
    """Return each figure with its goal."""
    found = []

    def goal(what: str, text: str, *, met: bool) -> None:
        found.append(Goal(what, text, verdict(met)))

    if cost := outcome.light:
        own = cost.front_ms - cost.decode_ms
        text = f"{own:.3f} ms (all {cost.front_ms:.3f}, decoding {cost.decode_ms:.3f}; {cost.rate_per_s:.0f}/s)"
        goal("front, processor time per image besides decoding <= 0.35 ms", text, met=own <= 0.35)
    if outcome.engine:
        each, rows = outcome.engine
        goal("engine, processor time per image <= 0.04 ms", f"{each:.3f} ms (batches of {rows:.1f})", met=each <= 0.04)
    if outcome.one and outcome.engine:
        both = outcome.one.front_ms + outcome.engine[0]
        on_cpu, on_gpu = (_CORES * 1000 / (both - less) for less in (0.0, outcome.one.decode_ms))
        goal(f"images/s on {_CORES} cores, by arithmetic >= 7,000", f"{on_cpu:,.0f}", met=on_cpu >= 7000)
        goal("the same, decoding on the GPU >= 12,000", f"{on_gpu:,.0f}", met=on_gpu >= 12_000)
    if outcome.handover_ms:
        p50, p99 = outcome.handover_ms
        goal("hand-over p50 <= 0.15 ms, p99 <= 0.5 ms", f"{p50:.3f}, {p99:.3f}", met=p50 <= 0.15 and p99 <= 0.5)
    if counts := outcome.connections:
        goal("64 connections at two fronts: none has more than 40", f"{counts}", met=max(counts) <= 40)
    for name, kills, limit in (
        ("front", outcome.front_kills, 1.0),
        ("engine", outcome.engine_kills, (outcome.load_s or 0.0) + _START_S),
    ):
        if kills is None:
            continue
        text = (
            f"{kills.answered} answered, {kills.broken} broken (at most {kills.most_broken} by one, {kills.beyond} of "
            f"others), {kills.unready} times 503, {kills.others} others"
        )
        met = kills.others == 0 and kills.beyond == 0
        goal(f"{kills.kills} kills, {name}: only what it had in hand fails", text, met=met)
        text = f"no answer for {kills.silence_s[0]:.2f} s (longest {kills.silence_s[1]:.2f}), "
        text += f"all processes after {kills.whole_s[0]:.2f} s (longest {kills.whole_s[1]:.2f})"
        goal(f"answers again within {limit:.2f} s", text, met=kills.silence_s[0] <= limit)
    if outcome.files:
        before, after = outcome.files
        goal("no file is left open after all kills", f"{before} before, {after} after", met=after <= before + _FEW)
    if outcome.latency_ms:
        ratio = median(fronted / alone for alone, fronted in outcome.latency_ms)
        text = f"{ratio:.3f} (p50 {median(each[0] for each in outcome.latency_ms):.2f} ms in one process)"
        goal("one front over one process, p50 of one client on the CPU <= 1.05", text, met=ratio <= 1.05)
    return found


if __name__ == "__main__":
    main()
