"""The OpenAPI 3.1 document of version 1, generated from the types of the answers.

`http.docs` serves it at `/openapi.json` and shows it at `/docs`.
"""

from functools import cache
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

import msgspec
from msgspec import Struct

from service.engine.job import Priority
from service.errors import Reason
from service.http.docs.examples import add_examples
from service.http.docs.schemas import Schema, Schemas
from service.http.ops.models import ModelDetails, Models
from service.http.ops.probes import Liveness, Readiness
from service.http.problems import Problem
from service.http.v1.json_images import Images
from service.http.v1.predict import BatchResponse
from service.options import given_type
from service.request import STATUS
from service.results import Result
from service.tasks import TASKS, Operation
from zoo.card import Name, Version

_MODELS_REFUSALS = (HTTPStatus.UNAUTHORIZED,)
_ADMIN_REFUSALS = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
_PREDICT_REFUSALS = sorted({*STATUS.values()} - {HTTPStatus.FORBIDDEN, HTTPStatus.CONFLICT})
_FILE = {"type": "string", "format": "binary"}
_INTRODUCTION = """\
Pretrained vision models. The quickest way to ask is to send the image itself:

    curl --data-binary @photo.jpg -H 'content-type: image/jpeg' localhost:3000/v1/detect

Boxes are `[left, top, right, bottom]` in pixels of the original image, its EXIF orientation applied. Every refusal is
an `application/problem+json` (RFC 9457) that says what was wrong and what to do next; a client that is too slow gets
408, one with too large headers 431. Every answer says in `Server-Timing` where its time went.
"""


@cache
def document() -> bytes:
    """Return the OpenAPI document, as JSON."""
    schemas = Schemas()
    paths: dict[str, Any] = {f"/v1/{task}": {"post": _predict(task, schemas)} for task in TASKS}
    paths |= _models(schemas) | _probes(schemas)
    add_examples(paths)
    schemas.components["Images"]["properties"]["images"] = {
        "type": "array",
        "minItems": 1,
        "items": {"type": "string", "contentEncoding": "base64", "contentMediaType": "image/*"},
    }
    schemas.components["Problem"]["properties"]["reason"]["description"] = f"One of {', '.join(Reason)}, and others."
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "zooserve",
                "version": version("zooserve"),
                "summary": "Images in, typed answers out.",
                "description": _INTRODUCTION,
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "servers": [{"url": "./", "description": "This server."}],
            "security": [{}, {"bearer": []}, {"key": []}],
            "tags": [
                {"name": "predict", "description": "Ask a model about images."},
                {"name": "models", "description": "Which models there are, and their details."},
                {"name": "admin", "description": "Load and unload; needs a key of `ZOOSERVE_ADMIN_KEYS`."},
                {"name": "operations", "description": "For monitoring; no key is needed."},
            ],
            "paths": paths,
            "components": {
                "schemas": schemas.components,
                "headers": _HEADERS,
                "securitySchemes": {
                    "bearer": {"type": "http", "scheme": "bearer", "description": "Where the server has keys."},
                    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                },
            },
        }
    )


_HEADERS: Schema = {
    "X-Request-Id": {"description": "The request's own, or one that was made.", "schema": {"type": "string"}},
    "Server-Timing": {
        "description": "Milliseconds of `read`, `decode`, `queue`, `infer`, `postprocess`, `encode` and `total`.",
        "schema": {"type": "string"},
    },
    "Retry-After": {"description": "Seconds after which to try again.", "schema": {"type": "integer", "minimum": 0}},
    "WWW-Authenticate": {"description": "How to send a key.", "schema": {"type": "string"}},
}


