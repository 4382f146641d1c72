"""Rows for graphs that take tensors: those of the user's file, or noise. Called by `export.tensors`."""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.errors import ExportError
from zoo.served_card import Tensor

Tensors = dict[str, npt.NDArray[Any]]
ROWS = 3
"""The smallest number of rows: a batch of two, and one beside."""
INTEGERS = frozenset(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)) - {"int8"}
BYTE = 256


def sampled(inputs: Sequence[Tensor], path: Path) -> Tensors:
    """Return the rows of an `.npz` file, which has an array for each input.

    Raises:
        ExportError: not such a file, or fewer than `ROWS` rows.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            given = dict(archive)
    except (OSError, ValueError, TypeError, zipfile.BadZipFile) as error:  # TypeError: an `.npy`
        raise ExportError(f"{path}: not an .npz file of arrays without pickled objects: {error}") from error
    if given.keys() != {x.name for x in inputs}:
        raise ExportError(f"{path} has the arrays {sorted(given)}, expected {sorted(x.name for x in inputs)}")
    rows = {x.shape[0] if x.ndim else 0 for x in given.values()}
    if len(rows) != 1 or min(rows) < ROWS:
        shapes = {name: x.shape for name, x in given.items()}
        raise ExportError(f"{path}: its arrays are {shapes}: each must have the same number of rows, at least 3")
    for x in inputs:
        if x.dtype != "string" and given[x.name].dtype != x.dtype:
            raise ExportError(f"{path}: {x.name!r} is {given[x.name].dtype}, expected {x.dtype}")
    return given


def noise(
    inputs: Sequence[Tensor], free: Mapping[str, Mapping[int, str]], sizes: Mapping[str, int], integers: int
) -> Tensors:
    """Return `ROWS` rows of noise: floats in 0..1, integers below `integers`.

    Args:
        inputs: of the graph.
        free: names of their free dimensions by axis, besides the batch.
        sizes: of these dimensions.
        integers: 2, or more where the graph takes them.
    """
    random = np.random.default_rng(0)

    def one(x: Tensor) -> npt.NDArray[Any]:
        shape = [side if side else sizes[free[x.name][axis]] for axis, side in enumerate(x.shape) if axis]
        if x.dtype.startswith("float"):
            return random.random((ROWS, *shape)).astype(x.dtype)
        whole = random.integers(0, integers if x.dtype in INTEGERS else 2, (ROWS, *shape))
        return whole.astype(str) if x.dtype == "string" else whole.astype(x.dtype)

    return {x.name: one(x) for x in inputs}
