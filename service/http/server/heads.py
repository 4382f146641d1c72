"""Checks of a request's head that the parser, llhttp, does not make; it refuses two lengths, for example.

If a proxy and the server read a head differently, a client can smuggle requests past the proxy (RFC 9112, 11.2).
"""

import re
from collections.abc import Iterable
from http import HTTPStatus

from service.http.problems import Problem, refusal

Headers = Iterable[tuple[bytes, bytes]]
MAX_HEADERS = 64 * 1024  # bytes of the URL and all header names and values
MAX_FIELDS = 256  # number of headers
_ORIGIN = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*+://[^/?#]*+")
_NOT_OFFERED = frozenset({b"upgrade", b"http2-settings"})
_CHECKED = frozenset({b"host", b"transfer-encoding"})
_VERSIONS = frozenset({"1.1", "1.0"})
_HOST = re.compile(rb"[A-Za-z0-9._~%!$&'()*+,;=:\[\]-]*+")


def check_head(version: str, headers: Headers) -> Problem | None:
    """Check a head's HTTP version, `Host` and Transfer-Encoding. Returns the problem, or None.

    Args:
        version: of HTTP, for example `1.1`.
        headers: names in lower case, and values.
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
    """Check a head's size in bytes. Returns the problem, or None."""
    if len(url) > MAX_HEADERS:
        return refusal(HTTPStatus.REQUEST_URI_TOO_LONG, "too_large", f"The URL exceeds {MAX_HEADERS} bytes.")
    size = len(url) + sum(len(name) + len(value) for name, value in headers)
    return long_head() if size > MAX_HEADERS else None


def with_path(url: bytes) -> bytes:
    """Add a path to an absolute URL without one (RFC 9112, 3.2.2), because uvicorn's URL parser needs it."""
    found = _ORIGIN.match(url)
    if found is None or url.startswith(b"/", found.end()):
        return url
    return url[: found.end()] + b"/" + url[found.end() :]


def without_upgrade(method: bytes, url: bytes, version: str, headers: Headers) -> bytes:
    """Write a request's head again, without its Upgrade header, which is ignored (RFC 9110, 7.8)."""
    line = b"%b %b HTTP/%b\r\n" % (method, url, version.encode())
    kept = [b"%b: %b\r\n" % header for header in headers if header[0] not in _NOT_OFFERED]
    return b"".join([line, *kept, b"\r\n"])


def declared_length(headers: Headers) -> int:
    """Return the value of Content-Length, or 0 without one. The parser has checked that it is a number."""
    return next((int(value) for name, value in headers if name == b"content-length"), 0)


def bad(detail: str) -> Problem:
    """Make the problem for an invalid request."""
    return refusal(HTTPStatus.BAD_REQUEST, "bad_request", detail)


def long_head() -> Problem:
    """Make the problem for a head, or a body's trailers, above the limits."""
    status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    return refusal(status, "too_large", f"The request's headers exceed {MAX_HEADERS} bytes, or are over {MAX_FIELDS}.")
