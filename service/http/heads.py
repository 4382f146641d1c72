"""What a request's head must be, beyond what the parser checks (llhttp refuses two lengths, folded lines and the like).

A head that two servers read differently lets a client slip requests past a proxy (RFC 9112, 11.2).
"""

import re
from collections.abc import Iterable
from http import HTTPStatus

from service.http.problems import Problem

MAX_HEADERS = 64 * 1024  # bytes of the request line and all names and values
MAX_FIELDS = 256  # headers
_ORIGIN = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*+://[^/?#]*+")
_HOST = re.compile(rb"[A-Za-z0-9._~%!$&'()*+,;=:\[\]-]*+")


def wrong(version: str, headers: Iterable[tuple[bytes, bytes]]) -> Problem | None:
    """Say what is wrong with a head: its version, its `Host`, its Transfer-Encoding. None: nothing.

    Args:
        version: of HTTP, as `1.1`.
        headers: name in lower case, and value.
    """
    hosts = 0
    for name, value in headers:
        if name == b"host":
            hosts += 1
            if not _HOST.fullmatch(value):
                return _bad(f"Host: {value[:80].decode('latin-1')}: expected a name or an address, and maybe a port.")
        elif name == b"transfer-encoding" and value.strip().lower() != b"chunked":
            status = HTTPStatus.NOT_IMPLEMENTED
            return refusal(status, "bad_request", "Transfer-Encoding: expected `chunked`, or none.")
    if version not in ("1.1", "1.0"):
        status = HTTPStatus.HTTP_VERSION_NOT_SUPPORTED
        return refusal(status, "bad_request", f"HTTP/{version[:8]} is not served: expected HTTP/1.1.")
    if hosts > 1 or (not hosts and version == "1.1"):
        return _bad(f"The request has {hosts or 'no'} `Host` headers: expected one (RFC 9112, 3.2).")
    return None


def with_path(url: bytes) -> bytes:
    """Complete an absolute URL that ends behind its host (RFC 9112, 3.2.2): the parser refuses one without a path."""
    found = _ORIGIN.match(url)
    if found is None or url.startswith(b"/", found.end()):
        return url
    return url[: found.end()] + b"/" + url[found.end() :]


def declared_length(headers: Iterable[tuple[bytes, bytes]]) -> int:
    """Return what Content-Length says; 0: nothing. The parser let only a number through."""
    return next((int(value) for name, value in headers if name == b"content-length"), 0)


def refusal(status: HTTPStatus, reason: str, detail: str) -> Problem:
    """Describe why a connection is refused, or a request before the app sees it."""
    return Problem(status.phrase, status, reason, detail)


def _bad(detail: str) -> Problem:
    return refusal(HTTPStatus.BAD_REQUEST, "bad_request", detail)
