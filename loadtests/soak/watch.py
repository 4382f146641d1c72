"""What the soak writes down every ten seconds: what clients saw, the service's memory, and what it says of itself."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from statistics import mean
from time import monotonic
from typing import NamedTuple

import psutil
from msgspec import Struct
from prometheus_client.parser import text_string_to_metric_families

from loadtests.connections import Connections
from loadtests.exchange import Request
from loadtests.percentiles import percentile
from loadtests.processes import family, resident
from loadtests.soak.load import Clients
from loadtests.target import Target

_MEMORY_EVERY = 1.0  # seconds
_READ = ("zooserve_queue_depth", "process_resident_memory_bytes", "zooserve_processes")


class Said(NamedTuple):
    """What `/metrics` says, as in `Record`."""

    queue_depth: float | None = None
    resident_mb: float | None = None
    processes: int = 0
    gc: dict[str, float] = {}  # noqa: RUF012 - never changed


class Record(Struct, frozen=True):
    """One period.

    Attributes:
        end: seconds since the soak began.
        rate: right answers per second.
        p50, p99: of their latencies, in ms; None where there was none.
        refused, hung_up, errors: counts of the period.
        resident_mb: memory of the service's processes: the mean of readings a second apart where they are of this
            machine, what `/metrics` says at the end elsewhere; None where neither is known.
        processes: how many those are.
        queue_depth: images under way, over all models, at the end; None where `/metrics` does not say.
        gc: collections and the like, as far as `/metrics` counts them: totals at the end, by series.
    """

    end: float
    rate: float
    p50: float | None
    p99: float | None
    refused: int
    hung_up: int
    errors: int
    resident_mb: float | None
    processes: int
    queue_depth: float | None
    gc: dict[str, float]


class Watch:
    """Makes the records of a running soak."""

    def __init__(
        self, clients: Clients, server: Target, pid: int | None, period: float, on_record: Callable[[Record], None]
    ) -> None:
        """Prepare to watch.

        Args:
            clients: what they see is written down.
            server: whose `/metrics` are asked.
            pid: of the service's first process on this machine; its descendants count. None: `/metrics` says.
            period: seconds that a record is about.
            on_record: called with each record.

        Raises:
            psutil.NoSuchProcess: there is no such process.
        """
        self._clients = clients
        self._connections = Connections(server, timeout=5.0)
        self._metrics = Request("GET", "/metrics").encode(self._connections.server)
        self._process = None if pid is None else psutil.Process(pid)
        self._period = period
        self._on_record = on_record
        self._answered = self._refused = self._hung_up = self._errors = 0
        self._last = 0.0

    async def run(self) -> None:
        """Watch until cancelled."""
        memory: list[float] = []
        processes = 0
        while True:
            end = self._last + self._period
            while (left := self._clients.begin + end - monotonic()) > 0:
                await asyncio.sleep(min(left, _MEMORY_EVERY))
                resident, processes = self._memory()
                memory += resident
            self._on_record(await self._record(end, memory, processes))
            memory = []

    async def _record(self, end: float, memory: list[float], processes: int) -> Record:
        clients = self._clients
        latencies = [1000 * one.latency for one in clients.answered[self._answered :]]
        errors = clients.errors.total()
        said = await self._said()
        record = Record(
            end=end,
            rate=len(latencies) / (end - self._last),
            p50=percentile(latencies, 50),
            p99=percentile(latencies, 99),
            refused=clients.refused - self._refused,
            hung_up=clients.hung_up - self._hung_up,
            errors=errors - self._errors,
            resident_mb=mean(memory) if memory else said.resident_mb if self._process is None else None,
            processes=processes or said.processes,
            queue_depth=said.queue_depth,
            gc=said.gc,
        )
        self._answered += len(latencies)
        self._refused, self._hung_up, self._errors, self._last = clients.refused, clients.hung_up, errors, end
        return record

    def _memory(self) -> tuple[list[float], int]:
        """Resident memory of all processes in MB, in a list that is empty where it is unknown; how many there are."""
        if self._process is None:
            return [], 0
        tree = family(self._process)
        return [resident(tree) / 1e6] if tree else [], len(tree)

    async def _said(self) -> Said:
        """What `/metrics` says."""
        try:
            response = await self._connections.exchange(self._metrics)
        except OSError:
            return Said()
        return read_metrics(response.body.decode(errors="replace"))


def read_metrics(text: str) -> Said:
    """Take what a record has out of Prometheus' text: the queue over all models, memory, and garbage collection."""
    values: dict[str, float] = {}
    gc: dict[str, float] = {}
    with suppress(ValueError):
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name in _READ:
                    values[sample.name] = values.get(sample.name, 0.0) + sample.value
                elif "_gc_" in sample.name and not sample.name.endswith("_bucket"):
                    gc[sample.name] = gc.get(sample.name, 0.0) + sample.value
    queue, memory, processes = map(values.get, _READ)
    return Said(queue, None if memory is None else memory / 1e6, int(processes or 0), gc)
