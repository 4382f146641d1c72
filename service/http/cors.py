"""Cross-origin requests of web pages (CORS): off, unless `ZOOSERVE_CORS_ORIGINS` names the origins.

A page sends its key in a header, so cookies are not allowed. Preflight requests need no key.
"""

import re
from collections.abc import Iterable

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from service.settings import SettingError, Settings

_ORIGIN = re.compile(r"https?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?|null")
_EXPOSED = ("Retry-After", "X-Request-Id", "Server-Timing", "Inference-Header-Content-Length", "WWW-Authenticate")
_MAX_AGE = 600  # seconds for which a browser remembers a preflight


def origins_of(settings: Settings) -> list[str]:
    """Return the allowed origins; one of them may be `*`.

    Raises:
        SettingError: one is not an origin.
    """
    origins = [origin.strip().rstrip("/") for origin in settings.cors_origins.split(",") if origin.strip()]
    for origin in origins:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise SettingError(
                f"ZOOSERVE_CORS_ORIGINS: `{origin[:80]}` is not an origin: expected `https://example.org`, say, or `*`."
            )
    return origins


def with_cors(app: ASGIApp, settings: Settings) -> ASGIApp:
    """Let pages of the allowed origins call an app and read its answers. If none is allowed, return the app itself."""
    origins = origins_of(settings)
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=["GET", "POST", "OPTIONS"],
        allow_headers=["*"],
        expose_headers=_EXPOSED,
        max_age=_MAX_AGE,
    )


def cors_headers(settings: Settings, headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the CORS headers of an answer that a connection sends without the app.

    Args:
        settings: name the allowed origins.
        headers: of the request.
    """
    origins = origins_of(settings)
    given = dict(headers).get(b"origin", b"").decode("latin-1")
    if not given or not ("*" in origins or given in origins):
        return []
    exposed = ", ".join(_EXPOSED).encode()
    allowed = b"*" if "*" in origins else given.encode("latin-1")
    return [
        (b"access-control-allow-origin", allowed),
        (b"access-control-expose-headers", exposed),
        (b"vary", b"Origin"),
    ]
