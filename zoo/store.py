"""The store: the folders that `export` writes and `service` serves, `models/<name>/<version>/`.

A folder has `model.onnx`, `card.json` and the golden photos, or tensors, in `golden/`. It is published atomically.
"""

import os
import re
import shutil
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from zoo.card import LARGEST_GRAPH, is_name
from zoo.errors import CardError, StoreError
from zoo.files import shown
from zoo.served_card import AnyServed, read_served_card, write_served_card
from zoo.verification import Contents, check_folder, files_of, is_of_system, read_folder, verify_folder

__all__ = ["Contents", "Entry", "Look", "Stamps", "Store", "entries_or_say", "read_folder", "verify_folder"]
_VERSION = re.compile("[0-9]{1,9}")
_MOST_LINES = 20  # printed lines about skipped folders
_MOST_NAMES = 3  # names of ignored files in a line


Stamps = tuple[tuple[str, int, int, int], ...]
"""For each file of a folder: path, size, and the times (ns) of the last change of its content and of its inode.

A copy may keep the original's content time, but not its inode time. Inode numbers are not compared, because they change
at every access in some mounted stores.
"""


@dataclass(frozen=True)
class Entry:
    """One folder of the store.

    Attributes:
        card: None if card.json cannot be read; `problem` then has the reason.
        missing: which of its files are missing; empty if it is complete. Hashes are not checked.
        stamps: of its files, at the time of the scan.
    """

    name: str
    version: str
    path: Path
    card: AnyServed | None
    problem: str = ""
    missing: str = ""
    stamps: Stamps = ()


class Look(NamedTuple):
    """The result of a scan of the store.

    Attributes:
        entries: its folders, sorted by name and then version.
        skipped: a line for each other folder, with the reason why it is not an entry.
        ignored: a line for each folder with files of operating systems.
    """

    entries: list[Entry]
    skipped: list[str]
    ignored: list[str]


class Store:
    """All folders under `root`, by default `$ZOOSERVE_MODELS`, or `models` in the working directory."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or Path(os.environ.get("ZOOSERVE_MODELS") or "models")
        self._cards: dict[Path, tuple[Stamps, AnyServed | str]] = {}  # cards that were read, or their errors

    def entries(self) -> list[Entry]:
        """Return every folder, sorted by name and then version. Hashes are not checked; see `verify`."""
        return self.look().entries

    def look(self) -> Look:
        """Return every folder that may be a model's, and why others are not. Unreadable folders are skipped."""
        entries: list[Entry] = []
        skipped: list[str] = []
        ignored: list[str] = []
        for model in _folders(self.root, skipped):
            if not is_name(model.name):
                skipped.append(f"{shown(model)} is skipped: its name is not one that a model can have")
                continue
            for folder in _folders(model, skipped):
                if not _VERSION.fullmatch(folder.name):
                    if not folder.name.startswith("."):  # a folder that `publish` is writing
                        skipped.append(f"{shown(folder)} is skipped: the name of a version is a number")
                elif (entry := self._entry(folder, skipped, ignored)) is not None:
                    entries.append(entry)
        self._cards = {entry.path: self._cards[entry.path] for entry in entries}
        return Look(sorted(entries, key=lambda entry: (entry.name, int(entry.version))), skipped, ignored)

    def _entry(self, folder: Path, skipped: list[str], ignored: list[str]) -> Entry | None:
        name, version = folder.parent.name, folder.name
        try:
            paths = list(files_of(folder))
            of_system = {path for path in paths if is_of_system(path)}
            stamps = tuple(sorted(_stamp(folder, path) for path in paths if path not in of_system))
        except (OSError, StoreError) as error:
            skipped.append(f"{shown(folder)} is skipped: {error.strerror if isinstance(error, OSError) else error}")
            return None
        if of_system:
            names = sorted({shown(path.name) for path in of_system})
            ignored.append(
                f"{shown(folder)}: ignored, as operating systems leave them: {', '.join(names[:_MOST_NAMES])}"
            )
        if all(path.rpartition("/")[2].startswith(".") for path, *_ in stamps):
            skipped.append(f"{shown(folder)} is skipped: it is empty")
            return None
        of_card = tuple(stamp for stamp in stamps if stamp[0] == "card.json")
        if self._cards.get(folder, (None,))[0] != of_card:
            self._cards[folder] = (of_card, _read_card(folder))
        card = self._cards[folder][1]
        if isinstance(card, str):
            missing = "" if of_card and of_card[0][1] else "card.json is missing"
            return Entry(name, version, folder, None, card, missing, stamps)
        return Entry(name, version, folder, card, "", _missing(card, stamps), stamps)

    def latest(self, name: str) -> Entry:
        """Return the highest version of a model.

        Raises:
            StoreError: the model was not exported.
        """
        versions = [entry for entry in self.entries() if entry.name == name]
        if not versions:
            raise StoreError(f"{self.root} holds no {name}: run `zooserve export {name}`")
        return versions[-1]

    def path(self, name: str, version: str) -> Path:
        """Return the path of a model's folder, which need not exist."""
        return self.root / name / version

    def publish(self, card: AnyServed, files: Mapping[str, Path | bytes]) -> Path:
        """Write a model's folder. It becomes visible in one step, after all hashes in the card were checked.

        An older folder of the same version is replaced by two renames. If the process is killed, the old or the new
        folder remains. If it is killed between the renames, the next call for the model restores the old one.

        Args:
            card: the content of card.json.
            files: `model.onnx` and all others that the card names, such as `golden/<photo>`: a file to copy, or bytes.

        Returns:
            The path of the folder.

        Raises:
            StoreError: the files are not those that the card names.
        """
        target = self.path(card.name, card.version)
        new, old = (target.with_name(f".{card.version}.{kind}") for kind in ("new", "old"))
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(".lock")):
            _sweep(target.parent)
            try:
                for name, content in files.items():
                    _write(new / name, content)
                write_served_card(card, new / "card.json")
                check_folder(new)
                for path in (*new.rglob("*"), new):
                    _sync(path)
            except BaseException:
                shutil.rmtree(new, ignore_errors=True)
                raise
            if target.exists():
                target.rename(old)
            new.rename(target)
            _sync(target.parent)
            shutil.rmtree(old, ignore_errors=True)
        return target

    def verify(self, name: str, version: str) -> AnyServed:
        """Recompute every hash of a model's folder, and return its card.

        Raises:
            StoreError: the message has each file that is missing, changed or not named in the card.
        """
        return verify_folder(self.path(name, version))


