"""Reads lists of addresses: a text file, or a column of a table."""

import csv as text_csv
import io
from collections.abc import Callable, Iterator
from typing import IO, Any

import msgspec
import pyarrow as pa
from pyarrow import csv, parquet

_TEXT = "utf-8-sig"  # some programs begin a file with a byte order mark


def _lines(file: IO[bytes], _: str) -> Iterator[str]:
    text = io.TextIOWrapper(file, encoding=_TEXT)
    return (line.strip() for line in text if line.strip())


def _csv(file: IO[bytes], column: str) -> Iterator[Any]:
    parse = csv.ParseOptions(newlines_in_values=True)  # in a caption, for example
    # A reader of pyarrow's would go on reading the file in the background. Other columns need not be UTF-8.
    text = io.TextIOWrapper(file, encoding=_TEXT, errors="replace", newline="")
    try:
        names: list[str] = next(filter(None, text_csv.reader(text)), [])
    except text_csv.Error as error:
        raise ValueError(f"its first line cannot be read: {error}") from error
    text.detach()
    if column not in names:
        raise KeyError(f"`{column}` (there are {', '.join(names)})")
    file.seek(0)
    # Of another column, the first megabyte may look like numbers, and the rest not: it is not read.
    convert = csv.ConvertOptions(
        include_columns=[column], column_types={column: pa.string()}, strings_can_be_null=False
    )
    with csv.open_csv(file, parse_options=parse, convert_options=convert) as reader:
        for batch in reader:
            yield from batch.column(column).to_pylist()


def _jsonl(file: IO[bytes], column: str) -> Iterator[Any]:
    for line in io.TextIOWrapper(file, encoding=_TEXT):
        if line.strip():
            row = msgspec.json.decode(line)
            if not isinstance(row, dict) or column not in row:
                raise KeyError(f"`{column}` in {line[:80]!r}")
            yield row[column]


def _parquet(file: IO[bytes], column: str) -> Iterator[Any]:
    table = parquet.ParquetFile(file)
    if column not in table.schema_arrow.names:
        raise KeyError(f"`{column}` (there are {', '.join(table.schema_arrow.names)})")
    for batch in table.iter_batches(columns=[column]):
        yield from batch.column(column).to_pylist()


Read = Callable[[IO[bytes], str], Iterator[Any]]
"""Takes a file and the name of a column, and yields what should be addresses.

It raises `KeyError` where there is no such column, and what its library does where the file is of another kind.
"""
LISTS: dict[str, Read] = {
    ".txt": _lines,
    ".csv": _csv,
    ".jsonl": _jsonl,
    ".parquet": _parquet,
}
"""How each kind of list is read, by the end of its name."""
