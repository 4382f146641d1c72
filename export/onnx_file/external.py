"""Weights that an ONNX file keeps in files beside it, which `torch.onnx.export` writes: found, checked and joined.

`export.importer` finds them, and its card names each with its sha256; `reading` and `export.tensors` join them. What is
published is one file: a server reads no other. ONNX Runtime never follows such a reference itself.
"""

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from onnx import ModelProto, TensorProto

from export.kinds import advice
from zoo.card import LARGEST_GRAPH
from zoo.errors import ExportError
from zoo.files import open_regular, shown

_MOST_FILES = 100  # older exporters write one for each tensor
_ONE_FILE = "save it as one file: onnx.save(onnx.load(old), new)"


def data_files(sources: Mapping[str, Path]) -> list[Path]:
    """Return those of a card's files that hold external weights: its sources `data`, `data2` and so on."""
    return [path for name, path in sources.items() if name.startswith("data")]


def find_data_files(path: Path) -> dict[str, Path]:
    """Find the files beside an ONNX file in which it keeps weights, under the names that sources of a card have.

    Raises:
        ExportError: not an ONNX file; or one of them is elsewhere, is a link or not a regular file, or is missing.
    """
    names = sorted({_location(tensor) for tensor in _external(load(path))})
    if len(names) > _MOST_FILES:
        raise ExportError(f"{path}: its weights are in {len(names)} other files, at most {_MOST_FILES}: {_ONE_FILE}")
    found = {}
    for number, name in enumerate(names, 1):
        said = f"{path}: keeps weights in {shown(name)!r}"
        if not name or name in {".", ".."} or "\0" in name or {"/", "\\"} & set(name):
            raise ExportError(f"{said}, which is not a file beside it: put it there, or {_ONE_FILE}")
        beside = path.absolute().parent / name
        try:
            mode = os.lstat(beside).st_mode
        except OSError as error:
            raise ExportError(f"{said}, which cannot be read: {error.strerror}. Put it beside the file") from error
        if stat.S_ISLNK(mode):
            raise ExportError(f"{said}, which is a link: copy both files into one folder (cp -L)")
        if not stat.S_ISREG(mode):
            raise ExportError(f"{said}, which is not a regular file")
        found[f"data{number}" if number > 1 else "data"] = beside
    return found


def load(path: Path) -> ModelProto:
    """Read an ONNX file, without what it keeps in others.

    Raises:
        ExportError: not an ONNX file.
    """
    try:
        model: ModelProto = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf raises errors of many kinds
        raise ExportError(f"{path}: not an ONNX file that can be run: {advice(path) or error}") from error
    if not model.ir_version:  # bytes of other files may happen to be a message
        raise ExportError(f"{path}: not an ONNX file that can be run: {advice(path) or 'it has no version'}")
    return model


def join(model: ModelProto, path: Path, data: Iterable[Path]) -> bool:
    """Put the weights that a model keeps in other files into it, in place.

    Args:
        model: without them, as `load` returns it.
        path: of its file, for messages.
        data: the files that may be read, found by their names.

    Returns:
        Whether there were any.

    Raises:
        ExportError: they are in a file that is not among `data`, or not whole there, or too large for one ONNX file.
    """
    tensors = list(_external(model))
    known = {one.name: one for one in data}
    parts = [(tensor, *_part(tensor, path, known)) for tensor in tensors]
    total = model.ByteSize() + sum(length for _, _, _, length in parts)
    if total >= LARGEST_GRAPH:
        raise ExportError(
            f"{path}: with its weights it has {total / 1e9:.1f} GB, but one ONNX file is served, and it has less "
            f"than {LARGEST_GRAPH / 1e9:.1f} GB: export it in half precision (model.half()), or a smaller network"
        )
    for tensor, file, offset, length in parts:
        try:
            with open_regular(file) as opened:
                opened.seek(offset)
                tensor.raw_data = opened.read(length)
        except OSError as error:
            raise ExportError(f"{path}: {file} cannot be read: {error.strerror or error}") from error
        if len(tensor.raw_data) != length:
            raise ExportError(f"{path}: {file} has changed while it was read")
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]
    return bool(tensors)


def _part(tensor: TensorProto, path: Path, known: Mapping[str, Path]) -> tuple[Path, int, int]:
    """Return the file in which a tensor's values are, where they begin in it, and how many bytes they are."""
    name = _location(tensor)
    if name not in known:
        raise ExportError(
            f"{path}: its weights are in another file, {shown(name)!r}, which the card does not name. `zooserve add` "
            f"writes a card that does; or export it again with external_data=False, or {_ONE_FILE}"
        )
    said = {entry.key: entry.value for entry in tensor.external_data}
    try:
        size = known[name].stat().st_size
        offset = int(said.get("offset") or 0)
        length = int(said.get("length") or size - offset)
    except (OSError, ValueError) as error:
        raise ExportError(
            f"{path}: where {shown(tensor.name)!r} is in {shown(name)!r} cannot be read: {error}"
        ) from error
    if not 0 <= offset <= offset + length <= size or length < 0:
        raise ExportError(
            f"{path}: {shown(tensor.name)!r} has {length} bytes from {offset} on in {shown(name)!r}, which has {size}: "
            "the two files are not of one export"
        )
    return known[name], offset, length


def _location(tensor: TensorProto) -> str:
    return next((entry.value for entry in tensor.external_data if entry.key == "location"), "")


def _external(message: Message) -> Iterator[TensorProto]:
    """Every tensor whose values are in another file, wherever in a model it is: weights, constants, inner graphs."""
    if isinstance(message, TensorProto):
        if message.data_location == TensorProto.EXTERNAL:
            yield message
        return
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for inner in value if field.is_repeated else (value,):
                yield from _external(inner)
