"""Loading and unloading models while serving, for administrators. `zooserve reload` calls these endpoints.

`POST /v1/models/NAME/load` and `.../unload`, and `POST /v1/models/reload`, which looks at the whole store.
"""

from starlette.requests import Request
from starlette.responses import Response

from service.http.keys import Guard
from service.http.status import Status
from service.models.repository import Repository
from service.threads import LOADING


class Admin:
    """The endpoints. What they start runs on threads of its own: requests go on meanwhile."""

    def __init__(self, repository: Repository, status: Status, guard: Guard) -> None:
        self._repository, self._status, self._guard = repository, status, guard

    async def load(self, request: Request) -> Response:
        """Load a model, or the version of it that the store holds now; answer with its details."""
        self._check(request)
        await LOADING.run(self._repository.reload, request.path_params["name"])
        return await self._status.model(request)

    async def unload(self, request: Request) -> Response:
        """Unload a model; answer with its details."""
        self._check(request)
        await LOADING.run(self._repository.unload, request.path_params["name"])
        return await self._status.model(request)

    async def reload(self, request: Request) -> Response:
        """Load what is new in the store; answer with the list of models."""
        self._check(request)
        await LOADING.run(self._repository.reload)
        return await self._status.models(request)

    def _check(self, request: Request) -> None:
        self._guard.check_admin(dict(request.scope["headers"]))
