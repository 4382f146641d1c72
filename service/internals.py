"""What is used of uvicorn and BentoML beyond their documented interfaces. It stands here alone.

`tests/service/test_internals.py` fails where an upgrade changes what is relied upon.

- **uvicorn's HTTP protocol.** uvicorn has no limit on how slowly a request may arrive, how long its head may be, or how
  many connections wait for nothing. `http.server.connections` derives a class that has them.
- **The choice of that class.** BentoML's workers call `uvicorn.Config` themselves and pass no `http=`. So the protocol
  that `auto` stands for is replaced in uvicorn's table.
- **TLS handshakes.** uvicorn has no option for how long one may take, and asyncio allows a minute.
- **BentoML's app.** BentoML mounts other apps behind its own, not in front of it. Its workers call `to_asgi` of the
  service for their app; `bento` overrides that method.
- **Swagger UI.** BentoML's wheel contains its files; `/docs` serves those instead of fetching others.
"""

import asyncio
from functools import partial
from importlib import resources
from importlib.resources.abc import Traversable

import uvicorn.config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["HttpToolsProtocol", "limit_handshakes", "swagger_ui", "use_protocol"]


def use_protocol(name: str) -> None:
    """Let uvicorn use another class (`module:Class`) for connections of HTTP in this process."""
    uvicorn.config.HTTP_PROTOCOLS["auto"] = name


def limit_handshakes(seconds: float) -> None:
    """Limit the time of TLS handshakes at listeners that the running event loop opens from now on."""
    loop = asyncio.get_running_loop()
    loop.create_server = partial(loop.create_server, ssl_handshake_timeout=seconds)  # type: ignore[method-assign]


def swagger_ui() -> Traversable:
    """Return the folder of Swagger UI's files: `swagger-ui-bundle.js` and `swagger-ui.css`."""
    return resources.files("bentoml").joinpath("_internal", "server", "static_content")
