"""`POST /v1/pipelines/NAME`, and BentoML's typed endpoint `/pipeline`."""

from collections.abc import Mapping

from starlette.types import Receive, Scope

from service.errors import Reason, RequestError
from service.http.endpoint import HttpContext
from service.http.media import wanted
from service.http.v1.annotate import OFFERED, Annotator
from service.http.v1.images import read_images
from service.http.v1.predict import ImagesEndpoint, Query, form_text, form_value, one_image_form
from service.pipelines import TASK
from service.request import Lifecycle
from service.runtime import Runtime

PATH = "/v1/pipelines/"


class PipelineEndpoint(ImagesEndpoint):
    """The endpoint of all pipelines."""

    def __init__(self, route: str, lifecycle: Lifecycle, runtime: Runtime, annotator: Annotator) -> None:
        super().__init__(TASK, route, lifecycle, runtime, annotator)
        self._pipelines = runtime.pipelines

    async def _answer(self, context: HttpContext, scope: Scope, receive: Receive) -> bytes:
        drawn = wanted(context.headers.get(b"accept", b""), OFFERED[True])
        query = await self._query(context, scope["path"].removeprefix(PATH), context.params())
        images = await read_images(receive, context.headers, self._settings)
        context.lap("read")
        return await self._run(context, receive, query, images, drawn)

    async def _query(self, context: HttpContext, name: str, params: Mapping[str, object]) -> Query:
        """Find the pipeline and its models, and refuse the request early if one of their queues is full."""
        pipeline = await context.obtain_pipeline(self._pipelines.find(name), params)
        pipeline.check(context.deadline)
        make = self._pipelines.image
        return Query(pipeline.detector, lambda data: make(data, pipeline), pipeline.second.card.skeleton)


class TypedPipeline(PipelineEndpoint):
    """BentoML's endpoint: a form with `image`, `name` and, as JSON, `options`."""

    async def _answer(self, context: HttpContext, scope: Scope, receive: Receive) -> bytes:  # noqa: ARG002 - as declared
        form = await one_image_form(context, receive, self._settings, f"{PATH}NAME")
        options = form_value(form.fields.pop("options", "{}"))
        options = {} if options is None else options  # the default of BentoML's client
        name = form_text(form.fields.pop("name", None))
        if not name or form.fields or not isinstance(options, dict):
            raise RequestError(
                Reason.BAD_OPTION,
                "Expected the fields `image`, `name` (of a pipeline) and `options` (a JSON object), and no others.",
            )
        query = await self._query(context, name, options)
        return await self._run(context, receive, query, form.images, b"")
