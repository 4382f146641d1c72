"""The memory that fronts and the engine share: of each model, and of the engine. Anonymous files, mapped by both."""

import math
import mmap
import os
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from service.arrays import Array, Image, Tensors

_PAGE = mmap.PAGESIZE
_SMALL = 1 << 15  # bytes of a row
_HEAD = 16  # bytes at the beginning of a model's memory, before its counts for each front


class Output(Struct, frozen=True):
    """One output of a graph: its name, NumPy's name of its type, and the shape of a row."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class Layout(Struct, frozen=True):
    """What lies in a model's memory.

    Attributes:
        fronts: how many there are.
        rows: of each front, which follow each other.
        spare: rows after those of all fronts, so that a batch may be padded with whatever lies behind it.
        shape: [H, W, 3] of an image; empty for a model of tensors, which has no rows.
        outputs: of the graph, of a fixed shape.
        jpegs: the runs decode JPEGs.
    """

    fronts: int
    rows: int = 0
    spare: int = 0
    shape: tuple[int, ...] = ()
    outputs: tuple[Output, ...] = ()
    jpegs: bool = False


class _Memory:
    """An anonymous file, mapped. It is freed with its last holder, in whichever process.

    Args:
        size: in bytes.
        file: a descriptor of it, which is closed; None: it is made anew.

    Attributes:
        file: a descriptor to send, where it was made anew; else -1.
        mapped: its bytes.
    """

    def __init__(self, size: int, file: int | None) -> None:
        self.file = -1
        if file is None:
            file = self.file = os.memfd_create("zooserve")
            os.ftruncate(file, size)
        try:
            self.mapped = mmap.mmap(file, size)
        finally:
            if file != self.file:
                os.close(file)

    def __del__(self) -> None:
        if self.file >= 0:
            os.close(self.file)


class ModelMemory(_Memory):
    """The memory of one model.

    Args:
        layout: of it.
        file: as of `_Memory`.

    Attributes:
        closing: one number: whether the model is about to be unloaded. The engine writes it.
        cost: one number: seconds of a row in the engine. The engine writes it.
        holds: for each front, requests that hold the model. Each writes its own.
        pending: for each front, jobs under way. Each writes its own.
        given_up: uint8 [fronts * rows]: rows whose answer nobody waits for any more. Each front writes its own.
        lengths: uint32 [fronts * rows]: the bytes of the JPEG in each row; 0: it has pixels. Each front writes its own.
        images: uint8 [fronts * rows + spare, H, W, 3].
        outputs: by name, [fronts * rows, ...]: those of each row's run.
    """

    def __init__(self, layout: Layout, file: int | None = None) -> None:
        self.layout = layout
        counted = layout.fronts * layout.rows
        lengths = _HEAD + 8 * layout.fronts
        given_up = lengths + 4 * counted
        images = _up(given_up + counted)
        sizes = [counted * math.prod(each.shape) * np.dtype(each.dtype).itemsize for each in layout.outputs]
        outputs = images + _up((counted + layout.spare) * math.prod(layout.shape) if layout.shape else 0)
        super().__init__(outputs + sum(map(_up, sizes)), file)

        def view(dtype: npt.DTypeLike, shape: tuple[int, ...], offset: int) -> Array:
            return np.frombuffer(self.mapped, dtype, math.prod(shape), offset).reshape(shape)

        numbers, length = memoryview(self.mapped), 4 * layout.fronts  # quicker to read than arrays
        self.cost = numbers[:8].cast("d")
        self.closing = numbers[8:12].cast("I")
        self.holds = numbers[_HEAD : _HEAD + length].cast("I")
        self.pending = numbers[_HEAD + length : _HEAD + 2 * length].cast("I")
        self.lengths = view(np.uint32, (counted,), lengths)
        self.given_up = view(np.uint8, (counted,), given_up)
        self.images: Image = view(np.uint8, (counted + layout.spare, *layout.shape), images)
        self.outputs: dict[str, Array] = {}
        self._bytes = dict[str, memoryview]()  # of those whose rows are small
        for each, length in zip(layout.outputs, sizes, strict=True):
            self.outputs[each.name] = view(each.dtype, (counted, *each.shape), outputs)
            if 0 < length <= _SMALL * counted:
                self._bytes[each.name] = numbers[outputs : outputs + length]
            outputs += _up(length)

    def row_of(self, row: int) -> dict[str, Array]:
        """Return a copy of the outputs of a row, [1, ...].

        NumPy gives up the interpreter's lock to copy, which costs more than to copy a few kilobytes.
        """
        copies = {}
        for name, room in self.outputs.items():
            if (data := self._bytes.get(name)) is None:
                copies[name] = room[row : row + 1].copy()
            else:
                size = room.strides[0]
                copies[name] = np.ndarray(
                    (1, *room.shape[1:]), room.dtype, bytearray(data[row * size : (row + 1) * size])
                )
        return copies

    def fits(self, outputs: Tensors) -> bool:
        """Whether the outputs of a batch have the types and shapes for which there is room."""
        rooms = self.outputs
        return outputs.keys() == rooms.keys() and all(
            (value.dtype, value.shape[1:]) == (rooms[name].dtype, rooms[name].shape[1:])
            for name, value in outputs.items()
        )


class EngineMemory(_Memory):
    """What all fronts read of the engine.

    Args:
        file: as of `_Memory`.

    Attributes:
        values: when the engine last said that it lives, as `time.perf_counter()`; seconds of work ahead; how many runs
            are computed at a time; whether its device is lost, so that it is about to end.
    """

    ALIVE, WAIT, PARALLEL, LOST = range(4)

    def __init__(self, file: int | None = None) -> None:
        super().__init__(_PAGE, file)
        self.values = memoryview(self.mapped)[:32].cast("d")


def layout_of(outputs: Mapping[str, Array]) -> tuple[Output, ...]:
    """Return what the outputs of a run say of their rows; none for texts, whose size differs."""
    if any(value.dtype.kind == "O" for value in outputs.values()):
        return ()
    return tuple(Output(name, value.dtype.str, value.shape[1:]) for name, value in outputs.items())


def _up(size: int) -> int:
    """Round up to whole pages."""
    return -(-size // _PAGE) * _PAGE
