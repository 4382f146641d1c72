"""`POST /v1/<task>`, and BentoML's typed endpoints `/classify`, `/detect` and so on.

Latency matters most here: the endpoint reads, submits, waits and encodes, and does nothing else.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple, cast

import msgspec
from msgspec import Struct
from starlette.types import Receive, Scope

from service.engine.job import Input, Job
from service.errors import SERVERS_OWN, Reason, RequestError
from service.http.endpoint import Endpoint, HttpContext, hung_up, limited
from service.http.media import media_type, one_image_only, wanted
from service.http.problems import Problem, problem
from service.http.v1.annotate import BINARY, OFFERED, Annotator, vector
from service.http.v1.images import Form, read_form, read_images
from service.models.model import ImageModel
from service.request import Lifecycle
from service.results import Result
from service.runtime import Runtime
from service.settings import Settings
from service.tasks import TASKS, Operation
from service.waiting import outcome, wait

_encode = msgspec.json.Encoder().encode
_FORM = "multipart/form-data"


class BatchResponse(Struct):
    """The answer to several images, in order: for each its result, or the problem with it."""

    results: list[Result | Problem]


class Query(NamedTuple):
    """What a request asks for, apart from its images.

    Attributes:
        model: whose queue the request enters.
        input: makes the input of an encoded image.
        skeleton: of the model's keypoints.
    """

    model: ImageModel
    input: Callable[[bytes], Input[Result]]
    skeleton: Sequence[tuple[int, int]] = ()


class ImagesEndpoint(Endpoint):
    """The base class of endpoints that answer images."""

    def __init__(self, task: str, route: str, lifecycle: Lifecycle, runtime: Runtime, annotator: Annotator) -> None:
        super().__init__(lifecycle, route, task)
        self._predictor = runtime.predictor
        self._settings = runtime.settings
        self._annotator = annotator

    async def _run(
        self, context: HttpContext, receive: Receive, query: Query, images: list[bytes | RequestError], drawn: bytes
    ) -> bytes:
        """Submit the images, wait, and encode the answer: JSON, or one image's as the type `drawn`."""
        if drawn and len(images) > 1:
            raise one_image_only(drawn, len(images))
        jobs: list[Job[Result] | RequestError] = []
        for image in images:
            before = next((job for job in reversed(jobs) if isinstance(job, Job)), None)
            jobs.append(self._submit(image, query, context, before))
        if len(jobs) == 1 and isinstance(jobs[0], RequestError):
            raise jobs[0]
        await wait([job for job in jobs if isinstance(job, Job)], context.deadline, hung_up(receive))

        outcomes = [_outcome(job) for job in jobs]
        answered = [job for job in jobs if isinstance(job, Job) and job.finished and not job.failed]
        if answered:
            context.answered(answered)
        if len(outcomes) > 1:
            errors = [each for each in outcomes if isinstance(each, RequestError) and each.reason in SERVERS_OWN]
            context.partly = errors[0] if errors else None
            body = _encode(BatchResponse([problem(x) if isinstance(x, RequestError) else x for x in outcomes]))
        elif isinstance(outcomes[0], RequestError):
            raise outcomes[0]
        elif drawn == BINARY:
            body = vector(outcomes[0])
            context.content_type = drawn
        elif drawn:
            image = cast("bytes", images[0])
            body = await self._annotator.draw(image, outcomes[0], drawn, context.deadline, query.skeleton)
            context.content_type = drawn
        else:
            body = _encode(outcomes[0])
        context.lap("encode")
        return body

    def _submit(
        self, image: bytes | RequestError, query: Query, context: HttpContext, before: Job[Result] | None
    ) -> Job[Result] | RequestError:
        if isinstance(image, RequestError):
            return image
        try:
            return self._predictor.submit(query.input(image), query.model, context.deadline, context.priority, before)
        except RequestError as error:
            return error


