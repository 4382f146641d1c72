"""Looks up a file on a model hub: its sha256, size and licence, at the newest commit.

Libraries that keep their models' files on the Hugging Face Hub do not have their hashes. Their family calls this when
it makes a card. The first answer is cached, so that later exports of a model need no network and get the same file.
"""

import msgspec
import requests
from msgspec import Struct

from zoo.card import Sha256
from zoo.errors import SourceError
from zoo.files import sha256_of
from zoo.licences import PERMISSIVE
from zoo.model_card import Source
from zoo.sources.cache import Cache
from zoo.sources.http import http_session, unreachable, without_credentials
from zoo.sources.hub_files import HubPath, endpoint, in_hub_cache, is_offline, token
from zoo.sources.mirror import answer_of_mirror

UNKNOWN = "LicenseRef-unknown"
_TIMEOUT = (10, 60)  # seconds to connect, and between two chunks
_SPDX = {name.lower(): name for name in PERMISSIVE} | {"agpl-3.0": "AGPL-3.0-only", "cc-by-nc-4.0": "CC-BY-NC-4.0"}
"""SPDX identifiers by the hub's names of licences, which are in lower case."""


class HubFile(Struct, frozen=True):
    """A file of a repository of the hub.

    Attributes:
        source: its address at that commit, its sha256 and its size. Of small files, such as `config.json`, the hub has
            no sha256: their first download is trusted.
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
    size: int | None = None
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

    `HF_ENDPOINT` is the address of another hub, such as a mirror, `HF_TOKEN` opens private repositories, and with
    `HF_HUB_OFFLINE` only what `huggingface_hub` has in its own cache is found.

    Args:
        repository: `owner/name`.
        filename: path in the repository.

    Raises:
        SourceError: there is no route to the hub, or no such file.
    """
    if known := recall(repository, filename) or _read(answer_of_mirror(_kept(repository, filename))):
        return known
    found = _cached_file(repository, filename) if is_offline() else _ask(repository, filename)
    Cache().keep(_kept(repository, filename), msgspec.json.encode(found))
    return found


def recall(repository: str, filename: str) -> HubFile | None:
    """Return a file of the hub from the cache, without the network; None if it was never looked up."""
    return _read(Cache().answer(_kept(repository, filename)))


def file_url(repository: str, filename: str, revision: str = "main") -> str:
    """Return the address of a file of the hub."""
    return f"{endpoint()}/{repository}/resolve/{revision}/{filename}"


def _kept(repository: str, filename: str) -> str:
    """The path of a kept answer in the cache."""
    return f"hub/{repository}/{filename}.json"


def _read(answer: bytes | None) -> HubFile | None:
    try:
        return None if answer is None else msgspec.json.decode(answer, type=HubFile)
    except (msgspec.DecodeError, RecursionError):  # the hub is asked again
        return None


def _cached_file(repository: str, filename: str) -> HubFile:
    """Look a file up in `huggingface_hub`'s own cache, offline; its licence is unknown there."""
    path = in_hub_cache(HubPath(repository, "main", filename))
    if path is None:
        raise SourceError(
            f"{filename} of {repository} is not in the cache of huggingface_hub, and HF_HUB_OFFLINE is set: unset it, "
            "or copy the cache (HF_HOME) from a machine that has the file"
        )
    commit = path.relative_to(next(folder for folder in path.parents if folder.name == "snapshots")).parts[0]
    source = Source(url=file_url(repository, filename, commit), sha256=sha256_of(path), size=path.stat().st_size)
    return HubFile(source, UNKNOWN)


def _ask(repository: str, filename: str) -> HubFile:
    url = f"{endpoint()}/api/models/{repository}?blobs=true"
    headers = {"Authorization": f"Bearer {known}"} if (known := token()) else {}
    try:
        with http_session() as session, session.get(url, headers=headers, timeout=_TIMEOUT) as response:
            response.raise_for_status()
            model = msgspec.json.decode(response.content, type=_Model)
    except requests.RequestException as error:
        raise unreachable(url, error, "set HF_ENDPOINT to a mirror that you can reach, ") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise SourceError(
            f"{without_credentials(url)} does not answer as a model hub ({error}): correct HF_ENDPOINT"
        ) from error
    found = next((sibling for sibling in model.siblings if sibling.rfilename == filename), None)
    if found is None:
        known = ", ".join(sibling.rfilename for sibling in model.siblings)
        where = f"{without_credentials(endpoint())}/{repository}"
        raise SourceError(f"{where} has no file {filename!r}; it has {known or 'none at all'}")
    source = Source(url=file_url(repository, filename, model.sha), trust_first=True, size=found.size or None)
    if found.lfs is not None:
        source = msgspec.structs.replace(source, trust_first=False, sha256=found.lfs.sha256, size=found.lfs.size)
    return HubFile(source, _licence(model.card_data))


def _licence(card: _CardData | None) -> str:
    name = card.license if card else None
    if not isinstance(name, str) or name in {"other", "unknown"}:
        return UNKNOWN
    return _SPDX.get(name, f"LicenseRef-{name}")
