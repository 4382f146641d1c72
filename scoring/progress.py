"""Shows how far a run is: a bar for people, a line of JSON a second for programs."""

import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Protocol

import msgspec
from msgspec import Struct
from rich import progress as bars
from rich.console import Console

_EVERY_S, _WINDOW_S = 1.0, 30.0


class Status(Struct, frozen=True):
    """How far a run is.

    Attributes:
        images: that there are.
        done: rows in complete files, also of earlier runs.
        failed: rows that are errors.
        rate_per_s: images per second in the last half minute; 0: not known yet.
        left_s: seconds that are left at this rate; None: not known.
    """

    images: int
    done: int
    failed: int
    rate_per_s: float = 0.0
    left_s: float | None = None


class Show(Protocol):
    """Is told the totals after each part."""

    def __call__(self, images: int, done: int, failed: int) -> None: ...


class _Rate:
    """Images per second over the last seconds, from the first part that was done: loading the model does not count."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()
        self._before = -1

    def __call__(self, done: int) -> float:
        now = monotonic()
        if self._before < 0:
            self._before = done
        if done > self._before:
            self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[0][0] > _WINDOW_S:
            self._seen.popleft()
        if len(self._seen) < 2:
            return 0.0
        (start, first), (end, last) = self._seen[0], self._seen[-1]
        return (last - first) / max(end - start, 1e-9)


@contextmanager
def shown(*, as_json: bool) -> Iterator[Show]:
    """Show the progress until the block ends."""
    last, rate_of = -_EVERY_S, _Rate()

    def status(images: int, done: int, failed: int) -> Status:
        rate = rate_of(done)
        left = round((images - done) / rate, 1) if rate else None
        return Status(images, done, failed, round(rate, 2), left)

    if as_json:
        out = sys.stdout  # as it is now: Ray's messages are led elsewhere meanwhile

        def print_line(images: int, done: int, failed: int) -> None:
            nonlocal last
            now = status(images, done, failed)
            if monotonic() - last >= _EVERY_S or done == images:
                last = monotonic()
                out.write(msgspec.json.encode(now).decode() + "\n")
                out.flush()

        yield print_line
        return
    columns = (
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TextColumn("{task.fields[rate]:.1f}/s"),
        bars.TextColumn("{task.fields[failed]} failed"),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=Console(stderr=True)) as shown_bars:
        bar = shown_bars.add_task("", visible=False, failed=0, rate=0.0)

        def update(images: int, done: int, failed: int) -> None:
            rate = status(images, done, failed).rate_per_s
            shown_bars.update(bar, visible=True, total=images, completed=done, failed=failed, rate=rate)

        yield update