def _predict(task: Operation, schemas: Schemas) -> Schema:
    options = [
        _parameter("model", Name, "The model; without it, the task's default. `/v1/models` lists them."),
        _parameter("version", Version, "Refuse where another version of the model is loaded."),
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
    return {
        "tags": ["predict"],
        "operationId": task,
        "summary": module.summary,
        "description": "One image gets one result; several get `results` in order, each a result or a problem. "
        + _OTHER[module.drawn],
        "parameters": [*options, *_REQUEST_HEADERS],
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
                "headers": _refer("X-Request-Id", "Server-Timing"),
                "content": {"application/json": {"schema": {"anyOf": [one, schemas.of(BatchResponse)]}}}
                | {kind: {"schema": _FILE} for kind in other},
            },
            **_refusals(schemas, *_PREDICT_REFUSALS, headers=("X-Request-Id", "Server-Timing")),
        },
    }


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


def _models(schemas: Schemas) -> Schema:
    name = _parameter("name", Name, "A model of `/v1/models`.", where="path")
    unknown = HTTPStatus.NOT_FOUND
    details, listed = schemas.of(ModelDetails), schemas.of(Models)

    def admin(operation: str, summary: str, answer: Schema, *statuses: int, parameters: list[Schema]) -> Schema:
        return {
            "post": {
                "tags": ["admin"],
                "operationId": operation,
                "summary": summary,
                "security": [{"bearer": []}, {"key": []}],
                "parameters": parameters,
                "responses": _answers(answer) | _refusals(schemas, *_ADMIN_REFUSALS, *statuses),
            }
        }

    return {
        "/v1/models": {
            "get": {
                "tags": ["models"],
                "operationId": "models",
                "summary": "List the models",
                "responses": _answers(listed) | _refusals(schemas, *_MODELS_REFUSALS),
            }
        },
        "/v1/models/{name}": {
            "get": {
                "tags": ["models"],
                "operationId": "model",
                "summary": "One model: its card, its licence, what was measured on this machine",
                "parameters": [name],
                "responses": _answers(details) | _refusals(schemas, *_MODELS_REFUSALS, unknown),
            }
        },
        "/v1/models/reload": admin("reload", "Load what is new in the store", listed, parameters=[]),
        "/v1/models/{name}/load": admin(
            "load", "Load a model, or its newest version", details, unknown, HTTPStatus.CONFLICT, parameters=[name]
        ),
        "/v1/models/{name}/unload": admin("unload", "Unload a model", details, unknown, parameters=[name]),
    }


def _probes(schemas: Schemas) -> Schema:
    def probe(summary: str, kind: type[Struct], failing: str) -> Schema:
        says = {"200": "Yes.", "503": failing}
        schema = schemas.of(kind)
        return _open(
            summary,
            {
                status: {"description": text, "content": {"application/json": {"schema": schema}}}
                for status, text in says.items()
            },
        )

    metrics = {"200": {"description": "Prometheus' text format.", "content": {"text/plain": {"schema": {}}}}}
    return {
        "/livez": probe("Liveness: does the process make progress?", Liveness, "No: only a restart would help."),
        "/readyz": probe(
            "Readiness: may requests be sent?", Readiness, "Not yet, or not any more; the body says what is missing."
        ),
        "/metrics": _open("Figures for Prometheus", metrics),
    }


def _open(summary: str, responses: Schema) -> Schema:
    return {"get": {"tags": ["operations"], "summary": summary, "security": [], "responses": responses}}


def _parameter(name: str, kind: object, description: str, where: str = "query") -> Schema:
    schema = msgspec.json.schema(kind)
    return {"name": name, "in": where, "required": where == "path", "description": description, "schema": schema}


def _answers(schema: Schema) -> Schema:
    return {"200": {"description": "The answer.", "content": {"application/json": {"schema": schema}}}}


def _refusals(schemas: Schemas, *statuses: int, headers: tuple[str, ...] = ()) -> Schema:
    """Problem responses by status, each with the reasons that have this status."""
    more = {401: ("WWW-Authenticate",), 429: ("Retry-After",), 503: ("Retry-After",)}
    return {
        str(int(status)): {
            "description": f"{HTTPStatus(status).phrase} "
            f"({', '.join(reason for reason, its in STATUS.items() if its == status)}).",
            "headers": _refer(*headers, *more.get(status, ())),
            "content": {"application/problem+json": {"schema": schemas.of(Problem)}},
        }
        for status in statuses
    }


def _refer(*headers: str) -> Schema:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in headers}