def entries_or_say(store: Store) -> list[Entry]:
    """Return the folders of a store for a command, and print on standard error which ones are skipped."""
    entries, skipped, ignored = store.look()
    skipped = [*skipped, *ignored]
    for line in skipped[:_MOST_LINES]:
        print(line, file=sys.stderr)  # noqa: T201
    if len(skipped) > _MOST_LINES:
        print(f"{len(skipped) - _MOST_LINES} more are skipped", file=sys.stderr)  # noqa: T201
    return entries


def _folders(folder: Path, skipped: list[str]) -> list[Path]:
    """List the folders in a folder, and the links to folders."""
    found = []
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        if not isinstance(error, FileNotFoundError):
            skipped.append(f"{shown(folder)} is skipped: {error.strerror}")
        return []
    for path in paths:
        try:
            if stat.S_ISDIR(path.stat().st_mode):
                found.append(path)
        except OSError as error:  # a broken or circular link
            skipped.append(f"{shown(path)} is skipped: {error.strerror}")
    return found


def _stamp(folder: Path, path: Path) -> tuple[str, int, int, int]:
    try:
        found = path.stat()
    except OSError:  # a broken link, or the file was just removed
        return path.relative_to(folder).as_posix(), -1, 0, 0
    size = found.st_size if stat.S_ISREG(found.st_mode) else LARGEST_GRAPH  # a pipe has no size; do not wait for it
    return path.relative_to(folder).as_posix(), size, found.st_mtime_ns, found.st_ctime_ns


def _read_card(folder: Path) -> AnyServed | str:
    try:
        return read_served_card(folder / "card.json")
    except CardError as error:
        return str(error)


def _missing(card: AnyServed, stamps: Stamps) -> str:
    """Return which of a card's files are missing or incomplete, as in an unfinished copy; empty: none."""
    sizes = {path: size for path, size, *_ in stamps}
    lacking = [f"{name} is missing" for name in sorted(card.files) if sizes.get(name, -1) < 0]
    if not lacking and sizes["model.onnx"] < card.size:
        lacking = [f"model.onnx has {sizes['model.onnx']:,} of {card.size:,} bytes"]
    return "; ".join(lacking or (f"{name} is empty" for name in sorted(card.files) if card.size and not sizes[name]))


def _sweep(folder: Path) -> None:
    """Clean up after calls of `publish` that were killed. The caller has the lock."""
    for old in folder.glob(".*.old"):
        target = old.with_name(old.name[1:].removesuffix(".old"))
        if target.exists():
            shutil.rmtree(old)
        else:
            old.rename(target)
    for new in folder.glob(".*.new"):
        shutil.rmtree(new)


def _write(path: Path, content: Path | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        shutil.copyfile(content, path)


def _sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
