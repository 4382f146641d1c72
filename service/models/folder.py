"""A folder of the store, verified and loaded as what its card says it is."""

from pathlib import Path
from typing import Any

from service.models.model import Model
from service.engine.stop import Stop
from service.models.tensors import TensorModel
from zoo.card import ServedTensors
from zoo.store import read_folder

AnyModel = Model | TensorModel


def load_folder(folder: Path, stop: Stop, **arguments: Any) -> AnyModel:
    """Verify a folder of the store, and load what was verified as what its card says it is.

    Args:
        folder: of the store.
        stop: ends the loading when it is asked to.
        arguments: as of `Model`.

    Raises:
        StoreError: the folder is not as it was published.
        SessionError: ONNX Runtime cannot run the graph as asked.
    """
    contents = read_folder(folder)
    kind = TensorModel if isinstance(contents.card, ServedTensors) else Model
    return kind(folder, contents, stop, **arguments)
