"""Fetches files by source and sha256: `fetch` fetches one, `fetch_all` those of a card.

A source has one hash and one or more places: the mirror of `ZOOSERVE_MIRROR` is asked first, then its own place (the
publisher), then its `mirrors` in turn. Fetched files are kept in the cache, `$ZOOSERVE_CACHE` or the user's cache
folder, under their sha256 (see `zoo.sources.cache`), which is checked each time they are used. `export` calls this for
checkpoints, `zoo.catalog` for sample photos and datasets.
"""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from urllib.parse import quote, urlsplit

from zoo.errors import SourceError
from zoo.files import sha256_of
from zoo.model_card import Place, Source
from zoo.sources.cache import Cache
from zoo.sources.http import download, without_credentials
from zoo.sources.hub_files import fetch_hub_file, hub_file_of
from zoo.sources.mirror import at_mirror
from zoo.sources.packages import fetch_members
from zoo.sources.pins import pin, pin_path, pinned

__all__ = ["address", "fetch", "fetch_all"]


def fetch(source: Source, *, progress: bool = True) -> Path:
    """Return the path of the file that `source` names, downloading it if it is not in the cache.

    Args:
        source: where the file comes from, and its sha256.
        progress: show a bar on a terminal and plain lines elsewhere, on standard error.

    Raises:
        SourceError: there is no route or no such file, or its sha256 is another one; with several places, at each.
    """
    return fetch_all({"file": source}, progress=progress)["file"]


def fetch_all(sources: Mapping[str, Source], *, progress: bool = True) -> dict[str, Path]:
    """Fetch several files, by name. An archive that holds several of them is downloaded once.

    Raises:
        SourceError: as `fetch`.
    """
    cache = Cache()
    found: dict[str, Path] = {}
    waiting: dict[str, tuple[Source, ...]] = {}
    for name, source in sources.items():
        known = pinned(source)
        if source.file is None and (path := cache.find(known)) is not None:
            found[name] = path
        else:
            waiting[name] = _attempts(known)
    faults: dict[str, list[SourceError]] = {name: [] for name in waiting}
    while waiting:
        together: dict[str, dict[str, Source]] = {}
        for name, attempts in waiting.items():
            origin = attempts[0].package or attempts[0].url or f"file of {name}"
            together.setdefault(origin, {})[name] = attempts[0]
        for origin, group in together.items():
            try:
                found |= _fetch_group(origin, group, cache, progress)
            except SourceError as error:
                for name, attempt in group.items():
                    if len(group) > 1 and (path := cache.find(attempt)) is not None:  # another one of them failed
                        found[name] = path
                        continue
                    faults[name].append(error)
                    if len(waiting[name]) == 1:
                        raise _summed_up(faults[name], sources[name], attempt) from error
        waiting = {name: attempts[1:] for name, attempts in waiting.items() if name not in found}
    for name, source in sources.items():
        if not pinned(source).digest:
            pin(source, sha256_of(found[name]))
    return {name: found[name] for name in sources}


def address(source: Place) -> str:
    """Return a place's address for messages and card.json: a URL, a package URL (purl), or a local file's name.

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


def _attempts(source: Source) -> tuple[Source, ...]:
    """Return the same file at each place in the order in which they are tried: the mirror of your own comes first."""
    places = source.places()
    own = (mirrored for place in places if (mirrored := at_mirror(place)) is not None)
    return *(mirrored for mirrored in own if mirrored.file is None or Path(mirrored.file).is_file()), *places


def _summed_up(faults: list[SourceError], source: Source, known: Source) -> SourceError:
    """Make one error of those of all places of a source, which is `known` with the hash that was expected."""
    said = str(faults[0])
    mirrored = at_mirror(source)
    if mirrored is not None and mirrored.file is not None and not Path(mirrored.file).exists():
        said = f"the mirror has no {mirrored.file}; {said}"
    if len(faults) > 1:
        said = f"none of its {len(faults)} places has the file. "
        said += " ".join(f"({number}) {fault}." for number, fault in enumerate(faults, 1))
    if not source.digest and known.digest and f"expected {known.digest}" in said:
        kept = Cache().root / pin_path(source)
        said = (
            f"{said.removesuffix('.')}. That was the sha256 of the first download: delete {kept} to trust the next one"
        )
    return SourceError(said)


def _fetch_group(origin: str, group: Mapping[str, Source], cache: Cache, progress: bool) -> dict[str, Path]:
    """Fetch sources of one origin: a local file, the same URL, or members of one package."""
    found = {name: _local(Path(source.file), source) for name, source in group.items() if source.file is not None}
    if found:
        return found
    # Wait for another process that may be fetching the same, then look again.
    with cache.writing(), cache.lock(origin):
        missing = {}
        for name, source in group.items():
            if (path := cache.find(source)) is not None:
                found[name] = path
            else:
                missing[name] = source
        return found | _download(missing, cache, progress)


def _local(path: Path, source: Source) -> Path:
    if not path.is_file():
        raise SourceError(f"there is no file {path}: correct `file` in the card, or put the file there")
    try:
        actual = sha256_of(path)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error
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
        file = hub_file_of(url)
        if file is not None and (path := fetch_hub_file(file, source)) is not None:
            found[name] = path
            continue
        filename = PurePosixPath(urlsplit(url).path).name or "file"
        digest = download(
            url, part := cache.part(url), source.digest, label=filename, size=source.size, progress=progress
        )
        found[name] = cache.add(part, digest, filename)
    return found
