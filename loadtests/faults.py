"""`python -m loadtests.faults`: what a service loses when something breaks, fault by fault, under a steady load.

Every fault has a server of its own and clients that ask without a pause. Lost is what the server took in and never
answered; who was refused with a reason, or could not connect, lost nothing. The exit code is 1 where more was lost than
a killed process had in hand.
"""

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from time import perf_counter

import click
import msgspec
import psutil
from msgspec import Struct
from rich.console import Console

from loadtests.album import jpeg
from loadtests.client import Address, Connection, Request, fetch, run
from loadtests.compare.process import ServerError
from loadtests.percentiles import percentile
from loadtests.report import Report, machine, markdown_table, report, versions, write_json
from loadtests.serving import serving
from zoo.served_card import read_served_card
from zoo.store import Store

MODEL = "mobilenet_v2"
CLIENTS = 8
BEFORE = 2.0  # seconds of load before the fault
RESULTS = Path(__file__).parent / "results"
_TIMEOUT = 20.0  # seconds; an answer that takes longer counts as lost
_PROBE_TIMEOUT = 1.0  # seconds, Kubernetes' default
_KEY = "faults"


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

    def __init__(self, address: Address, requests: Sequence[Request]) -> None:
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


class Stage(Struct):
    """What a fault has at hand: the server, its store, the folder of its clock, and the load."""

    address: Address
    pid: int
    store: Path
    folder: Path
    clients: Clients

    async def admin(self, path: str) -> None:
        """Call an administrator's route."""
        await fetch(self.address, Request("POST", path, {"Authorization": f"Bearer {_KEY}"}), 60.0)

    def workers(self) -> list[psutil.Process]:
        """The server processes: the children of the arbiter, or the only process."""
        root = psutil.Process(self.pid)
        return [child for child in root.children() if "service" in " ".join(child.cmdline())] or [root]


class Fault(Struct):
    """A fault: what is done, under which settings, and how long it is watched."""

    name: str
    act: Callable[[Stage], Awaitable[None]]
    seconds: float = 6.0
    settings: dict[str, str] = {}
    ends: bool = False  # the server ends, and is started again
    kills: bool = False  # what a process has in hand is lost with it


async def terminate(stage: Stage) -> None:
    os.kill(stage.pid, signal.SIGTERM)


async def kill(stage: Stage) -> None:
    stage.workers()[0].kill()


async def publish(stage: Stage, *, version: str = "2", broken: bool = False) -> None:
    source = stage.store / MODEL / "1"
    card = msgspec.structs.replace(read_served_card(source / "card.json"), version=version)
    assert isinstance(card.golden, tuple)  # noqa: S101 - it takes pictures
    if broken:  # it claims other answers than it gives
        wrong = [msgspec.structs.replace(golden.predictions[0], class_id=5, label="5") for golden in card.golden]
        golden = [msgspec.structs.replace(g, predictions=(w,)) for g, w in zip(card.golden, wrong, strict=True)]
        card = msgspec.structs.replace(card, golden=tuple(golden))
    files = {name: source / name for name in ("model.onnx", *(f"golden/{g.photo}" for g in card.golden))}
    await asyncio.to_thread(Store(stage.store).publish, card, files)


async def publish_broken(stage: Stage) -> None:
    await publish(stage, broken=True)


async def remove_folder(stage: Stage) -> None:
    await asyncio.to_thread(shutil.rmtree, stage.store / MODEL)


async def unload_and_load(stage: Stage) -> None:
    await stage.admin(f"/v1/models/{MODEL}/unload")
    await asyncio.sleep(1.0)
    await stage.admin(f"/v1/models/{MODEL}/load")


async def fill_disk(stage: Stage) -> None:
    """No file can be written any more, the log's included."""
    for process in stage.workers():
        process.rlimit(psutil.RLIMIT_FSIZE, (0, 0))


async def move_clock(stage: Stage) -> None:
    for shift in ("86400", "-86400", "0"):
        (stage.folder / "clock").write_text(shift)
        await asyncio.sleep(1.0)


async def dribble(stage: Stage) -> None:
    """300 clients that send a byte a second."""

    async def one() -> None:
        with suppress(OSError):
            _, writer = await asyncio.open_connection(*stage.address)
            writer.write(b"POST /v1/classify HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n")
            for _ in range(6):
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(1.0)
            writer.close()

    await asyncio.gather(*(one() for _ in range(300)))


async def connect_idly(stage: Stage) -> None:
    """More connections than are served, which ask nothing."""
    writers = [(await asyncio.open_connection(*stage.address))[1] for _ in range(2100)]
    await asyncio.sleep(4.0)
    for writer in writers:
        writer.close()


async def rush(stage: Stage) -> None:
    stage.clients.add(120)


_TWO = {"ZOOSERVE_WORKERS": "2"}
FAULTS = [
    Fault("SIGTERM at full load", terminate, 8.0, {"ZOOSERVE_DRAIN_S": "1"}, ends=True),
    Fault("SIGTERM at full load, two processes", terminate, 8.0, {"ZOOSERVE_DRAIN_S": "1", **_TWO}, ends=True),
    Fault("SIGKILL of the only process", kill, 20.0, kills=True),
    Fault("SIGKILL of one of two processes", kill, 20.0, _TWO, kills=True),
    Fault("a new version is published", publish),
    Fault("a new version that answers wrongly is published", publish_broken),
    Fault("the model's folder is removed", remove_folder),
    Fault("the model is unloaded, and loaded again 1 s later", unload_and_load),
    Fault("the disk is full, for the log too", fill_disk),
    Fault("the wall clock jumps a day ahead, and two back", move_clock, 4.0),
    Fault("300 clients that send a byte a second", dribble, 1.0),
    Fault("2,100 idle connections (2,000 are served)", connect_idly, 2.0),
    Fault("128 clients on a queue of 32", rush, settings={"ZOOSERVE_MAX_QUEUE": "32"}),
]
# Python runs it at its start. It moves what `time.time()` says, as an administrator or a broken NTP server would.
_CLOCK = """
import os, time
_real, _file = time.time, os.environ["FAULTS_CLOCK"]
def _moved():
    try:
        with open(_file) as file:
            return _real() + float(file.read() or 0)
    except OSError:
        return _real()
time.time = _moved
"""


