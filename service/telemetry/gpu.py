"""Utilisation, memory, power and temperature of the GPUs, read with NVML. Part of `/metrics` if there is a GPU."""

import logging
import os
from collections.abc import Callable, Iterator
from types import ModuleType

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

logger = logging.getLogger(__name__)
_TEMPERATURE_GPU = 0  # NVML_TEMPERATURE_GPU

# name, help text, function that reads it
_READINGS: tuple[tuple[str, str, Callable[[ModuleType, object], float]], ...] = (
    (
        "zooserve_gpu_utilisation_ratio",
        "Share of the last moments in which a kernel ran",
        lambda nvml, gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100,
    ),
    (
        "zooserve_gpu_memory_used_bytes",
        "Memory in use, by all processes of the machine",
        lambda nvml, gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).used,
    ),
    (
        "zooserve_gpu_memory_total_bytes",
        "Memory that there is",
        lambda nvml, gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).total,
    ),
    ("zooserve_gpu_power_watts", "Power drawn", lambda nvml, gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000),
    (
        "zooserve_gpu_temperature_celsius",
        "Temperature",
        lambda nvml, gpu: nvml.nvmlDeviceGetTemperature(gpu, _TEMPERATURE_GPU),
    ),
)


def visible_gpus(nvml: ModuleType) -> dict[str, object]:
    """Return the GPUs that CUDA uses in this process: all of the machine's, or those in `CUDA_VISIBLE_DEVICES`.

    Like CUDA, this ignores all entries from the first invalid one on: "" and "-1" leave no GPU, "1,9" the second.

    Args:
        nvml: the module `pynvml`, initialised.

    Returns:
        NVML's handles by its indices; parts of a partitioned GPU by their names.
    """
    every = {str(n): nvml.nvmlDeviceGetHandleByIndex(n) for n in range(nvml.nvmlDeviceGetCount())}
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return every
    found: dict[str, object] = {}
    for entry in map(str.strip, chosen.split(",")):
        if entry.startswith("MIG-"):
            try:
                handles = {entry: nvml.nvmlDeviceGetHandleByUUID(entry)}
            except nvml.NVMLError:
                break
        else:
            handles = {n: gpu for n, gpu in every.items() if n == entry or _has_name(nvml, gpu, entry)}
        if len(handles) != 1 or handles.keys() & found:
            break
        found |= handles
    return found


def _has_name(nvml: ModuleType, gpu: object, entry: str) -> bool:
    """Return whether an entry is a GPU's UUID, or a prefix of it: "GPU-8932f937-d72c-..."."""
    return entry.startswith("GPU-") and bool(nvml.nvmlDeviceGetUUID(gpu).startswith(entry))


class Gpus(Collector):
    """The GPUs that this process may use. They are read for each request to `/metrics`.

    Args:
        nvml: the module `pynvml`, initialised.

    Attributes:
        handles: as of `visible_gpus`.
    """

    def __init__(self, nvml: ModuleType) -> None:
        self._nvml = nvml
        self.handles = visible_gpus(nvml)

    def collect(self) -> Iterator[Metric]:
        """Read the values. Those that a GPU does not have (the utilisation if it is partitioned, say) are left out."""
        for name, text, read in _READINGS:
            family = GaugeMetricFamily(name, text, labels=["gpu"])
            for number, handle in self.handles.items():
                try:
                    family.add_metric([number], read(self._nvml, handle))
                except self._nvml.NVMLError as error:
                    logger.debug("GPU %s does not report %s: %s", number, name, error)
            if family.samples:
                yield family


def find_gpus() -> Gpus | None:
    """Find the GPUs of this machine; None without any, or without a driver. BentoML installs `pynvml`."""
    try:
        import pynvml  # noqa: PLC0415 - it may be missing

        pynvml.nvmlInit()
        gpus = Gpus(pynvml)
    except Exception:  # no library or no driver: NVML's errors have no other base class
        return None
    return gpus if gpus.handles else None
