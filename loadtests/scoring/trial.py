"""What is measured of `zooserve score`: answers, throughput, kills, memory, bad sources."""

import json
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from msgspec import Struct

from loadtests.album import standard_photo
from loadtests.client import Request, fetch, run
from loadtests.compare.bare import BareLoop, bare_loop
from loadtests.processes import resident
from loadtests.scoring.nodes import Nodes, cluster
from loadtests.scoring.score import (
    Scored,
    Watch,
    each_once,
    make_copies,
    make_images,
    rows_of,
    score,
    succeeded,
)
from loadtests.serving import serving
from loadtests.target import Target

_CORES = 2  # that the nodes have together
_MOMENTS = (0.1, 0.5, 0.8)
_WITHOUT_RIGHTS = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")  # root reads everything otherwise
_TIMEOUT = 5
Say = Callable[[str], None]


class Speed(Struct, frozen=True):
    """How fast one way of answering is; medians over the rounds.

    Attributes:
        rate: images per second, once all is loaded.
        ratio: of `rate` to that of bare loops just before and after.
        processor_ms: processor time of an image, of all processes. It changes less than `rate` on a busy machine.
        constant_s: seconds that a command takes besides its images.
    """

    rate: float
    ratio: float
    processor_ms: float
    constant_s: float


class Throughput(Struct, frozen=True):
    """Two bare loops side by side, local mode on all cores, and two nodes."""

    bare: Speed
    local: Speed
    nodes: Speed


class Kill(Struct, frozen=True):
    """What was killed, when (share of the images that were done), and whether every image has one row afterwards."""

    what: str
    at: float
    whole: bool
    seconds: float


class Memory(Struct, frozen=True):
    """Most resident memory in MB of driver and actors, of a small and of a large source."""

    images: tuple[int, int]
    driver_mb: tuple[float, float]
    actors_mb: tuple[float, float]


class Bad(Struct, frozen=True):
    """A source with bad images: how many there are of each kind, and the rows with the error that is expected."""

    kind: str
    expected: int
    found: int


async def _says_the_same(address: Target, row: dict[str, Any]) -> bool:
    """Whether a server answers about a row's image as the row says."""
    data = Path(row["address"]).read_bytes()
    path = f"/v1/{row['task']}?model={row['model']}"
    answer = await fetch(address, Request("POST", path, {"Content-Type": "image/*"}, data), timeout=60.0)
    said = json.loads(answer.body)
    if answer.status == 200:
        return bool(row.get("predictions") == said["predictions"] and row["image"] == said["image"])
    return bool(row.get("error") == {name: said[name] for name in ("status", "reason", "detail")})


