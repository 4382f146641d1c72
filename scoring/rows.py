"""Rows of results: one per image, typed like the answers of `/v1`. Written as Parquet with nested columns, or JSONL."""

import types
from collections.abc import Sequence
from functools import reduce
from typing import IO, Any, Union, get_args, get_origin

import msgspec
import pyarrow as pa
from msgspec import Struct
from pyarrow import parquet

from scoring.spec import Form
from scoring.storage import Folder, StorageError
from service.results import CocoPose, Embedding, ImageSize, Pose, Prediction
from service.tasks import TASKS, operation_of

_PLAIN: dict[Any, pa.DataType] = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
_FAILED = b"zooserve.failed"  # in the metadata of a Parquet file: how many of its rows are errors
_ERROR = b',"error":{"status":'  # in the JSON of such rows; in a string its quotes would be escaped
_encode = msgspec.json.Encoder().encode


class Problem(Struct, frozen=True):
    """Why an image has no answer, with HTTP's status and reason; status 0: the image could not be fetched."""

    status: int
    reason: str
    detail: str


class Row(Struct, frozen=True, omit_defaults=True):
    """One image: its answer or an error.

    Attributes:
        address: of the image.
        size, sha256: of its bytes; None where they could not be fetched.
        model, version, model_sha256, task: that answered.
        image: size of the upright image in pixels.
        predictions: as `/v1` answers them.
        error: why there are none.
    """

    address: str
    model: str
    version: str
    model_sha256: str
    task: str
    size: int | None = None
    sha256: str | None = None
    image: ImageSize | None = None
    predictions: Sequence[Prediction] | None = None
    error: Problem | None = None


def schema_of(options: Struct) -> pa.Schema:
    """Return the Arrow schema of the rows of a task: nested columns with the names and types of `/v1`'s JSON.

    The alternatives of a field, such as the three forms of a mask, are one struct with the fields of all.
    """
    fields = [(field.encode_name, _arrow(field.type)) for field in msgspec.structs.fields(Row)]
    columns = dict(fields) | {"predictions": pa.list_(_arrow(_prediction_of(options)))}
    return pa.schema(list(columns.items()))


def write_rows(file: IO[bytes], rows: Sequence[Row], schema: pa.Schema, form: Form) -> None:
    """Write the rows of a part."""
    if form == "jsonl":
        for row in rows:
            file.write(_encode(row) + b"\n")
        return
    failed = sum(row.error is not None for row in rows)
    table = pa.Table.from_pylist([msgspec.to_builtins(row) for row in rows], schema)
    metadata = {_FAILED: str(failed).encode()}
    parquet.write_table(table.replace_schema_metadata(metadata), file, compression="zstd")


def count_rows(out: Folder, name: str) -> tuple[int, int]:
    """Return how many rows a file of results has, and how many of them are errors.

    Raises:
        StorageError: it is damaged.
    """
    with out.open(name) as file:
        try:
            if name.endswith(".jsonl"):
                return _count_lines(file.read())
            found = parquet.read_metadata(file)
        except Exception as error:  # as of plans
            raise StorageError(
                f"{out.address}/{name} cannot be read ({error}). If it is damaged, remove it: the same command makes "
                "it again."
            ) from error
        return found.num_rows, int((found.metadata or {}).get(_FAILED, b"0"))


def _count_lines(content: bytes) -> tuple[int, int]:
    *lines, rest = content.split(b"\n")
    if rest or not lines:
        raise ValueError("it is cut off")
    return len(lines), sum(_ERROR in line for line in lines)


def _prediction_of(options: Struct) -> Any:
    if getattr(options, "form", None) is not None:  # of poses, whose two forms share no types
        return CocoPose if getattr(options, "form", "") == "coco" else Pose
    return TASKS[operation_of(options)].prediction


def _arrow(kind: Any) -> pa.DataType:
    """Return the Arrow type of an annotation."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind in _PLAIN:
        return _PLAIN[kind]
    if kind is Embedding:  # the numbers are float32, which Python has no type for
        return pa.struct([("embedding", pa.list_(pa.float32()))])
    if isinstance(kind, type) and issubclass(kind, Struct):
        return pa.struct([(field.encode_name, _arrow(field.type)) for field in msgspec.structs.fields(kind)])
    if origin in (Union, types.UnionType):
        return reduce(_merged, [_arrow(one) for one in arguments if one is not types.NoneType])
    if origin is dict:
        return pa.map_(_arrow(arguments[0]), _arrow(arguments[1]))
    return pa.list_(_arrow(arguments[0]))  # list[T], tuple[T, T], Sequence[T]


def _merged(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    fields = {field.name: field.type for kind in (one, other) for field in kind}
    return pa.struct(list(fields.items()))
