"""`/ui`, a page to try the models: the files in `static/`, and the loaded models' golden photos as samples.

`http.app` takes its routes from here. The Content-Security-Policy allows the page to contact only its own origin.
"""

import hashlib
from collections.abc import Iterator
from importlib import resources
from typing import NamedTuple

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import Route

from service.http.media import json_response
from service.models.model import ImageModel, takes_images
from service.models.registry import Registry
from zoo.served_card import Golden

HEADERS = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",  # cached, but validated each time; the answer is 304 if nothing has changed
}
_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


class _File(NamedTuple):
    body: bytes
    media_type: str
    etag: str


class Sample(msgspec.Struct):
    """A photo in a loaded model's folder. `path` is relative to `/ui/`; `models` are those that were tested on it."""

    name: str
    sha256: str
    path: str
    models: list[str]


def _read() -> dict[str, _File]:
    files = {}
    for file in resources.files(__package__).joinpath("static").iterdir():
        kind = _TYPES.get(file.name.rpartition(".")[2])
        if kind is not None:
            body = file.read_bytes()
            files[file.name] = _File(body, kind, f'"{hashlib.sha256(body).hexdigest()[:32]}"')
    return files


_FILES = _read()
OPEN = frozenset({"/ui", "/ui/", *(f"/ui/{name}" for name in _FILES)})
"""Paths that need no key: their content is in the public repository. The page asks for a key and sends it."""


def routes(repository: Registry) -> list[Route]:
    """All routes below `/ui`."""
    page = _Page(repository)
    return [
        Route("/ui", page.redirect),
        Route("/ui/", page.file),
        Route("/ui/samples", page.samples),
        Route("/ui/samples/{model}/{photo}", page.sample),
        Route("/ui/{name}", page.file),
    ]


class _Page:
    def __init__(self, repository: Registry) -> None:
        self._repository = repository

    async def redirect(self, _: Request) -> Response:
        """Redirect to `/ui/`: the page's links are relative to it. The target is relative too, for proxies."""
        return RedirectResponse("ui/", headers=HEADERS)

    async def file(self, request: Request) -> Response:
        """Answer with one of the page's files."""
        file = _FILES.get(request.path_params.get("name", "index.html"))
        if file is None:
            raise HTTPException(404)
        headers = HEADERS | {"etag": file.etag}
        if file.etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(file.body, headers=headers, media_type=file.media_type)

    async def samples(self, _: Request) -> Response:
        """List the photos on which the loaded models were tested, each once."""
        found: dict[str, Sample] = {}
        for model, golden in self._goldens():
            name = model.card.name
            path = f"samples/{name}/{golden.photo}"
            found.setdefault(golden.sha256, Sample(golden.photo, golden.sha256, path, [])).models.append(name)
        return json_response({"samples": list(found.values())}, headers=HEADERS)

    async def sample(self, request: Request) -> Response:
        """Answer with one sample photo."""
        wanted = request.path_params["model"], request.path_params["photo"]
        for model, golden in self._goldens():
            path = model.folder / "golden" / golden.photo
            if (model.card.name, golden.photo) == wanted and path.is_file():
                return FileResponse(path, headers=HEADERS)
        raise HTTPException(404)

    def _goldens(self) -> Iterator[tuple[ImageModel, Golden]]:
        for entry in self._repository.entries.values():
            model = entry.model  # another thread may unload it meanwhile
            if model is not None and takes_images(model):
                yield from ((model, golden) for golden in model.card.golden)
