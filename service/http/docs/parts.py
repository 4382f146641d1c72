"""Parts of OpenAPI's operations: parameters, answers, refusals. `openapi` and `predictions` use them."""

from http import HTTPStatus

import msgspec

from service.http.docs.schemas import Schema, Schemas
from service.http.problems import Problem
from service.request import STATUS


def parameter(name: str, kind: object, description: str, where: str = "query") -> Schema:
    schema = msgspec.json.schema(kind)
    return {"name": name, "in": where, "required": where == "path", "description": description, "schema": schema}


def answers(schema: Schema) -> Schema:
    return {"200": {"description": "The answer.", "content": {"application/json": {"schema": schema}}}}


def refusals(schemas: Schemas, *statuses: int, headers: tuple[str, ...] = ()) -> Schema:
    """Problem responses by status, each with the reasons that have this status."""
    more = {401: ("WWW-Authenticate",), 429: ("Retry-After",), 503: ("Retry-After",)}
    return {
        str(int(status)): {
            "description": f"{HTTPStatus(status).phrase} "
            f"({', '.join(reason for reason, its in STATUS.items() if its == status)}).",
            "headers": refer(*headers, *more.get(status, ())),
            "content": {"application/problem+json": {"schema": schemas.of(Problem)}},
        }
        for status in statuses
    }


def refer(*headers: str) -> Schema:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in headers}
