"""Finds the images of a source: a folder, a glob, or a list. Yields addresses one by one; no image is read."""

import glob
import io
import itertools
import os
import re
from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import Any

import msgspec
from fsspec.utils import glob_translate
from pyarrow import fs
from zooserve_client.images import IMAGE_SUFFIXES

from scoring.fetch import UnreadableError, fetch
from scoring.lists import LISTS, Read
from scoring.storage import (
    StorageError,
    contents,
    is_local,
    local_address,
    local_path,
    open_address,
    public_address,
)
from service.errors import RequestError
from zoo.errors import refused_by_system

_LARGEST_LIST = 1 << 32  # bytes of a list that comes over https
_LIST_S = 600.0
_FLAT = "gcs"  # of Google's storage, pyarrow lists only those folders that are objects themselves
_WITH_COLUMNS = (".csv", ".jsonl", ".parquet")


def absolute(source: str) -> str:
    """Return a source's address, which is the same in every folder and on every machine that has the files."""
    return local_address(os.path.abspath(local_path(source))) if is_local(source) else source  # noqa: PTH100 - keeps links


def images_of(source: str, column: str = "path") -> Iterator[str]:
    """Yield the address of every image of a source; an image may come twice. Hidden files and folders are left out.

    A folder in a folder that cannot be listed is yielded itself: reading it fails, and its row says why.

    Args:
        source: a folder, a glob (`*`, `?`, `[]`, `**`), an image, or a list of addresses (.txt: one a line; .csv,
            .jsonl, .parquet: a column). Relative addresses in a list are relative to its folder.
        column: of a list, that has the addresses.

    Raises:
        StorageError: there is no such source, or it cannot be read.
    """
    source = absolute(source)
    read = None if _is_folder(source) else LISTS.get(_suffix(source))
    try:
        if read is not None:
            yield from _listed(source, read, column)
        elif source.startswith(("http://", "https://")):
            yield from _web(source)
        elif is_local(source):
            yield from _local(local_path(source))
        else:
            yield from _remote(source)
    except OSError as error:
        said = refused_by_system(error)
        raise (StorageError(said) if error.filename else _error(source, said)) from error
    except StorageError:
        raise
    except Exception as error:  # of a glob such as `**.jpg`; file systems of fsspec raise what their libraries do
        raise _error(source, str(error)) from error


def _error(source: str, said: str) -> StorageError:
    return StorageError(f"{public_address(source)}: {said}")


def column_of(source: str, column: str) -> str:
    """Return the column in which a source has its addresses; empty where it has none."""
    return column if _suffix(source) in _WITH_COLUMNS and not _is_folder(source) else ""


def _suffix(address: str) -> str:
    return os.path.splitext(_without_query(address))[1].lower()  # noqa: PTH122 - not always a path


def _without_query(address: str) -> str:
    """Return an address without what follows the path: a token, for example. In other addresses `?` is a character."""
    return re.split("[?#]", address, maxsplit=1)[0] if address.startswith(("http://", "https://")) else address


def _is_folder(source: str) -> bool:
    return is_local(source) and os.path.isdir(local_path(source))  # noqa: PTH112 - bytes that are not UTF-8


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def _single(address: str) -> Iterator[str]:
    """Yield the address of one image. A list of a kind that is not read would be one row with an error."""
    if _suffix(address) not in IMAGE_SUFFIXES:
        kinds = f"an image ({', '.join(IMAGE_SUFFIXES)}) nor a list ({', '.join(LISTS)})"
        raise _error(address, f"its name is neither that of {kinds}")
    yield address


def _web(source: str) -> Iterator[str]:
    if _suffix(source) not in IMAGE_SUFFIXES:
        raise _error(source, "a folder cannot be listed over https. Give a list of addresses.")
    yield source


def _local(path: str) -> Iterator[str]:
    if os.path.isdir(path):  # noqa: PTH112 - bytes that are not UTF-8
        return _walk(path)
    if os.path.exists(path):  # noqa: PTH110
        return _single(local_address(path))
    if glob.has_magic(path):
        return _globbed(path)
    raise StorageError(f"{path}: no such folder, list or image")


def _globbed(pattern: str) -> Iterator[str]:
    if "**" in pattern:
        yield from _below(pattern)
        return
    names = pattern.split("/")
    for end in [number for number, name in enumerate(names) if glob.has_magic(name)]:
        # `glob` does not tell of folders that cannot be listed.
        folder = "/".join(names[:end]) + "/"
        if not glob.has_magic(folder):
            os.scandir(folder).close()
        for path in glob.iglob(folder):  # noqa: PTH207
            if not os.access(path, os.R_OK | os.X_OK):
                yield local_address(path.rstrip("/"))
    for path in glob.iglob(pattern):  # noqa: PTH207 - yields as it finds
        if _is_image(os.path.basename(path)) and not os.path.isdir(path):  # noqa: PTH112, PTH119
            yield local_address(path)


