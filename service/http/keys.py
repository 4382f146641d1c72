"""API keys: who may ask, and who may load and unload. `http.app` asks for them on every route but the probes.

Off unless `ZOOSERVE_API_KEYS` is set; the administrator's routes always need a key of `ZOOSERVE_ADMIN_KEYS`.
"""

import hashlib
import hmac
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from time import monotonic

from service.errors import Reason, RequestError
from service.settings import SettingError

logger = logging.getLogger(__name__)
_LOOK_EVERY = 1.0  # seconds


class Keys:
    """A set of keys: given with commas, or `@` and the path of a file with one per line, read again when it changes.

    Only digests are kept, and every key is compared with every digest in constant time.

    Raises:
        SettingError: there is no key in what was given, or the file cannot be read, or holds none.
    """

    def __init__(self, given: str) -> None:
        self._path = Path(given[1:]) if given.startswith("@") else None
        self._digests = [] if self._path else _digests(given.split(","))
        self._changed = 0
        self._looked = monotonic()
        if given and not self._path and not self._digests:  # two variables that are not set, say: "$A,$B"
            raise SettingError(f"the keys `{given}` hold no key: expected keys with commas between them, or @FILE")
        if self._path:
            try:
                self._read(self._path)
            except (OSError, ValueError) as error:
                raise SettingError(f"the key file {self._path} cannot be used: {error}") from error

    def __bool__(self) -> bool:
        return bool(self._digests)

    def knows(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether a request brings one of the keys: `Authorization: Bearer KEY` or `X-API-Key: KEY`."""
        self._look_again()
        scheme, _, bearer = headers.get(b"authorization", b"").partition(b" ")
        key = bearer.strip() if scheme.lower() == b"bearer" else headers.get(b"x-api-key", b"")
        given = hashlib.sha256(key).digest()
        return sum(hmac.compare_digest(given, digest) for digest in self._digests) > 0

    def _look_again(self) -> None:
        if self._path is None or monotonic() - self._looked < _LOOK_EVERY:
            return
        self._looked = monotonic()
        try:
            if self._path.stat().st_mtime_ns != self._changed:
                self._read(self._path)
                logger.info("%s holds %d keys now", self._path, len(self._digests))
        except (OSError, ValueError) as error:
            logger.error("the keys stay as they were: %s: %s", self._path, error)  # noqa: TRY400 - the reason is enough

    def _read(self, path: Path) -> None:
        self._changed = path.stat().st_mtime_ns
        digests = _digests(line for line in path.read_text("utf-8").splitlines() if not line.startswith("#"))
        if not digests:
            raise ValueError("it holds no key; each line is to be one")
        self._digests = digests


class Guard:
    """Lets requests in: everybody's where no API key is set, else those with one. An administrator may do all."""

    def __init__(self, keys: str, admin_keys: str) -> None:
        self._keys, self._admin = Keys(keys), Keys(admin_keys)
        self.open = not self._keys

    def check(self, headers: Mapping[bytes, bytes]) -> None:
        """Raise `RequestError` (`unauthorised`) where a key is due and none that is known was brought."""
        if not (self.open or self._keys.knows(headers) or self._admin.knows(headers)):
            raise RequestError(Reason.UNAUTHORISED, "A key is needed: send `Authorization: Bearer KEY`.")

    def check_admin(self, headers: Mapping[bytes, bytes]) -> None:
        """Raise `RequestError` (`forbidden` or `unauthorised`) where the request is not an administrator's."""
        if not self._admin:
            raise RequestError(
                Reason.FORBIDDEN, "Loading and unloading is off: start the server with ZOOSERVE_ADMIN_KEYS to allow it."
            )
        if not self._admin.knows(headers):
            raise RequestError(Reason.UNAUTHORISED, "An administrator's key is needed: `Authorization: Bearer KEY`.")


def _digests(keys: Iterable[str]) -> list[bytes]:
    return [hashlib.sha256(key.strip().encode()).digest() for key in keys if key.strip()]
