"""Hashes of first downloads, for files of which the publisher gives none (`trust_first` in a card).

The sha256 of the first download is kept in the cache, under `pins/`, with the address and the date. Every later
download is compared with it: trust on first use. `zoo.sources` keeps them, `zooserve list` and `show` mark them.
"""

import hashlib
from datetime import UTC, datetime
from pathlib import PurePosixPath

import msgspec
from msgspec import Struct

from zoo.card import Sha256
from zoo.errors import SourceError
from zoo.model_card import Place, Source
from zoo.sources.cache import Cache
from zoo.sources.mirror import ANSWERS, answer_of_mirror, path_in_mirror


class Pin(Struct, frozen=True):
    """The hash of a first download.

    Attributes:
        address: of the file.
        sha256: of the file as it was.
        at: date and time, ISO 8601, UTC.
    """

    address: str
    sha256: Sha256
    at: str


def pinned(source: Source, *, ask: bool = True) -> Source:
    """Return the source with the hash of its first download, where it has no other and there was one.

    Args:
        source: any; one with a hash is returned as it is.
        ask: also the mirror, which may need the network.
    """
    if source.digest or (pin := find_pin(source, ask=ask)) is None:
        return source
    return msgspec.structs.replace(source, sha256=pin.sha256)


def find_pin(source: Source, *, ask: bool = True) -> Pin | None:
    """Return the hash of a source's first download, here or at the mirror; None if there was none."""
    path = pin_path(source)
    own = Cache().answer(path)
    found = own or (answer_of_mirror(path) if ask else None)
    if found is None:
        return None
    try:
        return msgspec.json.decode(found, type=Pin)
    except (msgspec.DecodeError, RecursionError) as error:
        where = Cache().root / path if own else f"{ANSWERS}/{path} of ZOOSERVE_MIRROR"
        raise SourceError(
            f"{where} should hold the hash of a first download, but cannot be read ({error}): delete it, "
            "if the next download is to be trusted"
        ) from error


def first_download(source: Source) -> str | None:
    """Return the hash of a source's first download, "" before it; None where the publisher gives a hash. No network."""
    if source.digest:
        return None
    found = find_pin(source, ask=False)
    return found.sha256 if found else ""


def pin(source: Source, sha256: str) -> None:
    """Keep the hash of a first download."""
    kept = Pin(_address(source), sha256, datetime.now(UTC).isoformat(timespec="seconds"))
    Cache().keep(pin_path(source), msgspec.json.encode(kept))


def pin_path(place: Place) -> str:
    """Return the path of a place's pin in the cache."""
    address = _address(place)
    return f"pins/{PurePosixPath(address).name[:100]}-{hashlib.sha256(address.encode()).hexdigest()[:16]}.json"


def _address(place: Place) -> str:
    return path_in_mirror(place) or f"file/{place.file}"
