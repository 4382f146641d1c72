"""What a request's head must be, beyond what the parser checks (llhttp refuses two lengths, folded lines and the like).

A head that two servers read differently lets a client smuggle requests past a proxy (RFC 9112, 11.2).
"""

import re
from collections.abc import Iterable
from http import HTTPStatus

from service.http.problems import Problem

Headers = Iterable[tuple[bytes, bytes]]
MAX_HEADERS = 64 * 1024  # bytes of the request line and all names and values
MAX_FIELDS = 256  # headers
_ORIGIN = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*+://[^/?#]*+")
_CHECKED = frozenset({b"host", b"transfer-encoding"})
_VERSIONS = frozenset({"1.1", "1.0"})
_HOST = re.compile(rb"[A-Za-z0-9._~%!$&'()*+,;=:\[\]-]*+")


def check_head(version: str, headers: Headers) -> Problem | None:
    """Say what is wrong with a head: its version, its `Host`, its Transfer-Encoding. None: nothing.

    Args:
        version: of HTTP, as `1.1`.
        headers: name in lower case, and value.
    """
    hosts = 0
    for name, value in [header for header in headers if header[0] in _CHECKED]:
        if name == b"host":
            hosts += 1
            if not _HOST.fullmatch(value):
                return bad(f"Host: {value[:80].decode('latin-1')}: expected a name or an address, and maybe a port.")
        elif value.strip().lower() != b"chunked":
            status = HTTPStatus.NOT_IMPLEMENTED
            return refusal(status, "bad_request", "Transfer-Encoding: expected `chunked`, or none.")
    if version not in _VERSIONS:
        status = HTTPStatus.HTTP_VERSION_NOT_SUPPORTED
        return refusal(status, "bad_request", f"HTTP/{version[:8]} is not served: expected HTTP/1.1.")
    if hosts != 1 and (hosts or version == "1.1"):
        return bad(f"The request has {hosts or 'no'} `Host` headers: expected one (RFC 9112, 3.2).")
    return None


def too_long(url: bytes, headers: Headers) -> Problem | None:
    """Say that a head has too many bytes. None: it has not."""
    if len(url) > MAX_HEADERS:
        return refusal(HTTPStatus.REQUEST_URI_TOO_LONG, "too_large", f"The URL exceeds {MAX_HEADERS} bytes.")
    size = len(url) + sum(len(name) + len(value) for name, value in headers)
    return long_head() if size > MAX_HEADERS else None


def with_path(url: bytes) -> bytes:
    """Complete an absolute URL that ends behind its host (RFC 9112, 3.2.2): the parser refuses one without a path."""
    found = _ORIGIN.match(url)
    if found is None or url.startswith(b"/", found.end()):
        return url
    return url[: found.end()] + b"/" + url[found.end() :]


def declared_length(headers: Headers) -> int:
    """Return what Content-Length says; 0: nothing. The parser let only a number through."""
    return next((int(value) for name, value in headers if name == b"content-length"), 0)


def refusal(status: HTTPStatus, reason: str, detail: str) -> Problem:
    """Describe why a connection is refused, or a request before the app sees it."""
    return Problem(status.phrase, status, reason, detail)


def bad(detail: str) -> Problem:
    """Say what is wrong with a request."""
    return refusal(HTTPStatus.BAD_REQUEST, "bad_request", detail)


def long_head() -> Problem:
    """Say that a head, or the trailers of a body, are too long."""
    status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    return refusal(status, "too_large", f"The request's headers exceed {MAX_HEADERS} bytes, or are over {MAX_FIELDS}.")
