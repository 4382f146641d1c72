"""The results file of `predict_folder_to_file`: one line of JSON per image. It stays valid if the process is killed.

A line is appended with one write. To remove lines, a new file atomically replaces the old one.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self


class ResultsFileError(Exception):
    """The file is not a results file, or another process is writing it; the message says what to do."""


_BEGIN = b'{"file":'  # every line begins like this


class _Line(NamedTuple):
    """The offsets of a line in bytes, and whether it is an error."""

    start: int
    end: int
    failed: bool


class ResultsFile:
    """The lines of one results file, by the image's name.

    A killed process may leave an incomplete last line. It is removed when the file is opened.

    Args:
        path: of the file; it is created if it does not exist.
        model: that answers; lines of another model are refused.

    Raises:
        ResultsFileError: a line is not a result, is of another model, or an image has two lines.
        OSError: the file cannot be read or written.
    """

    def __init__(self, path: Path, model: str) -> None:
        self._path, self._model = path, model
        self._lines: dict[str, _Line] = {}
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
        return name in self._lines

    def __iter__(self) -> Iterator[str]:
        return iter(self._lines)

    def __len__(self) -> int:
        return len(self._lines)

    def failed(self) -> set[str]:
        """Return the names of the images whose line is an error."""
        return {name for name, line in self._lines.items() if line.failed}

    def add(self, name: str, answer: Mapping[str, Any]) -> None:
        """Append an image's line: its answer, or `{"error": ...}`."""
        content = {"file": name, "model": self._model, **answer}
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        # In Python, bytes of file names that are not UTF-8 are lone surrogates. They are written as JSON escapes.
        line = text.encode(errors="backslashreplace") + b"\n"
        written = self._file.write(line)
        if written != len(line):
            raise OSError(f"{self._path}: the disk is full")
        self._lines[name] = _Line(self._end, self._end + len(line), "error" in answer)
        self._end += len(line)

    def keep(self, names: Iterable[str]) -> None:
        """Keep the lines of these images, in this order, and remove all others."""
        lines = {name: self._lines[name] for name in names}
        if list(lines) == list(self._lines):
            return
        part = self._path.with_name(f".{self._path.name}.part")
        kept: dict[str, _Line] = {}
        end = 0
        with self._path.open("rb") as old, part.open("wb") as new:
            for name, line in lines.items():
                old.seek(line.start)
                end += new.write(old.read(line.end - line.start))
                kept[name] = _Line(end - (line.end - line.start), end, line.failed)
            new.flush()
            os.fsync(new.fileno())
        part.replace(self._path)
        self._file.close()
        self._file = self._path.open("ab+", buffering=0)
        self._lines, self._end = kept, end

    def _read(self) -> None:
        with self._path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                incomplete = not line.endswith(b"\n")
                if incomplete and line[: len(_BEGIN)] == _BEGIN[: len(line)]:
                    break
                where = f"{self._path}, line {number}"
                name, model, failed = _head(line, where)
                if model != self._model:
                    raise ResultsFileError(f"{where}: answered by {model}, not {self._model}. Name another file.")
                if name in self._lines:
                    raise ResultsFileError(f"{where}: {name} has a line already. Remove one.")
                self._lines[name] = _Line(self._end, self._end + len(line), failed)
                self._end += len(line)
        self._file.truncate(self._end)


def _head(line: bytes, where: str) -> tuple[str, str, bool]:
    """Return a line's file, its model, and whether it is an error."""
    try:
        content = json.loads(line)
        name, model = content["file"], content["model"]
    except (ValueError, KeyError, TypeError):
        name = model = None
    if not isinstance(name, str) or not isinstance(model, str):
        raise ResultsFileError(
            f"{where}: expected a JSON object with `file` and `model`. Name another file, or remove this one."
        )
    return name, model, content.get("error") is not None
