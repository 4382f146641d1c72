"""All uses of uvicorn and BentoML that go beyond their documented interfaces.

`tests/service/test_internals.py` fails if an upgrade changes these interfaces.

- **uvicorn's HTTP protocol.** uvicorn does not limit the time in which a request arrives, the size of its head, or the
  number of idle connections. `http.server.connections` derives a class that does.
- **The choice of that class.** BentoML's workers call `uvicorn.Config` themselves and pass no `http=`. So the entry
  `auto` of uvicorn's table of protocols is replaced.
- **TLS handshakes.** uvicorn has no option for how long one may take, and asyncio allows a minute.
- **BentoML's app.** BentoML mounts other apps behind its own, not in front of it. Its workers call `to_asgi` of the
  service for their app; `bento` overrides that method.
- **Swagger UI.** BentoML's wheel contains its files, and `/docs` serves them.
"""

import asyncio
from functools import partial
from importlib import resources
from importlib.resources.abc import Traversable

import uvicorn.config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["HttpToolsProtocol", "limit_handshakes", "swagger_ui", "use_protocol"]


def use_protocol(name: str) -> None:
    """Make uvicorn use another class (`module:Class`) for HTTP connections in this process."""
    uvicorn.config.HTTP_PROTOCOLS["auto"] = name


def limit_handshakes(seconds: float) -> None:
    """Limit the time of TLS handshakes for listeners that the running event loop opens from now on."""
    loop = asyncio.get_running_loop()
    loop.create_server = partial(loop.create_server, ssl_handshake_timeout=seconds)  # type: ignore[method-assign]


def swagger_ui() -> Traversable:
    """Return the folder of Swagger UI's files: `swagger-ui-bundle.js` and `swagger-ui.css`."""
    return resources.files("bentoml").joinpath("_internal", "server", "static_content")
