"""Metrics of several server processes, in shared memory: `supervisor` makes it, `metrics` writes and reads it.

Each process has its own part of it. A process that replaces one that died continues its counters; its gauges start
anew. The memory is anonymous: nothing can remove it, and it is freed when the last process ends.
"""

import functools
import json
import os
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

import prometheus_client.values
import psutil
from prometheus_client import Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

Labels = tuple[tuple[str, str], ...]
# Adds up the samples of several processes: of gauges by their mode, of histograms to cumulative buckets. The public
# `merge` reads its samples from files whose names say what is in them.
_accumulate: Callable[..., Iterable[Metric]] = MultiProcessCollector._accumulate_metrics


class _Memory(MmapedDict):
    """prometheus_client's memory of values by key. It has no types."""

    def __init__(self, path: str) -> None:
        super().__init__(path)  # type: ignore[no-untyped-call]

    def room(self, key: str) -> "memoryview[float]":
        """Return where a value and its time are, as two numbers: to set one takes half the time of `write_value`.

        It stays valid when the memory grows: a mapping of the file's first part and one of the whole share their pages.
        """
        self.read_value(key)  # type: ignore[no-untyped-call]  # makes it, where it is new
        at: int = self._positions[key]
        return memoryview(self._m)[at : at + 16].cast("d")


_NEVER = 1e-9  # seconds; the time of a value that was not set yet, older than all others
_PROCESS = "process"  # the key of the process' id, stored with its gauges


class Counts(Collector):
    """Writes the values of this process, and sums those of all.

    Args:
        paths: of the memory: for each process that of its counters, then that of its gauges.
        place: the index of this process, from 0.

    Attributes:
        replaces: whether another process had this place before, and has ended.
    """

    def __init__(self, paths: Sequence[str], place: int) -> None:
        self._places = list(zip(paths[::2], paths[1::2], strict=True))
        totals, gauges = self._places[place]
        self.replaces = any(key == _PROCESS for key, _ in _entries(gauges))
        os.truncate(gauges, 0)  # those of a process that died and had this place
        self._totals, self._gauges = _Memory(totals), _Memory(gauges)
        self._gauges.room(_PROCESS)[0] = os.getpid()
        self._lock = threading.Lock()

    def use(self) -> None:
        """Store here all metrics that this process creates from now on."""
        totals, gauges, lock = self._totals, self._gauges, self._lock
        prometheus_client.values.ValueClass = lambda *how, **more: _Value(totals, gauges, lock, *how, **more)

    def processes(self) -> list[psutil.Process]:
        """Return all running server processes, this one included."""
        return [process for _, gauges in self._places if (process := _process(dict(_entries(gauges)))) is not None]

    def collect(self) -> Iterator[Metric]:
        """Add up the counters of all processes, also of ended ones, and the gauges of the running ones."""
        families: dict[str, Metric] = {}
        for totals, gauges in self._places:
            states = dict(_entries(gauges))
            lives = _process(states) is not None
            states.pop(_PROCESS, None)
            for key, (value, moment) in [*_entries(totals), *(states.items() if lives else ())]:
                kind, mode, family, text, name, labels = _parts(key)
                if family not in families:
                    families[family] = Metric(family, text, kind)
                    families[family]._multiprocess_mode = mode  # type: ignore[attr-defined]  # read by `_accumulate`
                # `_accumulate` takes pairs as labels. It would leave out a gauge that was not set yet, at time 0.
                families[family].add_sample(name, labels, value, moment or _NEVER)  # type: ignore[arg-type]
        yield from _accumulate(families, accumulate=True)


class _Value:
    """One number, with the interface that prometheus_client's metrics need."""

    _multiprocess = True

    def __init__(
        self,
        totals: _Memory,
        gauges: _Memory,
        lock: threading.Lock,
        kind: str,
        family: str,
        name: str,
        labelnames: Sequence[str],
        labelvalues: Sequence[str],
        text: str,
        multiprocess_mode: str = "",
        **_: object,
    ) -> None:
        labels = dict(zip(labelnames, labelvalues, strict=True))
        key = json.dumps([kind, multiprocess_mode, family, text, name, labels])
        self._lock = lock
        with lock:
            self._room = (gauges if kind == "gauge" else totals).room(key)
            self._value: float = self._room[0]

    def inc(self, amount: float) -> None:
        with self._lock:
            self._value += amount
            self._room[0] = self._value

    def set(self, value: float, timestamp: float | None = None) -> None:
        with self._lock:
            self._value = value
            self._room[0], self._room[1] = value, timestamp or 0.0

    def get(self) -> float:
        return self._value

    def get_exemplar(self) -> None:
        """There are none: we count without exemplars."""


def _entries(path: str) -> Iterator[tuple[str, tuple[float, float]]]:
    """Yield keys with their values and times; none at the moment in which a new process has emptied its memory."""
    with suppress(struct.error, RuntimeError):
        for key, value, moment, _ in MmapedDict.read_all_values_from_file(path):  # type: ignore[no-untyped-call]
            yield key, (value, moment)


@functools.lru_cache(65536)
def _parts(key: str) -> tuple[str, str, str, str, str, Labels]:
    *parts, labels = json.loads(key)
    return (*parts, tuple(labels.items()))


def _process(states: Mapping[str, tuple[float, float]]) -> psutil.Process | None:
    """Return the process whose gauges these are; None if it has ended."""
    number, _ = states.get(_PROCESS, (0.0, 0.0))
    with suppress(psutil.Error):
        process = psutil.Process(int(number)) if number else None
        if process is not None and process.ppid() == os.getppid():  # not another one that got the same id later
            return process
    return None
