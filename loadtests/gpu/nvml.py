"""What NVIDIA's driver says of a GPU: which it is, how busy it is, how much of its memory is taken."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import mean
from types import ModuleType

_EVERY = 0.05  # seconds; NVML's own window is longer (1/6 s and more)


@dataclass
class Seen:
    """Readings over a while: per cent of the time in which a kernel ran, and MB of memory taken by everyone."""

    busy: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)

    @property
    def utilisation(self) -> float | None:
        """The mean, in per cent; None where NVML did not say."""
        return mean(self.busy) if self.busy else None

    @property
    def memory_mb(self) -> float | None:
        """The most memory that was taken, in MB."""
        return max(self.memory, default=None)


class Gpu:
    """One GPU. Where NVML cannot be had, it says nothing and `problem` says why."""

    def __init__(self, index: int | None) -> None:
        """Find a GPU by its number; None for no GPU at all."""
        self.problem = "no GPU is used" if index is None else ""
        self._nvml: ModuleType | None = None
        if index is None:
            return
        try:
            import pynvml  # noqa: PLC0415 - the package nvidia-ml-py, where there is one

            pynvml.nvmlInit()
            self._handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            self._nvml = pynvml
        except Exception as error:  # NVML's errors share no other base class
            self.problem = f"NVML: {error}"

    def about(self) -> dict[str, str]:
        """Name, memory and driver."""
        if self._nvml is None:
            return {"problem": self.problem}
        nvml = self._nvml
        return {
            "name": str(nvml.nvmlDeviceGetName(self._handle)),
            "memory": f"{nvml.nvmlDeviceGetMemoryInfo(self._handle).total / 2**30:.0f} GiB",
            "driver": str(nvml.nvmlSystemGetDriverVersion()),
            "cuda of the driver": ".".join(map(str, divmod(nvml.nvmlSystemGetCudaDriverVersion() // 10, 100))),
        }

    @contextmanager
    def watch(self, seen: Seen) -> Iterator[None]:
        """Read into `seen` while the block runs."""
        stop = threading.Event()
        reader = threading.Thread(target=self._read, args=(seen, stop), daemon=True)
        if self._nvml is not None:
            reader.start()
        try:
            yield
        finally:
            stop.set()
            if self._nvml is not None:
                reader.join()

    def _read(self, seen: Seen, stop: threading.Event) -> None:
        nvml = self._nvml
        assert nvml is not None  # noqa: S101 - `watch` looked
        while not stop.wait(_EVERY):
            try:
                seen.busy.append(float(nvml.nvmlDeviceGetUtilizationRates(self._handle).gpu))
                seen.memory.append(nvml.nvmlDeviceGetMemoryInfo(self._handle).used / 1e6)
            except Exception:  # as above: what is not said is left out
                return
