"""GPU figures: those of a driver (a stand-in, with NVML's names), and their absence where there is none."""

import sys
from types import SimpleNamespace

import psutil
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from service.engine.providers import gpu_count
from service.telemetry.gpu import Gpus, find_gpus, visible_gpus


class NVMLError(Exception):
    """What NVML raises."""


def part(name: str) -> str:
    """The handle of a part of a GPU: there is one, MIG-1."""
    if name != "MIG-1":
        raise NVMLError("Not Found")
    return name


@pytest.fixture(autouse=True)
def _all_visible(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def nvml(count: int = 2, **given) -> SimpleNamespace:
    """A driver that shows `count` GPUs; a function given replaces its own."""
    functions = {
        "nvmlInit": lambda: None,
        "nvmlDeviceGetCount": lambda: count,
        "nvmlDeviceGetHandleByIndex": lambda n: n,
        "nvmlDeviceGetUUID": lambda gpu: f"GPU-{gpu}{gpu}{gpu}a-0000",
        "nvmlDeviceGetHandleByUUID": part,
        "nvmlDeviceGetUtilizationRates": lambda gpu: SimpleNamespace(gpu=25 + gpu, memory=1),
        "nvmlDeviceGetMemoryInfo": lambda gpu: SimpleNamespace(used=10 + gpu, total=80, free=70 - gpu),
        "nvmlDeviceGetPowerUsage": lambda gpu: 71_500,
        "nvmlDeviceGetTemperature": lambda gpu, sensor: 40 + gpu + 1000 * sensor,
    }
    return SimpleNamespace(NVMLError=NVMLError, **functions | given)


def rendered(library: SimpleNamespace) -> dict[str, float]:
    """The samples as Prometheus reads them."""
    registry = CollectorRegistry()
    registry.register(Gpus(library))
    lines = generate_latest(registry).decode().splitlines()
    return {name: float(value) for name, value in (line.split() for line in lines if not line.startswith("#"))}


def test_every_gpu_tells_all():
    assert rendered(nvml()) == {
        'zooserve_gpu_utilisation_ratio{gpu="0"}': 0.25,
        'zooserve_gpu_utilisation_ratio{gpu="1"}': 0.26,
        'zooserve_gpu_memory_used_bytes{gpu="0"}': 10,
        'zooserve_gpu_memory_used_bytes{gpu="1"}': 11,
        'zooserve_gpu_memory_total_bytes{gpu="0"}': 80,
        'zooserve_gpu_memory_total_bytes{gpu="1"}': 80,
        'zooserve_gpu_power_watts{gpu="0"}': 71.5,
        'zooserve_gpu_power_watts{gpu="1"}': 71.5,
        'zooserve_gpu_temperature_celsius{gpu="0"}': 40,
        'zooserve_gpu_temperature_celsius{gpu="1"}': 41,
    }


@pytest.mark.parametrize(
    ("chosen", "visible"),
    [
        (None, ["0", "1", "2"]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("2", ["2"]),
        ("2,0", ["2", "0"]),
        (" 1 , 2 ", ["1", "2"]),
        ("1,9,0", ["1"]),
        ("1,-1,0", ["1"]),
        ("1,1", ["1"]),
        ("GPU-222a-0000", ["2"]),
        ("GPU-2,GPU-0", ["2", "0"]),
        ("GPU-", []),
        ("GPU-9", []),
        ("MIG-1", ["MIG-1"]),
        ("MIG-2", []),
    ],
)
def test_cuda_may_be_told_which_to_use(monkeypatch, chosen, visible):
    if chosen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    library = nvml(count=3)
    assert list(visible_gpus(library)) == visible
    monkeypatch.setitem(sys.modules, "pynvml", library)
    assert gpu_count() == len(visible)
    assert (find_gpus() is not None) is bool(visible)


def test_metrics_are_of_those_that_are_used(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    samples = rendered(nvml())
    assert len(samples) == 5
    assert all('gpu="1"' in name for name in samples)


def test_cuda_numbers_gpus_as_nvml_does(server):
    processes = psutil.Process(server.process.pid).children(recursive=True)
    assert {process.environ()["CUDA_DEVICE_ORDER"] for process in processes} == {"PCI_BUS_ID"}


def test_what_a_gpu_cannot_tell_is_left_out():
    def unsupported(gpu):
        raise NVMLError("Not Supported")

    def only_the_second(gpu):
        return 71_500 if gpu else unsupported(gpu)

    samples = rendered(nvml(nvmlDeviceGetUtilizationRates=unsupported, nvmlDeviceGetPowerUsage=only_the_second))
    assert not any("utilisation" in name for name in samples)
    assert [name for name in samples if "power" in name] == ['zooserve_gpu_power_watts{gpu="1"}']
    assert len(samples) == 7


def no_driver():
    raise NVMLError("Driver Not Loaded")


@pytest.mark.parametrize("library", [None, nvml(nvmlInit=no_driver), nvml(count=0)], ids=["module", "driver", "GPU"])
def test_without_a_gpu_there_is_nothing(monkeypatch, library):
    monkeypatch.setitem(sys.modules, "pynvml", library)
    assert find_gpus() is None


def test_with_a_gpu_there_is_something(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", nvml(count=1))
    assert find_gpus() is not None


def test_names_of_nvml_are_as_in_the_library():
    import pynvml

    for name in [*vars(nvml()), "nvmlDeviceGetHandleByIndex"]:
        assert hasattr(pynvml, name)
    assert pynvml.NVML_TEMPERATURE_GPU == 0
