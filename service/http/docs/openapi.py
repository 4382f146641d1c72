"""The OpenAPI 3.1 document of version 1, generated from the types of the answers.

`http.docs` serves it at `/openapi.json` and shows it at `/docs`.
"""

from functools import cache
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

import msgspec
from msgspec import Struct

from service.errors import Reason
from service.http.docs.examples import add_examples
from service.http.docs.parts import answers, parameter, refusals
from service.http.docs.predictions import pipelines, predict
from service.http.docs.schemas import Schema, Schemas
from service.http.ops.models import ModelDetails, Models
from service.http.ops.probes import Liveness, Readiness
from service.tasks import TASKS
from zoo.card import Name

_MODELS_REFUSALS = (HTTPStatus.UNAUTHORIZED,)
_ADMIN_REFUSALS = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
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
    paths: dict[str, Any] = {f"/v1/{task}": {"post": predict(task, schemas)} for task in TASKS}
    paths |= pipelines(schemas) | _models(schemas) | _probes(schemas)
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


def _models(schemas: Schemas) -> Schema:
    name = parameter("name", Name, "A model of `/v1/models`.", where="path")
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
                "responses": answers(answer) | refusals(schemas, *_ADMIN_REFUSALS, *statuses),
            }
        }

    return {
        "/v1/models": {
            "get": {
                "tags": ["models"],
                "operationId": "models",
                "summary": "List the models",
                "responses": answers(listed) | refusals(schemas, *_MODELS_REFUSALS),
            }
        },
        "/v1/models/{name}": {
            "get": {
                "tags": ["models"],
                "operationId": "model",
                "summary": "One model: its card, its licence, what was measured on this machine",
                "parameters": [name],
                "responses": answers(details) | refusals(schemas, *_MODELS_REFUSALS, unknown),
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