class Predict(ImagesEndpoint):
    """The endpoint `/v1/<task>` of one task."""

    def __init__(
        self, task: Operation, route: str, lifecycle: Lifecycle, runtime: Runtime, annotator: Annotator
    ) -> None:
        super().__init__(task, route, lifecycle, runtime, annotator)
        self._task: Operation = task
        self._registry, self._pipelines = runtime.repository, runtime.pipelines
        self._in_query = frozenset((*TASKS[task].options.__struct_fields__, "model", "version"))

    async def _answer(self, context: HttpContext, scope: Scope, receive: Receive) -> bytes:  # noqa: ARG002 - as declared
        drawn = wanted(context.headers.get(b"accept", b""), OFFERED[TASKS[self._task].drawn])
        params = context.params()
        query = await self._query(context, params.pop("model", None), params.pop("version", None), params)
        images = await read_images(receive, context.headers, self._settings, self._in_query)
        context.lap("read")
        return await self._run(context, receive, query, images, drawn)

    async def _query(
        self, context: HttpContext, name: str | None, version: str | None, params: Mapping[str, object]
    ) -> Query:
        """Find the model, convert its options, and refuse the request early if its model's queue is full."""
        try:
            model = await context.obtain(partial(self._registry.get, self._task, name, version))
        except RequestError as error:
            if error.reason is Reason.UNKNOWN_MODEL and name is not None and self._pipelines.get(name) is not None:
                detail = f"`{name}` is a pipeline, not a model: POST /v1/pipelines/{name}."
                raise RequestError(Reason.UNKNOWN_MODEL, detail) from error
            raise
        context.model = model.card.name
        options = self._predictor.options(model, params, self._task)
        context.admit(model)
        return Query(model, partial(self._predictor.input, model=model, options=options), model.card.skeleton)


def _outcome(job: Job[Result] | RequestError) -> Result | RequestError:
    if isinstance(job, RequestError):
        return job
    found = outcome(job)  # in a return statement, mypy would infer the union for the job's own type
    return found  # noqa: RET504


class Typed(Predict):
    """BentoML's endpoint of one task. The options are fields of the form, each as JSON or as plain text.

    BentoML documents these endpoints on its Swagger page and in its clients' schema. It would read their bodies with
    pydantic, on the event loop and without a limit. Here they are handled like all other requests.
    """

    async def _answer(self, context: HttpContext, scope: Scope, receive: Receive) -> bytes:  # noqa: ARG002 - as declared
        form = await one_image_form(context, receive, self._settings, f"/v1/{self._task}")
        model, version = (form_text(form.fields.pop(name, None)) for name in ("model", "version"))
        params = {name: form_value(text) for name, text in form.fields.items()}
        query = await self._query(context, model, version, params)
        return await self._run(context, receive, query, form.images, b"")


async def one_image_form(context: HttpContext, receive: Receive, settings: Settings, other: str) -> Form:
    """Read a form with one image.

    Raises:
        RequestError: `not_an_image`: it is no form, and then `other` is the path to go to; what `read_form` raises.
    """
    headers = context.headers
    if (kind := media_type(headers)) != _FORM:
        raise RequestError(
            Reason.NOT_AN_IMAGE,
            f"Content-Type `{kind[:80] or 'none'}` is not served here: expected {_FORM}, with the image as `image` "
            f"and options as fields. {other} takes the image itself, and JSON.",
        )
    form = await read_form(limited(receive, headers, settings.max_body_bytes), headers, 1)
    context.lap("read")
    return form


def form_value(text: str) -> object:
    """Read a field: JSON, as BentoML's client sends it, or else plain text."""
    with suppress(msgspec.DecodeError, RecursionError):
        return msgspec.json.decode(text)
    return text


def form_text(field: str | None) -> str | None:
    """Read a field whose value is text, even if it looks like a number. BentoML's client writes None as `null`."""
    value = None if field is None else form_value(field)
    return value if isinstance(value, str) or value is None else field
