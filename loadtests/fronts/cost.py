"""What an image costs: the processor time of each of a server's processes, and what of it is decoding and resizing."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import perf_counter, process_time

import msgspec
import psutil
from msgspec import Struct

from loadtests.client import Limits, Request, closed_loop, fetch, run
from loadtests.percentiles import percentile
from loadtests.processes import spent
from loadtests.target import Target

_FRONT, _ENGINE = "service.bento:ZooServe", "service.engine_process"
_REPEATS = 300
_WARM_S = 2.0


class Cost(Struct, frozen=True):
    """Processor time in milliseconds per image, of a server under load.

    Attributes:
        images: that were answered.
        failed: that were not.
        rate_per_s: answered.
        batch: rows of a run, on average.
        front_ms, engine_ms: of all fronts, and of the engine.
        decode_ms: what decoding and resizing the same image takes, measured apart.
        p50_ms, p99_ms: of the answers.
    """

    images: int
    failed: int
    rate_per_s: float
    batch: float
    front_ms: float
    engine_ms: float
    decode_ms: float
    p50_ms: float
    p99_ms: float


def fronts_of(server: int) -> list[psutil.Process]:
    """Return the processes that speak HTTP, by the id of the process that started them."""
    return _processes(server, _FRONT)


def engine_of(server: int) -> list[psutil.Process]:
    """Return the engine's process, if there is one; the youngest only stands by."""
    return sorted(_processes(server, _ENGINE), key=psutil.Process.create_time)[:1]


def open_files(server: int) -> int:
    """Return how many files all processes of a server have open."""
    process = psutil.Process(server)
    return sum(each.num_fds() for each in [process, *process.children()])


@contextmanager
def apart(fronts: Sequence[psutil.Process], engine: Sequence[psutil.Process]) -> Iterator[None]:
    """Give fronts a core alone, and the engine and this process the others, until the block ends.

    As on a machine with a core for each front. Processes that share a core empty each other's caches, so that the same
    work costs more, and how much more depends on the load. A machine with one core is left as it is.
    """
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        yield
        return
    alone = {min(cores)}
    try:
        for process in fronts:
            _pin(process, alone)
        for process in (*engine, psutil.Process()):
            _pin(process, cores - alone)
        yield
    finally:
        for process in (*fronts, *engine, psutil.Process()):
            _pin(process, cores)


def cost_of(address: Target, server: int, photo: bytes, model: Path, clients: int, seconds: float) -> Cost:
    """Load a server, and share the processor time of its processes out among the images. Its fronts share a core."""
    request = Request("POST", f"/v1/classify?model={model.parent.name}", {"content-type": "image/jpeg"}, photo)
    fronts, engine = fronts_of(server), engine_of(server)
    with apart(fronts, engine):
        run(closed_loop(address, [request], concurrency=clients, limits=Limits(_WARM_S)))
        before = spent(fronts), spent(engine), _batches(address)
        begin = perf_counter()
        load = run(closed_loop(address, [request], concurrency=clients, limits=Limits(seconds)))
        took = perf_counter() - begin
        after = spent(fronts), spent(engine), _batches(address)
    answered = [sample.latency for sample in load.samples if sample.status == 200]
    count = max(1, len(answered))
    rows, runs = (now - then for now, then in zip(after[2], before[2], strict=True))
    return Cost(
        len(answered),
        len(load.samples) - len(answered),
        len(answered) / took,
        rows / max(1, runs),
        1000 * (after[0] - before[0]) / count,
        1000 * (after[1] - before[1]) / count,
        decoding_ms(photo, model),
        1000 * (percentile(answered, 50) or 0.0),
        1000 * (percentile(answered, 99) or 0.0),
    )


def decoding_ms(photo: bytes, model: Path) -> float:
    """Return the processor time in which a server decodes and resizes an image, by the very function that it calls."""
    from service.vision.resize import prepare  # noqa: PLC0415 - only this needs zooserve
    from zoo.card import Recipe  # noqa: PLC0415

    card = msgspec.json.decode((model / "card.json").read_bytes())
    recipe = msgspec.convert(card["recipe"], Recipe)
    begin = 0.0
    for number in range(_REPEATS + _REPEATS // 10):
        if number == _REPEATS // 10:
            begin = process_time()
        prepare(photo, recipe, exact=False, max_pixels=50_000_000)
    return 1000 * (process_time() - begin) / _REPEATS


def metric(address: Target, name: str) -> float:
    """Return the sum of a metric's samples; 0 without any."""
    text = run(fetch(address, Request("GET", "/metrics"))).body.decode()
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE))


def _batches(address: Target) -> tuple[float, float]:
    return metric(address, "zooserve_batch_size_sum"), metric(address, "zooserve_batch_size_count")


def _pin(process: psutil.Process, cores: set[int]) -> None:
    """Let all threads of a process run on these cores alone, as far as it still lives."""
    with suppress(psutil.Error):
        for thread in process.threads():
            with suppress(ProcessLookupError):  # it has just ended
                os.sched_setaffinity(thread.id, cores)


def _processes(server: int, text: str) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(server).children():
        try:
            if child.status() != psutil.STATUS_ZOMBIE and text in child.cmdline():
                found.append(child)
        except psutil.Error:  # it has just ended
            continue
    return found
