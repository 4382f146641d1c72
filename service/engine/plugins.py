"""Kernels of other libraries for CPUs, where they are installed: plug-in execution providers of ONNX Runtime.

A package `onnxruntime_ep_NAME` brings a library with a provider; `pip install` is all that is needed. None is required.
`service.models.on_cpu` measures them, and uses one where it is faster and answers as it should.
"""

import importlib
import json
import logging
import pkgutil
import threading
from collections.abc import Callable, Mapping
from functools import cache
from typing import NamedTuple

import onnxruntime as ort

logger = logging.getLogger(__name__)
_PACKAGES = "onnxruntime_ep_"
_lock = threading.Lock()


class Plugin(NamedTuple):
    """A provider of a package that is installed, and that has kernels for this CPU.

    Attributes:
        provider: its name.
        version: of the provider.
        device: the CPU, as the provider knows it.
    """

    provider: str
    version: str
    device: ort.OrtEpDevice

    @property
    def takes_threads(self) -> bool:
        """Whether it is known how to tell it the number of threads; otherwise it decides itself."""
        return self.provider in _THREADS

    def add_to(self, options: ort.SessionOptions, threads: int, cores: int) -> None:
        """Let a session use it.

        Args:
            options: of the session.
            threads: of one run.
            cores: that all runs of the session share.
        """
        chosen = _THREADS[self.provider](threads, cores) if self.takes_threads else {}
        options.add_provider_for_devices([self.device], chosen)


def plugins() -> list[Plugin]:
    """Return the providers of all installed packages that have kernels for this CPU, by name."""
    with _lock:  # several models are loaded at a time
        return _plugins()


@cache
def _plugins() -> list[Plugin]:
    names: set[str] = set()
    for found in pkgutil.iter_modules():
        if found.name.startswith(_PACKAGES):
            try:
                package = importlib.import_module(found.name)
                ort.register_execution_provider_library(found.name, package.get_library_path())
                names.update(package.get_ep_names() if hasattr(package, "get_ep_names") else [package.get_ep_name()])
            except Exception as error:  # whatever a package raises: it is not ours, and not needed
                logger.warning("%s is installed, but cannot be used: %s", found.name, error)
    devices = [device for device in (ort.get_ep_devices() if names else []) if device.ep_name in names]
    kernels = [
        Plugin(device.ep_name, device.ep_metadata.get("version", ""), device)
        for device in devices
        if device.device.type == ort.OrtHardwareDeviceType.CPU
    ]
    return sorted(kernels, key=lambda plugin: plugin.provider)


def _openvino(threads: int, cores: int) -> dict[str, str]:
    """Options of OpenVINO: a stream computes one run. It would use bfloat16, and answer differently, by default."""
    streams = max(1, cores // threads)
    asked = {
        "NUM_STREAMS": streams,
        "INFERENCE_NUM_THREADS": streams * threads,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    return {"load_config": json.dumps({"CPU": {name: str(value) for name, value in asked.items()}})}


_THREADS: Mapping[str, Callable[[int, int], dict[str, str]]] = {"OpenVINOExecutionProvider": _openvino}
