"""The OpenAPI 3.1 document of version 1: `static/openapi.toml`, completed from the types of options and answers.

`http.docs` serves it at `/openapi.json` and shows it at `/docs`.
"""

import tomllib
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import cache
from http import HTTPStatus
from importlib import resources
from importlib.metadata import version
from typing import Any

import msgspec

from service.errors import Reason
from service.http.docs.examples import add_examples
from service.http.docs.schemas import Schema, Schemas
from service.http.ops.models import ModelDetails, Models
from service.http.ops.pipelines import PipelineList, PipelineSummary
from service.http.ops.probes import Liveness, Readiness
from service.http.problems import Problem
from service.http.v1.json_images import Images
from service.http.v1.predict import BatchResponse
from service.options import given_type
from service.request import STATUS
from service.results import PipelineResult, Result
from service.tasks import TASKS, Operation
from zoo.card import Name, Version

# By the names that they have in openapi.toml.
_ANSWERS = {kind.__name__: kind for kind in (Liveness, ModelDetails, Models, PipelineList, PipelineSummary, Readiness)}
_TYPES: dict[str, Any] = {"Name": Name, "Version": Version}
_IMAGES_REFUSALS = sorted({*STATUS.values()} - {HTTPStatus.FORBIDDEN, HTTPStatus.CONFLICT})
_IMAGES_HEADERS = ("X-Request-Id", "Server-Timing")
_MORE_HEADERS = {401: ("WWW-Authenticate",), 429: ("Retry-After",), 503: ("Retry-After",)}
_DRAWN = ("image/png", "image/jpeg")
_SEVERAL = "One image gets one result; several get `results` in order, each a result or a problem."
# By whether a task's predictions can be drawn.
_OTHER = {
    True: "`Accept: image/png` or `image/jpeg` answers with the image, the answer drawn in.",
    False: "`Accept: application/octet-stream` answers with the vector of one image, little-endian float32.",
}


@cache
def document() -> bytes:
    """Return the OpenAPI document, as JSON."""
    made = tomllib.loads(resources.files(__package__).joinpath("static/openapi.toml").read_text("utf-8"))
    schemas, images, parameters = Schemas(), made.pop("images"), made.pop("parameters")
    asked = made["paths"]["/v1/pipelines/{name}"]["post"]
    asked |= _asked(images, asked["parameters"], schemas.of(PipelineResult), schemas, drawn=True)
    tasks = {f"/v1/{task}": {"post": _predict(task, images, schemas)} for task in TASKS}
    made["paths"] = paths = tasks | made["paths"]
    for path in paths.values():
        for operation in path.values():
            _complete(operation, parameters, schemas)
    add_examples(paths)
    schemas.components["Images"]["properties"]["images"] = {
        "type": "array",
        "minItems": 1,
        "items": {"type": "string", "contentEncoding": "base64", "contentMediaType": "image/*"},
    }
    schemas.components["Problem"]["properties"]["reason"]["description"] = f"One of {', '.join(Reason)}, and others."
    made["components"]["schemas"] = schemas.components
    made["info"]["version"] = version("zooserve")
    return msgspec.json.encode(made)


def _complete(operation: Schema, parameters: Mapping[str, Schema], schemas: Schemas) -> None:
    """Put in an operation's parameters by their names, and make its responses of what the file says instead."""
    if "parameters" in operation:
        operation["parameters"] = [
            _parameter(**parameters[each]) if isinstance(each, str) else each for each in operation["parameters"]
        ]
    if "answer" in operation:
        answers = {"200": "The answer."} | operation.pop("answers", {})
        schema = schemas.of(_ANSWERS[operation.pop("answer")])
        operation["responses"] = {
            status: {"description": text, "content": {"application/json": {"schema": schema}}}
            for status, text in answers.items()
        } | _refusals(operation.pop("refusals", ()), schemas)


def _parameter(type: str | None = None, **given: Any) -> Schema:  # noqa: A002 - the name in the file
    """Complete a parameter with the schema of its type."""
    return given | {"schema": msgspec.json.schema(_TYPES[type])} if type else given


def _predict(task: Operation, images: Schema, schemas: Schemas) -> Schema:
    """Describe the operation of a task, with its options."""
    module = TASKS[task]
    parameters: list[Any] = ["model", "version"]
    for field in msgspec.structs.fields(module.options):
        schema = msgspec.json.schema(given_type(field.type))
        if field.default is not None:
            schema["default"] = field.default
        text = str(schema.pop("description"))
        parameters.append({"name": field.encode_name, "in": "query", "description": text, "schema": schema})
    predictions = {"type": "array", "items": schemas.of(module.prediction)}
    one = {"allOf": [schemas.of(Result), {"properties": {"predictions": predictions}}]}
    about: Schema = {"operationId": task, "summary": module.summary}
    return about | _asked(images, parameters, one, schemas, drawn=module.drawn)


def _asked(images: Schema, parameters: list[Any], one: Schema, schemas: Schemas, *, drawn: bool) -> Schema:
    """Describe an operation about images.

    Args:
        images: what all of them have in common.
        parameters: those before the common ones.
        one: the schema of the answer to one image.
        schemas: of the document.
        drawn: whether the answer can be had as an image with it drawn in.
    """
    schemas.of(Images)
    content: Schema = {"application/json": {"schema": {"anyOf": [one, schemas.of(BatchResponse)]}}}
    for kind in _DRAWN if drawn else ("application/octet-stream",):
        content[kind] = {"schema": {"type": "string", "format": "binary"}}
    answer = {"description": "The answer.", "headers": _refer(_IMAGES_HEADERS), "content": content}
    copy: Schema = deepcopy(images)  # which gets examples of its own
    return copy | {
        "description": f"{_SEVERAL} {_OTHER[drawn]}",
        "parameters": [*parameters, *images["parameters"]],
        "responses": {"200": answer} | _refusals(_IMAGES_REFUSALS, schemas, _IMAGES_HEADERS),
    }


def _refusals(statuses: Sequence[int], schemas: Schemas, headers: tuple[str, ...] = ()) -> Schema:
    """Describe problem responses by status, each with the reasons that have this status."""
    return {
        str(int(status)): {
            "description": f"{HTTPStatus(status).phrase} "
            f"({', '.join(reason for reason, its in STATUS.items() if its == status)}).",
            "headers": _refer((*headers, *_MORE_HEADERS.get(status, ()))),
            "content": {"application/problem+json": {"schema": schemas.of(Problem)}},
        }
        for status in statuses
    }


def _refer(headers: tuple[str, ...]) -> Schema:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in headers}
