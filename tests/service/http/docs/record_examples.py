"""Write the answers of a running server into the examples of /docs: `python record_examples.py http://127.0.0.1:3000`.

The server is to have the default models and no keys.
"""

import sys
from pathlib import Path

import httpx
import msgspec

from service.http import docs
from service.http.docs.examples import Example, examples

FILE = Path(docs.__file__).parent / "static/examples.json"


def ask(client: httpx.Client, example: Example, image: str) -> httpx.Response:
    body = {} if example.body is None else {"json": example.sent(image)}
    return client.request(example.method, example.path, params=example.query, **body)


if __name__ == "__main__":
    given = examples()
    with httpx.Client(base_url=sys.argv[1], trust_env=False, timeout=60) as client:
        for example in given.examples:
            response = ask(client, example, given.image)
            example.status, example.answer = response.status_code, response.json()
    FILE.write_bytes(msgspec.json.format(msgspec.json.encode(given), indent=2) + b"\n")