def _below(pattern: str) -> Iterator[str]:
    """Yield what matches a pattern with `**`, which in `glob` follows links, also in circles."""
    plain = itertools.takewhile(lambda name: not glob.has_magic(name), pattern.split("/"))
    matches = re.compile(glob_translate(pattern)).match
    for address in _walk("/".join(plain)):
        path = local_path(address)
        if matches(path) or not _is_image(os.path.basename(path)):  # noqa: PTH119 - a folder that cannot be listed
            yield address


def _walk(folder: str, *, top: bool = True) -> Iterator[str]:
    """Yield the images of a folder, sorted, and then those of its folders. Links to folders are not followed."""
    names, folders = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.name)
                # A link that leads nowhere, or where nobody may look, is no folder: its row says so.
                elif _is_image(entry.name) and not (entry.is_symlink() and os.path.isdir(entry.path)):  # noqa: PTH112
                    names.append(entry.name)
    except OSError:
        if top:
            raise
        yield local_address(folder)
        return
    for name in sorted(names):
        yield local_address(f"{folder}/{name}")
    for name in sorted(folders):
        yield from _walk(f"{folder}/{name}", top=False)


def _remote(source: str) -> Iterator[str]:
    system, path = open_address(source)
    scheme, _, rest = source.partition("://")
    # `gs://anonymous@bucket` is how public buckets are read. Other users have passwords, which no row is to hold.
    root = f"{scheme}://anonymous@" if rest.startswith("anonymous@") else f"{scheme}://"
    if glob.has_magic(path):
        plain = "/".join(itertools.takewhile(lambda name: not glob.has_magic(name), path.split("/")))
        matches = re.compile(glob_translate(path)).match
        if system.type_name == _FLAT:
            return (f"{root}{one}" for one in _flat(system, plain) if matches(one))
        depth = inf if "**" in path else path.count("/") - plain.count("/")
        found = _walk_remote(system, plain, depth)
        return (f"{root}{one}" for one in found if matches(one) or not _is_image(one.rpartition("/")[2]))
    if system.type_name == _FLAT and (below := _flat(system, path)):
        return (f"{root}{one}" for one in below)
    info = system.get_file_info(path)
    if info.is_file:
        return _single(source)
    if info.type == fs.FileType.NotFound:
        raise _error(source, "no such folder, list or image")
    return (f"{root}{one}" for one in _walk_remote(system, path))


def _flat(system: fs.FileSystem, folder: str) -> list[str]:
    """Return the paths of all images below a folder of a store whose listing has no folders, sorted."""
    entries = system.get_file_info(fs.FileSelector(folder, recursive=True, allow_not_found=True))
    found = [info.path for info in entries if info.is_file and _is_image(info.base_name)]
    return sorted(path for path in found if "/." not in path[len(folder) :])


def _walk_remote(system: fs.FileSystem, folder: str, depth: float = inf, *, top: bool = True) -> Iterator[str]:
    """Yield the paths of the images of a folder, sorted, and then those of its folders, `depth` levels in all."""
    try:
        entries = sorted(contents(system, folder), key=lambda info: info.path)
    except OSError:
        if top:
            raise
        yield folder
        return
    for info in entries:
        if info.is_file and _is_image(info.base_name):
            yield info.path
    for info in entries:
        if info.type == fs.FileType.Directory and not info.base_name.startswith(".") and depth > 1:
            yield from _walk_remote(system, info.path, depth - 1, top=False)


def _listed(source: str, read: Read, column: str) -> Iterator[str]:
    here = is_local(source)
    parent = (local_path(source) if here else _without_query(source)).rpartition("/")[0]
    with _opened(source) as file:
        try:
            for row, address in enumerate(read(file, column), 1):
                if not isinstance(address, str) or not address:
                    raise _error(source, f"row {row} has {address!r} in `{column}`: not an address, as text")
                if not ("://" in address or address.startswith("/")):
                    address = local_address(f"{parent}/{address}") if here else f"{parent}/{address}"  # noqa: PLW2901
                yield address
        except (KeyError, UnicodeDecodeError, msgspec.DecodeError) as error:
            said = f"no column {error.args[0]}: name one with --column" if isinstance(error, KeyError) else str(error)
            raise _error(source, said) from error


def _opened(source: str) -> Any:
    if is_local(source):
        return Path(local_path(source)).open("rb")
    if source.startswith(("http://", "https://")):
        try:
            return io.BytesIO(fetch(source, _LARGEST_LIST, _LIST_S))
        except (UnreadableError, RequestError) as error:
            raise _error(source, str(error)) from None
    system, path = open_address(source)
    return system.open_input_file(path)
