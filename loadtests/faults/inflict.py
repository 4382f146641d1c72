"""The faults, and what is done to a server of their own under load."""

import asyncio
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from time import perf_counter

import msgspec
import psutil
from msgspec import Struct

from loadtests.album import jpeg
from loadtests.client import Request, fetch, run
from loadtests.compare.process import ServerError
from loadtests.faults.load import Clients, Outcome
from loadtests.serving import serving
from loadtests.target import Target
from zoo.served_card import read_served_card
from zoo.store import Store

MODEL = "mobilenet_v2"
CLIENTS = 8
BEFORE = 2.0  # seconds of load before the fault
_KEY = "faults"


class Stage(Struct):
    """What a fault has at hand: the server, its store, the folder of its clock, and the load."""

    address: Target
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
    assert isinstance(card.golden, tuple)  # noqa: S101 - it takes images
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
            _, writer = await asyncio.open_connection(stage.address.ip, stage.address.port)
            writer.write(b"POST /v1/classify HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n")
            for _ in range(6):
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(1.0)
            writer.close()

    await asyncio.gather(*(one() for _ in range(300)))


async def connect_idly(stage: Stage) -> None:
    """More connections than are served, which ask nothing."""
    writers = [(await asyncio.open_connection(stage.address.ip, stage.address.port))[1] for _ in range(2100)]
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


async def _watch(fault: Fault, address: Target, pid: int, folder: Path) -> Outcome:
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
