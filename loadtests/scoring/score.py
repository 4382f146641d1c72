"""Runs `zooserve score` as a user does, follows its progress, and reads its results. Also makes images for it."""

import io
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from PIL import Image

from loadtests.album import SAMPLES, encode, jpeg, standard_photo
from loadtests.compare.process import ServerError

_SCORE = "from scoring.command import score; score()"  # works without an installation, on a PYTHONPATH
_TURNS = (0, 3, 6, 9, 12)  # degrees


class Scored(NamedTuple):
    """A call of the command.

    Attributes:
        code: its exit code; negative: the signal that ended it.
        manifest: its last line; empty where it was ended before.
        seconds: that it took.
        rate: images per second, from when a quarter of them was done until nine tenths were: without starting and
            loading, and with as many parts half done in the end as in the beginning.
        processor_ms: processor time of an image meanwhile, of all processes, in milliseconds.
    """

    code: int
    manifest: dict[str, Any]
    seconds: float
    rate: float
    processor_ms: float

    @property
    def constant_s(self) -> float:
        """Seconds that the command took besides its images: starting, loading, the manifest."""
        images: int = self.manifest["images"]
        return self.seconds - (images / self.rate if self.rate else 0.0)


class Mark(NamedTuple):
    """When so many images were done (`monotonic`), and the processor time that had been spent, in seconds."""

    at: float
    done: int
    busy: float


Watch = Callable[[int, "subprocess.Popen[str]"], None]
"""Is told after each line of progress how many images are done, and the process."""


def score(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    log: Path,
    watch: Watch = lambda _, __: None,
    *,
    before: Sequence[str] = (),
    others: Callable[[], Sequence[psutil.Process]] = tuple,
) -> Scored:
    """Run the command to its end.

    Args:
        arguments: of the command.
        environment: further variables.
        log: for what it says.
        watch: is told the progress.
        before: a command that runs it, with its arguments.
        others: further processes that work for it.
    """
    start, seen, manifest = time.monotonic(), list[Mark](), dict[str, Any]()
    spent = Spent()
    with log.open("ab") as errors:
        process = subprocess.Popen(  # noqa: S603 - ourselves
            [*before, sys.executable, "-c", _SCORE, *arguments, "--json"],
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert process.stdout is not None  # noqa: S101 - a pipe
    for line in process.stdout:
        found = json.loads(line)
        if "runs" in found:
            manifest = found
            continue
        if not seen or found["done"] > seen[-1].done:
            seen.append(Mark(time.monotonic(), found["done"], spent([psutil.Process(process.pid), *others()])))
        watch(found["done"], process)
    code = process.wait()
    return Scored(code, manifest, time.monotonic() - start, *_steady(seen))


def _steady(seen: Sequence[Mark]) -> tuple[float, float]:
    """Return images per second, and milliseconds of processor time per image; 0 where there are too few marks."""
    # The first line is the count before the run. The first parts come while other actors still load, and the last ones
    # when those that were half done at the first mark are done, too: that would count images twice.
    count = seen[-1].done if seen else 0
    marks = [mark for mark in seen[1:] if count / 4 <= mark.done <= count * 0.9]
    if len(marks) < 2:
        return 0.0, 0.0
    first, last = marks[0], marks[-1]
    done = last.done - first.done
    return done / max(last.at - first.at, 1e-9), (last.busy - first.busy) / done * 1e3


class Spent:
    """Sums up the processor time of processes; those that have ended keep what they were seen to have spent."""

    def __init__(self) -> None:
        self._seconds = dict[int, float]()

    def __call__(self, processes: Sequence[psutil.Process]) -> float:
        """Return the seconds that these processes, and those before, have spent."""
        for process in processes:
            with suppress(psutil.Error):
                times = process.cpu_times()
                self._seconds[process.pid] = times.user + times.system
        return sum(self._seconds.values())


def succeeded(found: Scored, log: Path) -> Scored:
    """Return what was scored; raises `ServerError` with what the command said if it failed."""
    if found.code != 0:
        raise ServerError(f"zooserve score ended with {found.code}:\n{log.read_text(errors='replace')[-2000:]}")
    return found


def rows_of(out: Path) -> list[dict[str, Any]]:
    """Return all rows of a folder of results, empty fields left out."""
    from pyarrow import dataset  # noqa: PLC0415 - of the extra `score`; the command's help needs it not

    table = dataset.dataset(out, format="parquet").to_table()
    return [_without_nulls(row) for row in table.to_pylist(maps_as_pydicts="strict")]


def each_once(out: Path, count: int) -> bool:
    """Whether there is exactly one row for each of so many images."""
    from pyarrow import dataset  # noqa: PLC0415 - see above

    addresses = Counter(dataset.dataset(out, format="parquet").to_table(["address"]).column(0).to_pylist())
    return len(addresses) == count and set(addresses.values()) <= {1}


def make_copies(folder: Path, count: int) -> None:
    """Write so many JPEGs of 640 x 480 pixels, each the standard photo with bytes of its own behind it."""
    folder.mkdir(parents=True, exist_ok=True)
    photo = standard_photo()
    for number in range(count):
        (folder / f"{number:06d}.jpg").write_bytes(photo + b"%d" % number)


def make_images(folder: Path, count: int, *, broken_every: int = 0) -> None:
    """Write so many images made from the sample photos: turned, scaled, as JPEG and PNG.

    Args:
        folder: for them.
        count: how many.
        broken_every: every so manieth is cut off; 0: none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for name in SAMPLES:
        with Image.open(io.BytesIO(jpeg(name).data)) as image:
            pixels = image.convert("RGB")
        for turn in _TURNS:
            turned = pixels.rotate(turn).resize((pixels.width // (1 + turn % 2), pixels.height // (1 + turn % 2)))
            made.append((".jpg", encode(turned)))
        out = io.BytesIO()
        pixels.save(out, "PNG")
        made.append((".png", out.getvalue()))
    for number in range(count):
        suffix, data = made[number % len(made)]
        cut = broken_every and number % broken_every == 0
        (folder / f"{number:06d}{suffix}").write_bytes(data[:300] if cut else data)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(one) for key, one in value.items() if one is not None}
    return [_without_nulls(one) for one in value] if isinstance(value, list) else value
