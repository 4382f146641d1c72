"""The steps of an export, timed, and what comes of them. `export.pipeline` and `export.tensors` go through them."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from zoo.served_card import AnyServed


@dataclass(frozen=True)
class Export:
    """What was published, where, and how long each step took, in seconds."""

    card: AnyServed
    folder: Path
    seconds: dict[str, float]


class Steps:
    """Tells the name of each step as it begins, and keeps how long it took, in seconds."""

    def __init__(self, on_step: Callable[[str], None]) -> None:
        self.seconds: dict[str, float] = {}
        self._on_step = on_step

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self._on_step(name)
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start
