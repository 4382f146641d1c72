"""LoadGen itself, which is not installed everywhere: imported when a test needs it, so that `--help` never does."""

import os
import sys
from functools import cache
from typing import Any

from zoo import extras
from zoo.errors import MissingError


@cache
def loadgen() -> Any:
    """Return LoadGen's module, without the rules of MLPerf's rounds in it.

    The first configuration file that a process reads brings them along (ten minutes for every test, for example).
    Here that is an empty one, so that later files change what they name and nothing else.

    Raises:
        MissingError: it is not installed.
    """
    if sys.version_info >= (3, 14) and not extras.installed("mlperf_loadgen"):
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise MissingError(f"LoadGen has no package for Python {version}: use 3.11 to 3.13, or another load test")
    extras.require("mlperf_loadgen")
    import mlperf_loadgen as module  # noqa: PLC0415 - not installed everywhere

    module.TestSettings().FromConfig(os.devnull, "*", "Server", 1)
    return module