def inflict(fault: Fault, models: Path) -> Outcome:
    """Start a server, load it, do it, and see what happens."""
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        folder = Path(name)
        shutil.copytree(models / MODEL, folder / "models" / MODEL)
        settings = {
            "ZOOSERVE_MODELS": str(folder / "models"),
            "ZOOSERVE_WATCH_S": "0.5",
            "ZOOSERVE_ADMIN_KEYS": _KEY,
            "ZOOSERVE_DRAIN_S": "0.1",
            **fault.settings,
        }
        if fault.act is move_clock:
            (folder / "site").mkdir()
            (folder / "site" / "sitecustomize.py").write_text(_CLOCK)
            settings |= {"FAULTS_CLOCK": str(folder / "clock"), "PYTHONPATH": f"{folder / 'site'}:{Path.cwd()}"}
        outcome: Outcome | None = None
        try:
            with serving(folder / "log", settings) as (address, pid):
                time.sleep(3.0 if fault.settings.get("ZOOSERVE_WORKERS") else 0)  # the other one is ready, too
                outcome = run(_watch(fault, address, pid, folder))
        except ServerError:
            if not fault.ends or outcome is None:
                raise
        if fault.ends:  # as Kubernetes or a restart policy would
            begin = time.monotonic()
            with serving(folder / "log", settings):
                outcome.ready_s = time.monotonic() - begin
        return outcome


async def _watch(fault: Fault, address: Address, pid: int, folder: Path) -> Outcome:
    small, large = jpeg("coffee", (640, 480)), jpeg("coffee", (3000, 2000))
    part = b'--x\r\ncontent-disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n%b\r\n--x--\r\n' % large.data
    requests = [Request("POST", "/v1/classify", {"Content-Type": "image/jpeg"}, small.data)] * 20
    requests.append(Request("POST", "/v1/classify", {"Content-Type": "multipart/form-data; boundary=x"}, part))
    clients = Clients(address, requests)
    clients.add(CLIENTS)
    clients.watch()
    await asyncio.sleep(BEFORE)
    stage = Stage(address, pid, folder / "models", folder, clients)
    begin = perf_counter()
    await fault.act(stage)
    await asyncio.sleep(fault.seconds)
    await clients.end()
    return clients.outcome(fault.name, begin)


def table(outcomes: Sequence[Outcome]) -> str:
    """Lay out the table of the documentation."""
    header = (
        "what was done",
        "answered",
        "refused",
        "turned away",
        "lost",
        "longest silence",
        "ready again",
        "p99 before",
        "after",
    )
    rows = [
        (
            o.fault,
            f"{o.answered:,}",
            ", ".join(f"{count:,} x {status}" for status, count in o.refused.items()) or "0",
            f"{o.turned_away:,}",
            str(o.lost),
            f"{o.silence_s:.2f} s",
            f"{o.ready_s:.1f} s" if o.ready_s else "always",
            f"{o.p99_ms[0]:.0f} ms",
            f"{o.p99_ms[1]:.0f} ms",
        )
        for o in outcomes
    ]
    return markdown_table(header, rows)


def page(result: Report) -> str:
    """Lay out the table with where and how it was made."""
    where = result.machine
    return (
        f"# Faults\n\nAs printed by `{result.command}` on {result.date[:10]}: {where.cores} cores, shared with other "
        f"work (load average {where.load:g} at the start), {MODEL}, {CLIENTS} clients.\n\n{table(result.details)}\n"
    )


@click.command()
@click.option("--models", type=click.Path(path_type=Path, exists=True), default=Path("models"), show_default=True)
@click.option("--only", default="", help="Faults whose name contains this.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the table.")
@click.option("--out", type=click.Path(path_type=Path), default=RESULTS, show_default="loadtests/results")
def main(models: Path, only: str, as_json: bool, out: Path) -> None:
    """Do one fault after another to real servers, and say what was lost."""
    where, console = machine(), Console(stderr=True)
    outcomes, excess = [], False
    for fault in FAULTS:
        if only in fault.name:
            console.print(f"{fault.name} ...", highlight=False)
            outcomes.append(inflict(fault, models.resolve()))
            excess |= outcomes[-1].lost > (CLIENTS if fault.kills else 0)
    settings = {"model": MODEL, "clients": CLIENTS, "seconds_before": BEFORE}
    result = report("faults", sys.argv[1:], where, versions(("bentoml", "onnxruntime", "uvicorn")), settings, outcomes)
    click.echo(json.dumps(msgspec.to_builtins(result), indent=2) if as_json else table(outcomes))
    if not only:
        write_json(out / "faults.json", result)
        (out / "faults.md").write_text(page(result), encoding="utf-8")
    sys.exit(int(excess))


if __name__ == "__main__":
    main()
