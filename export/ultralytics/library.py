"""The `ultralytics` package (AGPL-3.0, an extra of its own), imported without what it does on import.

`export.ultralytics.checkpoint` needs its classes of layers and nothing else of it.
"""

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from types import ModuleType

import cv2
import numpy as np
import torch
from PIL import Image

from zoo.errors import ExportError
from zoo.extras import install

_SETTINGS = {
    "YOLO_OFFLINE": "true",  # no name is looked up, so no statistics are sent either
    "YOLO_AUTOINSTALL": "false",
    "YOLO_VERBOSE": "false",
    "ULTRALYTICS_SAFE_LOAD": "true",  # no `eval` of what a model's description says
}


def import_library(name: str = "ultralytics.nn.tasks") -> ModuleType:
    """Import a module of `ultralytics`, offline, and take back what it changes in this process.

    It writes a settings file (here into a folder that is deleted again), sets environment variables, OpenCV's threads
    and NumPy's print options, and replaces `torch.save`, and Pillow's `open` by one that installs a package.

    Raises:
        ExportError: it is not installed, or cannot be imported.
    """
    try:
        with _undone():
            return importlib.import_module(name)
    except ImportError as error:
        raise ExportError(
            "reading Ultralytics checkpoints needs the package `ultralytics` (AGPL-3.0): "
            f"{install('ultralytics')}. {error}"
        ) from error


def version() -> str:
    """Return the version of `ultralytics`."""
    return str(import_library("ultralytics").__version__)


@contextmanager
def _undone() -> Iterator[None]:
    environment, threads, save, opened = dict(os.environ), cv2.getNumThreads(), torch.save, Image.open
    with TemporaryDirectory(prefix="zooserve-") as folder, np.printoptions():
        os.environ |= _SETTINGS | {"YOLO_CONFIG_DIR": folder}
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(environment)
            cv2.setNumThreads(threads)
            torch.save = save
            Image.open = opened
