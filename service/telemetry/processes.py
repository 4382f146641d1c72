"""Resource use of the server processes, under the names of Prometheus' client libraries. Part of `/metrics`."""

import os
from collections.abc import Iterator
from contextlib import suppress

import psutil
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service.telemetry.counts import Counts


class Processes(Collector):
    """Memory, processor time and open files of all server processes together, read for each request to `/metrics`.

    Args:
        counts: the memory that the processes share; None: there is one process.
    """

    def __init__(self, counts: Counts | None = None) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        """Read the values. Processes that have just ended are left out."""
        memory = files = cpu = 0.0
        start = float("inf")
        group = self._counts.processes() if self._counts else [psutil.Process()]
        for process in group:
            with suppress(psutil.Error), process.oneshot():
                memory += process.memory_info().rss
                times = process.cpu_times()
                cpu += times.user + times.system
                start = min(start, process.create_time())
                files += process.num_fds() if os.name == "posix" else 0
        if self._counts:  # the time of ended processes, so that the sum never decreases
            with suppress(psutil.Error):
                ended = psutil.Process(os.getppid()).cpu_times()
                cpu += ended.children_user + ended.children_system
        yield GaugeMetricFamily("process_resident_memory_bytes", "Resident memory of the server processes", memory)
        yield CounterMetricFamily("process_cpu_seconds", "Processor time of the server processes", cpu)
        yield GaugeMetricFamily("process_open_fds", "Open files and connections of the server processes", files)
        yield GaugeMetricFamily("process_start_time_seconds", "When the oldest server process started", start)
        yield GaugeMetricFamily("zooserve_processes", "Server processes", len(group))
