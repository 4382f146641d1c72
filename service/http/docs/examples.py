"""The examples of `/docs`: requests, and the answers of a server with the default models.

`http.docs.openapi` includes them. `tests/service/http/docs/record_examples.py` records the answers; a test checks them.
"""

from importlib import resources
from typing import Any

import msgspec


class Example(msgspec.Struct):
    """A request and the server's answer.

    Attributes:
        query: of the URL.
        body: sent as JSON; `"$IMAGE"` in it stands for the example's image in base64.
        answer: the body of the response.
    """

    name: str
    summary: str
    method: str
    path: str
    query: dict[str, str | int | float | bool] = {}
    body: Any = None
    status: int = 200
    answer: Any = None

    def sent(self, image: str) -> Any:
        """The body as it is sent."""
        return msgspec.json.decode(msgspec.json.encode(self.body).replace(b"$IMAGE", image.encode()))


class Examples(msgspec.Struct):
    """`static/examples.json`: a small image in base64, and the examples that use it."""

    image: str
    examples: list[Example]


def examples() -> Examples:
    """Read the examples."""
    data = resources.files(__package__).joinpath("static/examples.json").read_bytes()
    return msgspec.json.decode(data, type=Examples)


def add_examples(paths: dict[str, Any]) -> None:
    """Add each example to its operation's request body and response in OpenAPI's `paths`."""
    given = examples()
    for example in given.examples:
        operation = paths[example.path][example.method]
        query = "&".join(f"{name}={str(value).lower()}" for name, value in example.query.items())
        note = {"summary": f"{example.summary} (?{query})" if query else example.summary}
        if example.body is not None:
            body = operation["requestBody"]["content"]["application/json"]
            body.setdefault("examples", {})[example.name] = note | {"value": example.sent(given.image)}
        content = operation["responses"][str(example.status)]["content"]
        answer = content.get("application/json") or content["application/problem+json"]
        answer.setdefault("examples", {})[example.name] = note | {"value": example.answer}
