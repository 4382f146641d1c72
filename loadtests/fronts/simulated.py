"""A simulated GPU for servers: the environment in which the real CUDA provider uses the CUDA stub of the tests."""

import importlib
import os
from pathlib import Path

import click

ROOT = Path(__file__).parents[2]
_STUB = "tests.service.engine.cuda_stub.stub"


class UnavailableError(Exception):
    """What is missing on this machine."""


def simulated_gpu(folder: Path, run_us: str) -> dict[str, str]:
    """Return variables with which a server has a simulated GPU.

    Args:
        folder: for the stub's libraries, which are built there.
        run_us: microseconds of a run by batch, `1:1100,32:4200`: linear between two points.

    Raises:
        UnavailableError: no compiler, or no onnxruntime-gpu.
    """
    stub = importlib.import_module(_STUB)
    try:
        libraries = stub.build(folder)
        packages = stub.packages(lambda text: click.echo(text, err=True))
    except stub.UnavailableError as error:
        raise UnavailableError(str(error)) from error
    here = [str(Path(__file__).with_name("stub")), str(packages), str(ROOT), str(ROOT / "client")]
    return {
        "LD_LIBRARY_PATH": str(libraries),
        "PYTHONPATH": os.pathsep.join(here),
        "STUB_RUN_US": run_us,
        "ZOOSERVE_DEVICE": "cuda",
        "XDG_CACHE_HOME": str(folder / "cache"),  # what is measured here is of no use to other servers
    }
