"""Looks up a file of a GitHub release: the sha256 that GitHub gives, and its size.

GitHub gives a digest for files that were uploaded since June 2025. The first answer is cached, as that of a hub
(`zoo.sources.hub`). Families whose publishers keep weights in releases call this when they make a card.
"""

import msgspec
import requests
from msgspec import Struct

from zoo.errors import SourceError
from zoo.model_card import Source
from zoo.sources.cache import Cache
from zoo.sources.http import http_session, unreachable
from zoo.sources.mirror import answer_of_mirror

_API = "https://api.github.com"
_PAGES = "https://github.com"
_TIMEOUT = (10, 60)  # seconds to connect, and between two chunks


class _Asset(Struct):
    name: str
    size: int | None = None
    digest: str | None = None


class _Release(Struct):
    """The fields of a release that are used; see https://docs.github.com/rest/releases."""

    assets: list[_Asset]


def look_up(repository: str, tag: str, name: str) -> Source:
    """Return a file of a release, from the cache if it was looked up before.

    Where GitHub gives no digest, or does not answer, the source trusts the first download.

    Args:
        repository: `owner/name`.
        tag: of the release.
        name: of the file.

    Raises:
        SourceError: the release has no such file.
    """
    if known := recall(repository, tag, name):
        return known
    if known := _read(answer_of_mirror(_kept(repository, tag, name))):
        return known
    try:
        release = _ask(repository, tag)
    except SourceError:  # where the file itself can be had, its first download is trusted; else that says what is wrong
        return trusted(repository, tag, name)
    asset = next((asset for asset in release.assets if asset.name == name), None)
    if asset is None:
        raise SourceError(f"{_PAGES}/{repository}/releases/tag/{tag} has no file {name!r}: it may have been renamed")
    kind, _, digest = (asset.digest or "").partition(":")
    source = trusted(repository, tag, name)
    if kind == "sha256":
        source = msgspec.structs.replace(source, sha256=digest, trust_first=False)
    source = msgspec.structs.replace(source, size=asset.size or None)
    Cache().keep(_kept(repository, tag, name), msgspec.json.encode(source))
    return source


def recall(repository: str, tag: str, name: str) -> Source | None:
    """Return a file of a release from the cache, without the network; None if it was never looked up."""
    return _read(Cache().answer(_kept(repository, tag, name)))


def trusted(repository: str, tag: str, name: str) -> Source:
    """Return a file of a release of which no hash is known: the first download is trusted."""
    return Source(url=f"{_PAGES}/{repository}/releases/download/{tag}/{name}", trust_first=True)


def _kept(repository: str, tag: str, name: str) -> str:
    return f"releases/{repository}/{tag}/{name}.json"


def _read(answer: bytes | None) -> Source | None:
    try:
        return None if answer is None else msgspec.json.decode(answer, type=Source)
    except (msgspec.DecodeError, RecursionError):  # it is asked again
        return None


def _ask(repository: str, tag: str) -> _Release:
    url = f"{_API}/repos/{repository}/releases/tags/{tag}"
    try:
        with http_session() as session, session.get(url, timeout=_TIMEOUT) as response:
            response.raise_for_status()
            return msgspec.json.decode(response.content, type=_Release)
    except requests.RequestException as error:
        raise unreachable(url, error) from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise SourceError(f"{url} does not answer as GitHub's API ({error})") from error
