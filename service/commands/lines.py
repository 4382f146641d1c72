"""The file of `zooserve predict --server`: a line of JSON per picture, safe to be killed and gone on with at any time.

Lines are only ever appended, each with one write; the file is replaced as a whole, atomically, where lines have to go.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import msgspec


class LinesError(Exception):
    """A file of something else, or of another model; the message says which line, and what to do."""


_BEGIN = b'{"file":'  # of every line


class _Head(msgspec.Struct):
    """What is read of a line again."""

    file: str
    model: str
    error: Any = None


class _Place(NamedTuple):
    start: int
    end: int
    failed: bool


class Lines:
    """The lines of one file, by the picture's name.

    A last line that was torn when its writer was killed is cut off at once: its picture has no line then.

    Args:
        path: of the file; made where there is none.
        model: which answers; the lines of another's are none to go on with.

    Raises:
        LinesError: see there.
        OSError: the file cannot be read or written.
    """

    def __init__(self, path: Path, model: str) -> None:
        self._path, self._model = path, model
        self._places: dict[str, _Place] = {}
        self._file = path.open("ab+", buffering=0)
        self._end = 0
        try:
            self._read()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def failed(self) -> set[str]:
        """Names of the pictures whose line is an error."""
        return {name for name, place in self._places.items() if place.failed}

    def add(self, name: str, answer: Mapping[str, Any]) -> None:
        """Append a picture's line: its answer, or `{"error": ...}`."""
        line = msgspec.json.encode({"file": name, "model": self._model, **answer}) + b"\n"
        written = self._file.write(line)
        if written != len(line):
            raise OSError(f"{self._path}: the disk is full")
        self._places[name] = _Place(self._end, self._end + len(line), "error" in answer)
        self._end += len(line)

    def keep(self, names: Iterable[str]) -> None:
        """Keep the lines of these pictures, in this order, and drop all others."""
        places = {name: self._places[name] for name in names}
        if list(places) == list(self._places):
            return
        part = self._path.with_name(f".{self._path.name}.part")
        kept: dict[str, _Place] = {}
        end = 0
        with self._path.open("rb") as old, part.open("wb") as new:
            for name, place in places.items():
                old.seek(place.start)
                end += new.write(old.read(place.end - place.start))
                kept[name] = _Place(end - (place.end - place.start), end, place.failed)
            new.flush()
            os.fsync(new.fileno())
        part.replace(self._path)
        self._file.close()
        self._file = self._path.open("ab+", buffering=0)
        self._places, self._end = kept, end

    def _read(self) -> None:
        with self._path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                torn = not line.endswith(b"\n")
                if torn and line[: len(_BEGIN)] == _BEGIN[: len(line)]:
                    break
                try:
                    head = msgspec.json.decode(line, type=_Head)
                except msgspec.DecodeError as error:
                    raise LinesError(
                        f"{self._path}, line {number}: {error}. Name another file, or remove this one."
                    ) from error
                if head.model != self._model:
                    raise LinesError(
                        f"{self._path}, line {number}: answered by {head.model}, not {self._model}. Name another file."
                    )
                if head.file in self._places:
                    raise LinesError(f"{self._path}, line {number}: {head.file} has a line already. Remove one.")
                self._places[head.file] = _Place(self._end, self._end + len(line), head.error is not None)
                self._end += len(line)
        self._file.truncate(self._end)
