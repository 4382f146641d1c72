"""Files of the Hugging Face Hub, downloaded by `huggingface_hub` where it is installed.

So its own settings count: `HF_TOKEN` or `hf auth login` for gated repositories, `HF_HOME` for its cache, in which files
of other programs are found, `HF_HUB_OFFLINE`, and `HF_ENDPOINT` for a mirror. Without it, and at servers that only have
the files, `zoo.sources.http` downloads them like any other. `zoo.sources` calls this.
"""

import os
import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from zoo.errors import SourceError
from zoo.extras import installed
from zoo.files import sha256_of
from zoo.model_card import Source
from zoo.sources.http import LARGEST_FILE, without_credentials

_ENDPOINT = "https://huggingface.co"
_FILE = re.compile(r"/(?P<repository>[\w.-]+/[\w.-]+)/resolve/(?P<revision>[^/?]+)/(?P<name>[^?]+)")


class HubPath(NamedTuple):
    """A file of a repository of the hub, at a revision (a commit or a branch)."""

    repository: str
    revision: str
    name: str


def endpoint() -> str:
    """Return the address of the hub: `HF_ENDPOINT`, or Hugging Face's own."""
    return os.environ.get("HF_ENDPOINT", _ENDPOINT).rstrip("/")


def is_offline() -> bool:
    """Return whether the user told `huggingface_hub` to stay offline (`HF_HUB_OFFLINE`)."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def token() -> str | None:
    """Return the token of the user for the hub, from `HF_TOKEN` or from `hf auth login`; None where there is none."""
    if not installed("huggingface_hub"):
        return os.environ.get("HF_TOKEN") or None
    from huggingface_hub import get_token  # noqa: PLC0415 - takes a moment, and is not always installed

    return get_token()


def hub_file_of(url: str) -> HubPath | None:
    """Return the file that an address of the hub names; None for other addresses, or without `huggingface_hub`."""
    for base in (endpoint(), _ENDPOINT):
        if url.startswith(f"{base}/") and (found := _FILE.fullmatch(url.removeprefix(base))):
            path = HubPath(found["repository"], unquote(found["revision"]), unquote(found["name"]))
            return path if installed("huggingface_hub") else None
    return None


def in_hub_cache(file: HubPath) -> Path | None:
    """Return a file of `huggingface_hub`'s own cache; None where it is not there, or without that library."""
    if not installed("huggingface_hub"):
        return None
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415

    path = try_to_load_from_cache(file.repository, file.name, revision=file.revision)
    return Path(path) if isinstance(path, str) else None


def fetch_hub_file(file: HubPath, source: Source) -> Path | None:
    """Return the path of a file in `huggingface_hub`'s cache, downloading it if it is not there.

    None if the server does not answer as a hub does, so that the file may be downloaded like any other.

    Raises:
        SourceError: no such file, no permission, offline, or its size or sha256 is another.
    """
    path = in_hub_cache(file)
    if path is None:
        if is_offline():
            raise SourceError(
                f"{_shown(file)} is not in the cache of huggingface_hub, and HF_HUB_OFFLINE is set: unset it, or copy "
                "the cache (HF_HOME) from a machine that has the file"
            )
        path = _download(file, source.size or LARGEST_FILE)
    if path is None:
        return None
    actual = sha256_of(path)
    if not actual.startswith(source.digest):
        raise SourceError(
            f"{_shown(file)} is not the expected file: its sha256 is {actual}, expected {source.digest}. If {path} was "
            "damaged, delete it and try again; if the publisher has changed the file, look at it first"
        )
    return path


def _download(file: HubPath, most: int) -> Path | None:
    """Let `huggingface_hub` download a file of at most `most` bytes; None where its server is no hub."""
    from huggingface_hub import errors, get_hf_file_metadata, hf_hub_download, hf_hub_url  # noqa: PLC0415

    hub = without_credentials(endpoint())  # for messages
    try:
        url = hf_hub_url(file.repository, file.name, revision=file.revision, endpoint=endpoint())
        size = get_hf_file_metadata(url, endpoint=endpoint()).size or 0
        if size <= most:
            return Path(hf_hub_download(file.repository, file.name, revision=file.revision, endpoint=endpoint()))
    except errors.GatedRepoError as error:
        raise SourceError(
            f"{_shown(file)} is given to those who accepted its terms: accept them at {hub}/{file.repository}, "
            "then set HF_TOKEN or run `hf auth login`"
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.RemoteEntryNotFoundError) as error:
        raise SourceError(
            f"{hub} has no {_shown(file)} that you may see: correct the card, or set HF_TOKEN if it is private"
        ) from error
    except Exception:  # httpx's errors, its own, the system's: the plain download says what is wrong
        return None
    raise SourceError(f"{_shown(file)} is not the expected file: it has {size:,} bytes, and may have {most:,}")


def _shown(file: HubPath) -> str:
    return f"{file.repository}/{file.name} at {file.revision}"