class Trial:
    """Scores with exported models.

    Args:
        models: the folder of exported models.
        folder: for images and results.
        say: is told what is under way.
    """

    def __init__(self, models: Path, folder: Path, say: Say) -> None:
        self._models, self._folder, self._say = models.absolute(), folder, say
        self._log, self._number = folder / "log", 0
        self._environment = {"ZOOSERVE_MODELS": str(self._models)}

    def identical(self, model: str, count: int) -> tuple[int, int]:
        """Score images made from the sample photos, and ask a server about each; return equal rows and all rows."""
        self._say(f"{model}: {count} images, scored and asked of a server")
        images = self._folder / f"samples-{count}"
        make_images(images, count, broken_every=25)
        out = self._out()
        self._score(model, str(images), out)
        rows = rows_of(out)
        settings = self._environment | {"ZOOSERVE_LOAD": model}
        with serving(self._folder / "server.log", settings) as (address, _):

            async def ask() -> int:
                return sum([await _says_the_same(address, row) for row in rows])

            return run(ask()), len(rows)

    def throughput(self, model: str, count: int, rounds: int, seconds: float) -> Throughput:
        """Compare with two bare loops side by side, before and after each run."""
        images = self._copies(count)
        part = str(min(256, max(8, count // 20)))  # 256 is the command's own
        bare, local, nodes = list[BareLoop](), list[tuple[Scored, float]](), list[tuple[Scored, float]]()

        def loops() -> float:
            folder = str(next((self._models / model).glob("[0-9]*")))
            bare.append(bare_loop("zooserve", standard_photo(), folder, seconds, copies=_CORES))
            return bare[-1].summary.rate

        with cluster(_CORES) as ray:
            for number in range(rounds):
                self._say(f"{model}: throughput, round {number + 1} of {rounds}")
                before = loops()
                here = self._score(model, images, self._out(), "--part-size", part)
                between = loops()
                there = self._on(ray, model, images, self._out(), "--part-size", part)
                after = loops()
                local.append((here, here.rate / ((before + between) / 2)))
                nodes.append((there, there.rate / ((between + after) / 2)))
        of_bare = Speed(median(one.summary.rate for one in bare), 1.0, median(one.processor_ms for one in bare), 0.0)
        return Throughput(of_bare, _speed(local), _speed(nodes))

    def kills(self, model: str, count: int) -> Iterator[Kill]:
        """Kill an actor, a node and the driver at three moments each; the driver's command is then given again."""
        images = self._copies(count)
        part = str(max(4, count // 40))
        for what in ("actor", "node", "driver"):
            for at in _MOMENTS:
                self._say(f"SIGKILL of {what} at {at:.0%}")
                out = self._out()
                with cluster(_CORES) as ray:
                    watch = Killer(ray, what, int(at * count))
                    found = self._on(
                        ray, model, images, out, "--part-size", part, watch=watch, may_fail=what == "driver"
                    )
                    took = found.seconds
                    if what == "driver":
                        took += self._on(ray, model, images, out, "--part-size", part).seconds
                yield Kill(what, at, watch.done and each_once(out, count), round(took, 1))

    def memory(self, model: str, small: int, large: int) -> Memory:
        """Watch the memory of driver and actors with a small and a large source."""
        drivers, actors = list[float](), list[float]()
        for count in (small, large):
            self._say(f"{model}: memory with {count} images")
            images = self._copies(count)
            with cluster(_CORES) as ray:
                most = Most(ray)
                self._on(ray, model, images, self._out(), watch=most)
            drivers.append(round(most.driver / 1e6, 1))
            actors.append(round(most.actors / 1e6, 1))
        return Memory((small, large), (drivers[0], drivers[1]), (actors[0], actors[1]))

    def bad(self, model: str, count: int) -> list[Bad]:
        """Score a source with broken files, a folder that cannot be read and an address that never answers."""
        self._say(f"{model}: broken files, an unreadable folder, an address that never answers")
        images = self._folder / "bad"
        make_images(images, count, broken_every=100)
        closed = images / "closed"
        closed.mkdir(mode=0)
        listed = self._folder / "bad.txt"
        with _silent() as silent, cluster(_CORES) as ray:
            paths = [str(path) for path in sorted(images.iterdir())]
            listed.write_text("\n".join([*paths, silent]))
            out, out_of_folder = self._out(), self._out()
            self._on(ray, model, str(listed), out, "--timeout", str(_TIMEOUT))
            before = _WITHOUT_RIGHTS if shutil.which(_WITHOUT_RIGHTS[0]) else ()
            found = score(
                [model, str(images), "--out", str(out_of_folder)], self._environment, self._log, before=before
            )
            succeeded(found, self._log)
        closed.chmod(0o700)
        reasons = [(row["address"], row.get("error", {}).get("reason")) for row in rows_of(out)]
        of_folder = {row["address"]: row.get("error", {}).get("reason") for row in rows_of(out_of_folder)}
        broken = -(-count // 100)
        return [
            Bad("broken files", broken, sum(reason in ("undecodable", "not_an_image") for _, reason in reasons)),
            Bad("an unreadable folder", 1, int(of_folder.get(str(closed)) == "unreadable")),
            Bad("an address that never answers", 1, int((silent, "unreadable") in reasons)),
            Bad("all rows of the list", count + 2, len(reasons)),
            Bad("all rows of the folder", count + 1, len(of_folder)),
        ]

    def _copies(self, count: int) -> str:
        images = self._folder / f"copies-{count}"
        if not images.exists():
            make_copies(images, count)
        return str(images)

    def _out(self) -> Path:
        self._number += 1
        return self._folder / f"results-{self._number}"

    def _score(self, model: str, source: str, out: Path, *options: str) -> Scored:
        return succeeded(score([model, source, "--out", str(out), *options], self._environment, self._log), self._log)

    def _on(
        self,
        ray: Nodes,
        model: str,
        source: str,
        out: Path,
        *options: str,
        watch: Watch = lambda _, __: None,
        may_fail: bool = False,
    ) -> Scored:
        arguments = [model, source, "--out", str(out), "--ray", ray.address, "--patience", "300", *options]
        found = score(arguments, self._environment | ray.environment, self._log, watch, others=ray.processes)
        return found if may_fail else succeeded(found, self._log)


def _speed(found: list[tuple[Scored, float]]) -> Speed:
    return Speed(
        median(one.rate for one, _ in found),
        median(ratio for _, ratio in found),
        median(one.processor_ms for one, _ in found),
        median(one.constant_s for one, _ in found),
    )


class Killer:
    """Kills an actor, a node or the driver as soon as so many images are done."""

    def __init__(self, ray: Nodes, what: str, at: int) -> None:
        self._ray, self._what, self._at = ray, what, at
        self.done = False

    def __call__(self, done: int, driver: "subprocess.Popen[str]") -> None:
        if self.done or done < max(1, self._at):
            return
        self.done = True
        if self._what == "actor":
            self._ray.actors()[0].kill()
        elif self._what == "node":
            self._ray.kill_node(_CORES - 1)
        else:
            driver.kill()


class Most:
    """Notes the most memory that driver and actors have."""

    def __init__(self, ray: Nodes) -> None:
        self._ray = ray
        self.driver = self.actors = 0

    def __call__(self, done: int, driver: "subprocess.Popen[str]") -> None:
        if done:
            self.driver = max(self.driver, resident([psutil.Process(driver.pid)]))
            self.actors = max(self.actors, resident(self._ray.actors()))


@contextmanager
def _silent() -> Iterator[str]:
    """Listen, and never answer. Yields an address."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/never.jpg"
