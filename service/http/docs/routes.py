"""`/openapi.json`, and `/docs`, which shows it in Swagger UI. The browser loads nothing from other hosts.

`http.app` takes its routes from here. They need no key: all their content is in the public repository.
"""

from functools import cache
from importlib import resources

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.http.docs.openapi import document
from service.internals import swagger_ui

_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' blob: data:; object-src 'none'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}
_OURS = resources.files(__package__).joinpath("static")
_FILES = {
    "start.js": _OURS / "start.js",
    "swagger-ui-bundle.js": swagger_ui() / "swagger-ui-bundle.js",
    "swagger-ui.css": swagger_ui() / "swagger-ui.css",
}
OPEN = frozenset({"/docs", "/openapi.json", *(f"/docs/{name}" for name in _FILES)})
"""Paths that need no key. Swagger UI asks for a key under `Authorize` and sends it with each request."""


def routes() -> list[Route]:
    """All routes of the description."""
    return [Route("/openapi.json", _document), Route("/docs", _page), Route("/docs/{name}", _file)]


async def _document(_: Request) -> Response:
    return Response(document(), media_type="application/json")


async def _page(_: Request) -> Response:
    return Response((_OURS / "index.html").read_bytes(), media_type="text/html", headers=_HEADERS)


async def _file(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in _FILES:
        raise HTTPException(404)
    headers = _HEADERS | {"cache-control": "max-age=3600"}
    return Response(_content(name), media_type=_TYPES[name.rpartition(".")[2]], headers=headers)


@cache
def _content(name: str) -> bytes:
    """Read a file once. Otherwise each client that reads its answer slowly would keep a copy in memory, about 1 MB."""
    return _FILES[name].read_bytes()
