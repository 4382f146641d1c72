"""The operations of OpenAPI that answer images: `/v1/<task>` and `/v1/pipelines/{name}`. `openapi` includes them."""

from http import HTTPStatus

import msgspec

from service.engine.job import Priority
from service.http.docs.parts import answers, parameter, refer, refusals
from service.http.docs.schemas import Schema, Schemas
from service.http.ops.pipelines import PipelineList, PipelineSummary
from service.http.v1.json_images import Images
from service.http.v1.predict import BatchResponse
from service.options import given_type
from service.request import STATUS
from service.results import PipelineResult, Result
from service.tasks import TASKS, Operation
from zoo.card import Name, Version

_PREDICT_REFUSALS = sorted({*STATUS.values()} - {HTTPStatus.FORBIDDEN, HTTPStatus.CONFLICT})
_FILE = {"type": "string", "format": "binary"}


def predict(task: Operation, schemas: Schemas) -> Schema:
    options = [
        parameter("model", Name, "The model; without it, the task's default. `/v1/models` lists them."),
        parameter("version", Version, "Refuse where another version of the model is loaded."),
    ]
    module = TASKS[task]
    for field in msgspec.structs.fields(module.options):
        schema = msgspec.json.schema(given_type(field.type))
        if field.default is not None:
            schema["default"] = field.default
        text = str(schema.pop("description"))
        options.append({"name": field.encode_name, "in": "query", "description": text, "schema": schema})
    one = {
        "allOf": [
            schemas.of(Result),
            {"properties": {"predictions": {"type": "array", "items": schemas.of(module.prediction)}}},
        ]
    }
    other = ("image/png", "image/jpeg") if module.drawn else ("application/octet-stream",)
    return _asked(schemas, one, other) | {
        "operationId": task,
        "summary": module.summary,
        "description": f"{_SEVERAL} {_OTHER[module.drawn]}",
        "parameters": [*options, *_REQUEST_HEADERS],
    }


def _asked(schemas: Schemas, one: Schema, other: tuple[str, ...]) -> Schema:
    """What all operations about images have in common: the body, and the answers.

    Args:
        schemas: of the document.
        one: the schema of the answer to one image.
        other: types in which the answer can be had as well.
    """
    return {
        "tags": ["predict"],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": schemas.of(Images)},
                **{f"image/{kind}": {"schema": _FILE} for kind in ("jpeg", "png", "webp")},
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["image"],
                        "properties": {"image": {"type": "array", "minItems": 1, "items": _FILE}},
                    },
                    "encoding": {"image": {"contentType": "image/*"}},
                },
            },
        },
        "responses": {
            "200": {
                "description": "The answer.",
                "headers": refer("X-Request-Id", "Server-Timing"),
                "content": {"application/json": {"schema": {"anyOf": [one, schemas.of(BatchResponse)]}}}
                | {kind: {"schema": _FILE} for kind in other},
            },
            **refusals(schemas, *_PREDICT_REFUSALS, headers=("X-Request-Id", "Server-Timing")),
        },
    }


def pipelines(schemas: Schemas) -> Schema:
    name = parameter("name", Name, "A pipeline of `/v1/pipelines`.", where="path")
    options = {
        "name": "options",
        "in": "query",
        "description": "The options of the detector and of the second task, each a parameter of its own; an option of "
        "the second that the detector has too begins with `second_`. `/v1/pipelines` lists them for each pipeline.",
        "schema": {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}},
        "style": "form",
        "explode": True,
    }
    one = schemas.of(PipelineResult)
    return {
        "/v1/pipelines": {
            "get": {
                "tags": ["models"],
                "operationId": "pipelines",
                "summary": "List the pipelines",
                "responses": answers(schemas.of(PipelineList)) | refusals(schemas, HTTPStatus.UNAUTHORIZED),
            }
        },
        "/v1/pipelines/{name}": {
            "get": {
                "tags": ["models"],
                "operationId": "pipeline",
                "summary": "One pipeline: its card, its options, and why it cannot answer if it cannot",
                "parameters": [name],
                "responses": answers(schemas.of(PipelineSummary))
                | refusals(schemas, HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND),
            },
            "post": _asked(schemas, one, ("image/png", "image/jpeg"))
            | {
                "operationId": "ask_pipeline",
                "summary": "Find the objects in an image, and ask a second model about the crop of each",
                "description": f"{_SEVERAL} {_OTHER[True]}",
                "parameters": [name, options, *_REQUEST_HEADERS],
            },
        },
    }


_SEVERAL = "One image gets one result; several get `results` in order, each a result or a problem."
_OTHER = {
    True: "`Accept: image/png` or `image/jpeg` answers with the image, the answer drawn in.",
    False: "`Accept: application/octet-stream` answers with the vector of one image, little-endian float32.",
}
_REQUEST_HEADERS = [
    {
        "name": "X-Request-Id",
        "in": "header",
        "description": "Is sent back, and found in the log and in traces: up to 128 visible characters of ASCII. "
        "Another one is made where it is anything else.",
        "schema": {"type": "string"},
    },
    {
        "name": "X-Request-Timeout-Ms",
        "in": "header",
        "description": "Give up after so many milliseconds; at most the server's own deadline.",
        "schema": {"type": "number", "exclusiveMinimum": 0},
    },
    {
        "name": "X-Request-Priority",
        "in": "header",
        "description": "Which requests go first where there is a queue.",
        "schema": {"type": "string", "enum": [each.name.lower() for each in Priority], "default": "normal"},
    },
]
