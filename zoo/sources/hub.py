"""Looks up a file on a model hub: its sha256, size and licence, at the newest commit.

Libraries that keep their models' files on the Hugging Face Hub do not have their hashes. Their family calls this when
it makes a card. The first answer is cached, so that later exports of a model need no network and get the same file.
"""

import os
from pathlib import Path

import msgspec
import requests
from msgspec import Struct

from zoo.card import Sha256
from zoo.errors import SourceError
from zoo.files import read_regular
from zoo.licences import PERMISSIVE
from zoo.model_card import Source
from zoo.sources.cache import Cache
from zoo.sources.http import http_session, unreachable, without_credentials

_ENDPOINT = "https://huggingface.co"
UNKNOWN = "LicenseRef-unknown"
_TIMEOUT = (10, 60)  # seconds to connect, and between two chunks
_SPDX = {name.lower(): name for name in PERMISSIVE} | {"agpl-3.0": "AGPL-3.0-only", "cc-by-nc-4.0": "CC-BY-NC-4.0"}
"""SPDX identifiers by the hub's names of licences, which are in lower case."""


class HubFile(Struct, frozen=True):
    """A file of a repository of the hub.

    Attributes:
        source: its address at that commit, its sha256 and its size.
        licence: of the repository: its SPDX identifier; for other licences, `LicenseRef-` and the hub's name; or
            `LicenseRef-unknown`.
    """

    source: Source
    licence: str


class _Lfs(Struct):
    sha256: Sha256
    size: int


class _Sibling(Struct):
    rfilename: str
    lfs: _Lfs | None = None


class _CardData(Struct):
    license: str | list[str] | None = None


class _Model(Struct, rename="camel"):
    """The fields of a model that are used; see https://huggingface.co/docs/hub/api."""

    sha: str
    siblings: list[_Sibling]
    card_data: _CardData | None = None


def look_up(repository: str, filename: str) -> HubFile:
    """Return a file of the hub, from the cache if it was looked up before.

    `HF_ENDPOINT` is the address of another hub, such as a mirror.

    Args:
        repository: `owner/name`.
        filename: path in the repository.

    Raises:
        SourceError: there is no route to the hub, no such file, or the hub has no sha256 of it.
    """
    if known := recall(repository, filename):
        return known
    found = _ask(repository, filename)
    kept = _kept(repository, filename)
    kept.parent.mkdir(parents=True, exist_ok=True)
    part = kept.with_suffix(f".{os.getpid()}")
    part.write_bytes(msgspec.json.encode(found))
    part.replace(kept)
    return found


def recall(repository: str, filename: str) -> HubFile | None:
    """Return a file of the hub from the cache, without the network; None if it was never looked up."""
    try:
        return msgspec.json.decode(read_regular(_kept(repository, filename)), type=HubFile)
    except (OSError, msgspec.DecodeError, RecursionError):  # the hub is asked again
        return None


def file_url(repository: str, filename: str, revision: str = "main") -> str:
    """Return the address of a file of the hub."""
    return f"{_endpoint()}/{repository}/resolve/{revision}/{filename}"


def _kept(repository: str, filename: str) -> Path:
    return Cache().root / "hub" / repository / f"{filename}.json"


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", _ENDPOINT).rstrip("/")


def _ask(repository: str, filename: str) -> HubFile:
    endpoint = _endpoint()
    url = f"{endpoint}/api/models/{repository}?blobs=true"
    try:
        with http_session() as session, session.get(url, timeout=_TIMEOUT) as response:
            response.raise_for_status()
            model = msgspec.json.decode(response.content, type=_Model)
    except requests.RequestException as error:
        raise unreachable(url, error, "set HF_ENDPOINT to a mirror that you can reach, ") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise SourceError(
            f"{without_credentials(url)} does not answer as a model hub ({error}): correct HF_ENDPOINT"
        ) from error
    lfs = next((sibling.lfs for sibling in model.siblings if sibling.rfilename == filename), None)
    if lfs is None:
        known = ", ".join(sibling.rfilename for sibling in model.siblings if sibling.lfs)
        raise SourceError(
            f"{endpoint}/{repository} has no file {filename!r} with a sha256; it has {known or 'none at all'}"
        )
    return HubFile(
        Source(url=file_url(repository, filename, model.sha), sha256=lfs.sha256, size=lfs.size),
        _licence(model.card_data),
    )


def _licence(card: _CardData | None) -> str:
    name = card.license if card else None
    if not isinstance(name, str) or name in {"other", "unknown"}:
        return UNKNOWN
    return _SPDX.get(name, f"LicenseRef-{name}")
