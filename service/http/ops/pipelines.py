"""`GET /v1/pipelines` and `/v1/pipelines/NAME`: which pipelines there are, and what they are made of."""

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.http.media import json_response
from service.pipelines import Pipelines, describe_options
from zoo.pipeline_card import PipelineCard


class PipelineSummary(Struct, omit_defaults=True):
    """One pipeline in `/v1/pipelines`.

    Attributes:
        ready: whether it can answer, also if its models are loaded when they are asked for.
        reason: why it cannot.
        card: as its file describes it; if that is not valid, it is not there.
        options: what a request may have in its query, and which values.
    """

    name: str
    ready: bool
    reason: str = ""
    card: PipelineCard | None = None
    options: dict[str, str] = {}


class PipelineList(Struct):
    """The body of `/v1/pipelines`."""

    pipelines: list[PipelineSummary]


class PipelineRoutes:
    """`GET /v1/pipelines` and `GET /v1/pipelines/NAME`."""

    def __init__(self, pipelines: Pipelines) -> None:
        self._pipelines = pipelines

    def routes(self) -> list[Route]:
        """All routes."""
        return [
            Route("/v1/pipelines", self.all),
            # `http.app` passes every POST to `v1.pipelines`; it is listed for the answer to other methods.
            Route("/v1/pipelines/{name}", self.one, methods=["GET", "POST"]),
        ]

    async def all(self, _: Request) -> Response:
        """List the pipelines."""
        return json_response(PipelineList([self._summary(name) for name in self._pipelines.all()]))

    async def one(self, request: Request) -> Response:
        """Answer with one pipeline.

        Raises:
            RequestError: `unknown_model`.
        """
        name = request.path_params["name"]
        if name not in self._pipelines.all():
            self._pipelines.find(name)
        return json_response(self._summary(name))

    def _summary(self, name: str) -> PipelineSummary:
        card = self._pipelines.all()[name]
        reason = self._pipelines.problem(card)
        if not isinstance(card, PipelineCard):
            return PipelineSummary(name, False, reason)
        return PipelineSummary(name, not reason, reason, card, describe_options(card))
