"""API keys. HTTP and gRPC check them for all requests except probes.

Requests need no key unless `ZOOSERVE_API_KEYS` is set. Loading and unloading always needs one of `ZOOSERVE_ADMIN_KEYS`.
"""

import codecs
import hashlib
import hmac
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from time import monotonic, time_ns

from service.errors import Reason, RequestError
from service.settings import SettingError
from zoo.files import open_regular

logger = logging.getLogger(__name__)
_CHECK_EVERY = 1.0  # seconds
_REPORT_EVERY = 60.0  # seconds
_SETTLED_NS = 2_000_000_000  # age of a file from which on a further write changes its modification time
_MAX_FILE = 256 * 1024  # bytes


class Keys:
    """A set of keys: separated by commas, or `@` and the path of a file with one per line, read again when it changes.

    Lines that begin with `#` are comments. If the file is emptied or removed, every request is refused until it has a
    key again. If it cannot be read, the previous keys stay valid. Only digests are kept, and a key is compared with all
    digests in constant time.

    Raises:
        SettingError: keys were given, but there are none among them, or the file cannot be read or has none.
    """

    def __init__(self, given: str) -> None:
        self._given = bool(given)
        self._path = Path(given[1:]) if given.startswith("@") else None
        self._digests = [] if self._path else _digests(key.encode() for key in given.split(","))
        self._state: tuple[int, int, int] | None = None  # of the file when it was read; None: read it again
        self._checked = monotonic()
        self._reported, self._reported_at = "", 0.0
        if given and not self._path and not self._digests:  # for example "$A,$B" with both variables unset
            raise SettingError(f"the keys `{given}` hold no key: expected keys with commas between them, or @FILE")
        if self._path:
            try:
                self._read(self._path)
            except (OSError, ValueError) as error:
                raise SettingError(f"the key file {self._path} cannot be used: {error}") from error
            if not self._digests:
                raise SettingError(f"the key file {self._path} holds no key: expected one per line")

    def __bool__(self) -> bool:
        """Whether keys were configured, even if their file holds none now."""
        return self._given

    def knows(self, headers: Mapping[bytes, bytes]) -> bool:
        """Return whether a request has one of the keys: `Authorization: Bearer KEY` or `X-API-Key: KEY`.

        Gateways pass a token of their own on in the first.
        """
        self._reread()
        scheme, _, bearer = headers.get(b"authorization", b"").partition(b" ")
        sent = [headers.get(b"x-api-key", b""), bearer.strip() if scheme.lower() == b"bearer" else b""]
        given = [hashlib.sha256(key).digest() for key in sent]
        return sum(hmac.compare_digest(one, digest) for one in given for digest in self._digests) > 0

    def _reread(self) -> None:
        if self._path is None or monotonic() - self._checked < _CHECK_EVERY:
            return
        self._checked = monotonic()
        before = self._digests
        try:
            if self._state is None or _state(self._path.stat()) != self._state:
                self._read(self._path)
        except (FileNotFoundError, NotADirectoryError):
            self._digests, self._state = [], None
            self._report(f"the key file {self._path} is not there: no request is admitted by it until it is")
        except (OSError, ValueError) as error:
            self._state = None
            self._report(f"the keys stay as they were: {self._path}: {error}")
        else:
            if not self._digests:
                self._report(f"the key file {self._path} holds no key: no request is admitted by it until it does")
            elif self._digests != before:
                self._reported = ""
                logger.info("%s holds %d keys now", self._path, len(self._digests))

    def _report(self, problem: str) -> None:
        """Log an error, and again every minute while it lasts."""
        if problem != self._reported or monotonic() - self._reported_at > _REPORT_EVERY:
            self._reported, self._reported_at = problem, monotonic()
            logger.error("%s", problem)

    def _read(self, path: Path) -> None:
        with open_regular(path) as file:
            found = os.fstat(file.fileno())
            content = file.read(_MAX_FILE + 1)
        if len(content) > _MAX_FILE:
            raise ValueError(f"it has more than {_MAX_FILE} bytes")
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise ValueError("it is UTF-16; save it as UTF-8")
        lines = (line.strip() for line in content.removeprefix(codecs.BOM_UTF8).splitlines())
        self._digests = _digests(line for line in lines if not line.startswith(b"#"))
        # A file that was written a moment ago may be written again with the same modification time.
        self._state = _state(found) if time_ns() - found.st_mtime_ns > _SETTLED_NS else None


class Guard:
    """Checks the keys of requests. An administrator's key is also valid as an API key.

    Attributes:
        open: whether requests need no API key.
    """

    def __init__(self, keys: str, admin_keys: str) -> None:
        self._keys, self._admin = Keys(keys), Keys(admin_keys)
        self.open = not self._keys

    def check(self, headers: Mapping[bytes, bytes]) -> None:
        """Raise `RequestError` (`unauthorised`) if the server has keys and the request has none of them."""
        if not (self.open or self._keys.knows(headers) or self._admin.knows(headers)):
            raise RequestError(Reason.UNAUTHORISED, "A key is needed: send `Authorization: Bearer KEY`.")

    def check_admin(self, headers: Mapping[bytes, bytes]) -> None:
        """Raise `RequestError` without an administrator's key (`unauthorised`) or if none is set (`forbidden`)."""
        if not self._admin:
            raise RequestError(
                Reason.FORBIDDEN, "Loading and unloading is off: start the server with ZOOSERVE_ADMIN_KEYS to allow it."
            )
        if not self._admin.knows(headers):
            raise RequestError(Reason.UNAUTHORISED, "An administrator's key is needed: `Authorization: Bearer KEY`.")


def _digests(keys: Iterable[bytes]) -> list[bytes]:
    return [hashlib.sha256(key.strip()).digest() for key in keys if key.strip()]


def _state(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_mtime_ns, found.st_size, found.st_ino
