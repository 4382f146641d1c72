"""LoadGen itself, which is not installed everywhere: imported when a test needs it, so that `--help` never does."""

import importlib
import os
import shlex
import sys
from functools import cache
from typing import Any

PACKAGE = "mlcommons-loadgen"


class MissingError(Exception):
    """A package that is not installed, with the command that installs it."""


def require(module: str, package: str) -> Any:
    """Import a module.

    Raises:
        MissingError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        install = f"{shlex.quote(sys.executable)} -m pip install {package}"
        raise MissingError(f"{package} is not installed, which this needs; install it: {install}") from error


@cache
def loadgen() -> Any:
    """Return LoadGen's module, without the rules of MLPerf's rounds in it.

    The first configuration file that a process reads brings them along (ten minutes for every test, for example).
    Here that is an empty one, so that later files change what they name and nothing else.

    Raises:
        MissingError: it is not installed.
    """
    module = require("mlperf_loadgen", PACKAGE)
    module.TestSettings().FromConfig(os.devnull, "*", "Server", 1)
    return module
