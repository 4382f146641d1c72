"""Compares a model's folder with its card: hashes, sizes, and that there are no other files.

`zoo.store` calls it before it publishes a folder, the service before it serves one, and `zooserve verify`.
"""

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from zoo.errors import CardError, StoreError
from zoo.files import open_regular, shown
from zoo.served_card import AnyServed, read_served_card

_LARGEST_GOLDEN = 256_000_000  # bytes of a golden photo, or of golden tensors
_MOST_FILES = 1000  # in a model's folder
_CHUNK = 1 << 20
_OF_SYSTEMS = {".ds_store", "thumbs.db", "desktop.ini"}  # and `._NAME`, which macOS writes next to NAME


@dataclass(frozen=True)
class Contents:
    """The content of a verified folder.

    Attributes:
        files: the verified bytes of all files except card.json, by their paths in the folder.
    """

    card: AnyServed
    files: dict[str, bytes]


def verify_folder(folder: Path) -> AnyServed:
    """Recompute every hash of `<name>/<version>/`, and return its card.

    Raises:
        StoreError: the message has each file that is missing, changed or not named in the card.
    """
    return _check_in_place(folder, None)


def read_folder(folder: Path) -> Contents:
    """Verify a folder as `verify_folder` does, and return the verified bytes, which later changes do not affect.

    Raises:
        StoreError: as `verify_folder`.
    """
    files: dict[str, bytes] = {}
    return Contents(_check_in_place(folder, files), files)


def _check_in_place(folder: Path, kept: dict[str, bytes] | None) -> AnyServed:
    if not folder.is_dir():
        raise StoreError(f"{folder} does not exist: run `zooserve export {folder.parent.name}`")
    card = check_folder(folder, kept)
    if (card.name, card.version) != (folder.parent.name, folder.name):
        raise StoreError(f"{folder} holds {card.name} version {card.version}: rename it to {card.name}/{card.version}")
    return card


def check_folder(folder: Path, kept: dict[str, bytes] | None = None) -> AnyServed:
    """Compare a folder with its card, and store the files' bytes in `kept` if that is given.

    Hidden files are checked, because ONNX Runtime reads any file of the folder that a graph names. Files that operating
    systems put into folders are ignored: they are never read, and a server lets no graph read another file.

    Raises:
        StoreError: as `verify_folder`.
    """
    try:
        card = read_served_card(folder / "card.json")
    except CardError as error:
        raise StoreError(f"{error}. {_remedy(folder)}") from error
    expected = card.files
    try:
        paths = [path for path in files_of(folder) if not is_of_system(path)]
        present = {path.relative_to(folder).as_posix() for path in paths} - {"card.json"}
    except OSError as error:
        raise StoreError(f"{folder} cannot be read: {error.strerror}") from error
    faults = [f"{name} is missing" for name in sorted(expected.keys() - present)]
    faults += [f"{shown(name)} is not named in card.json" for name in sorted(present - expected.keys())]
    for name in sorted(present & expected.keys()):
        size = card.size if name == "model.onnx" else None
        if fault := _fault(folder / name, expected[name], size, None if kept is None else (kept, name)):
            faults.append(f"{name} {fault}")
    if faults:
        raise StoreError(f"{folder}: {'; '.join(faults)}. {_remedy(folder)}")
    return card


def files_of(folder: Path) -> Iterator[Path]:
    """Yield the paths of everything in a folder that is not a folder; links are not followed."""
    count = 0
    for parent, folders, files in os.walk(folder, onerror=_raise):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        count += len(files) + len(folders)
        if count > _MOST_FILES:
            raise StoreError(f"{folder} holds more than {_MOST_FILES} files, which no model has")
        yield from (Path(parent, name) for name in (*files, *links))


def is_of_system(path: Path) -> bool:
    """Return whether an operating system made this file itself: a regular file with one of a few names."""
    name = path.name.lower()
    try:
        return (name in _OF_SYSTEMS or name.startswith("._")) and stat.S_ISREG(path.lstat().st_mode)
    except OSError:  # it was just removed
        return False


def _raise(error: OSError) -> None:
    raise error


def _fault(path: Path, sha256: str, size: int | None, kept: tuple[dict[str, bytes], str] | None) -> str:
    """Return what is wrong with a file, or an empty text. It is read once, and its bytes are stored in `kept`."""
    most = _LARGEST_GOLDEN if size is None else size
    data, read, actual = b"", 0, ""
    try:
        with open_regular(path) as file:
            length = os.fstat(file.fileno()).st_size
            if length <= most and kept is not None:
                data = file.read(length + 1)  # one more, to detect that the file grows
                read, actual = len(data), hashlib.sha256(data).hexdigest()
            elif length <= most:
                read, actual = _digest(file, most)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    length = max(length, read)
    if length > most:
        return f"was changed: it has {length:,} bytes, and may have {most:,}"
    if actual != sha256:
        return f"was changed: its sha256 is {actual}, card.json says {sha256}"
    if size not in (None, read):
        return f"has {read} bytes, card.json says {size}"
    if kept is not None:
        kept[0][kept[1]] = data
    return ""


def _digest(file: BinaryIO, most: int) -> tuple[int, str]:
    """Count and hash the bytes of a file; stop soon after `most`, because it may grow as fast as it is read."""
    hasher, read = hashlib.sha256(), 0
    while read <= most and (chunk := file.read(_CHUNK)):
        hasher.update(chunk)
        read += len(chunk)
    return read, hasher.hexdigest()


def _remedy(folder: Path) -> str:
    return f"Delete the folder and run `zooserve export {folder.parent.name}`"
