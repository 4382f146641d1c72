"""A reverse proxy with TLS that has a server under a path prefix, as an Ingress has: run by `reach`.

python prefix_proxy.py HOST PORT PREFIX UPSTREAM CERTIFICATE KEY AUTHORITY
"""

import sys

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

METHODS = ["GET", "POST"]
DROPPED = ("host", "content-length", "transfer-encoding", "connection")


def application(prefix: str, upstream: str, authority: str) -> Starlette:
    client = httpx.AsyncClient(base_url=upstream, verify=authority, trust_env=False, timeout=30)

    async def forward(request: Request) -> Response:
        path = request.url.path.removeprefix(prefix)
        headers = [(name, value) for name, value in request.headers.items() if name not in DROPPED]
        answer = await client.request(
            request.method, path, params=request.query_params, headers=headers, content=await request.body()
        )
        kept = {name: value for name, value in answer.headers.items() if name not in DROPPED}
        return Response(answer.content, answer.status_code, kept)

    return Starlette(routes=[Route(prefix + "/{path:path}", forward, methods=METHODS)])


if __name__ == "__main__":
    host, port, prefix, upstream, certificate, key, authority = sys.argv[1:]
    uvicorn.run(
        application(prefix, upstream, authority),
        host=host,
        port=int(port),
        ssl_certfile=certificate,
        ssl_keyfile=key,
        log_level="warning",
    )
