"""The golden tensors of a model that takes tensors: inputs, and the outputs that its graph must compute for them.

They are NumPy's archive (`.npz`) of arrays `in/NAME` and `out/NAME`, whose first dimension is the batch.
"""

import io
import zipfile

import numpy as np

from service.arrays import Array, Tensors
from service.engine.session import SessionError
from zoo.served_card import ServedTensors

_LARGEST = 256_000_000  # bytes, unpacked
_TOLERANCE = 0.02  # relative to the largest magnitude: processors round differently, and a GPU may use TF32
_TINY = float(np.finfo(np.float32).tiny)


def read_golden(card: ServedTensors, data: bytes) -> tuple[Tensors, Tensors]:
    """Read the golden inputs and outputs.

    Args:
        card: names the inputs and outputs.
        data: the archive.

    Returns:
        Inputs and outputs by name, each [rows, ...].

    Raises:
        SessionError: the data are not such an archive, have other arrays than the card names, or are too large
            unpacked.
    """
    name = f"golden/{card.golden.file}"
    if fault := _zip_fault(data):
        raise SessionError(f"{name} {fault}")
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        arrays = {key: _as_objects(value) for key, value in archive.items()}
    inputs, outputs = (
        {key.removeprefix(kind): value for key, value in arrays.items() if key.startswith(kind)}
        for kind in ("in/", "out/")
    )
    for given, named in ((inputs, card.inputs), (outputs, card.outputs)):
        if given.keys() != {tensor.name for tensor in named} or not all(len(value) for value in given.values()):
            raise SessionError(
                f"{name} proves nothing: it holds rows of {sorted(given) or 'nothing'}, "
                f"card.json names {[tensor.name for tensor in named]}"
            )
    return inputs, outputs


def repeated(inputs: Tensors, size: int) -> Tensors:
    """Repeat the first row of each input `size` times."""
    return {name: np.repeat(value[:1], size, axis=0) for name, value in inputs.items()}


def differences(expected: Tensors, answers: Tensors) -> dict[str, float]:
    """Return, by name, the differences between golden and computed outputs that exceed the tolerance.

    The difference of floats is relative to the output's largest magnitude. That of other types is the share of elements
    that differ; of the output `image`, uint8, whose values are rounded, it is the mean difference as a share of 255.
    """
    found = {name: _difference(name, want, answers[name]) for name, want in expected.items()}
    return {name: value for name, value in found.items() if not value <= _TOLERANCE}


def _as_objects(array: Array) -> Array:
    """Convert strings to objects, as ONNX Runtime uses them; return other arrays unchanged."""
    return array.astype(object) if array.dtype.kind == "U" else array


def _zip_fault(data: bytes) -> str:
    """Return why an archive must not be unpacked, or an empty text. A small one may unpack to any size."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
    except zipfile.BadZipFile as error:
        return f"is not an archive of NumPy's: {error}"
    if any(member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for member in members):
        return "is packed in another way than NumPy's archives"
    size = sum(member.file_size for member in members)
    return f"unpacks to {size:,} bytes, more than {_LARGEST:,}" if size > _LARGEST else ""


def _difference(name: str, want: Array, got: Array) -> float:
    if want.shape != got.shape:
        return float("inf")
    if name == "image" and want.dtype == np.uint8:
        return float(np.abs(want.astype(np.int16) - got).mean()) / 255
    if want.dtype.kind != "f":
        return float(np.mean(want != got)) if want.size else 0.0
    wanted, found = (np.nan_to_num(x.astype(np.float64)) for x in (want, got))
    return float(np.abs(wanted - found).max(initial=0.0)) / max(float(np.abs(wanted).max(initial=0.0)), _TINY)
