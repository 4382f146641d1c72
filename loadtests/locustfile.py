"""Users who classify, detect and segment, for Locust: `locust -f loadtests/locustfile.py --host http://127.0.0.1:3000`.

Run it where the README lies. Its page is at http://localhost:8089 (`--web-host 127.0.0.1` keeps it to this machine);
without one: `--headless --users 20 --spawn-rate 5 --run-time 1m --html report.html`. One user in the list of classes
can be chosen: `locust -f loadtests/locustfile.py Detecting`. Exits with 1 where any answer was wrong.
"""

import random
from typing import Any

from locust import FastHttpUser, between, task

from loadtests.album import album
from loadtests.rubbish import rubbish

PHOTOS = album()
RUBBISH = rubbish(PHOTOS[0].data)


class Visitor(FastHttpUser):
    """Sends a photo, looks at the answer for a moment, and sends the next. Every twentieth time it sends rubbish."""

    abstract = True
    wait_time = between(0.2, 2.0)
    connection_timeout = network_timeout = 30.0
    path = ""

    @task(19)
    def ask(self) -> None:
        """Send a photo; the answer must be 200 and of the right task, and find something where it must."""
        photo = random.choice(PHOTOS)  # noqa: S311 - load, not secrets
        with self._post(self.path, photo.content_type, photo.data, name=self.path) as response:
            if response.status_code != 200:
                response.failure(f"{response.status_code} {response.text[:200]}")
            elif problem := self.wrong(_json(response)):
                response.failure(f"{photo.name}: {problem}")

    @task(1)
    def send_rubbish(self) -> None:
        """Send what is none; it must be refused with the right status, and say why."""
        kind = random.choice(RUBBISH)  # noqa: S311
        request = kind.request
        content_type = request.headers["Content-Type"]
        with self._post(request.path, content_type, request.body, name=f"rubbish: {kind.name}") as response:
            if response.status_code == kind.status and _json(response).get("detail"):
                response.success()
            else:
                response.failure(f"{response.status_code} where {kind.status} is right: {response.text[:200]}")

    def wrong(self, body: dict[str, Any]) -> str:
        """Say what is wrong with an answer, if anything is."""
        task_name = self.path.removeprefix("/v1/").partition("?")[0]
        return "" if body.get("task") == task_name else f"an answer of {body.get('task')}"

    def _post(self, path: str, content_type: str, data: Any, name: str) -> Any:
        headers = {"Content-Type": content_type}
        return self.client.post(path, data=data, headers=headers, name=name, catch_response=True)


class Classifying(Visitor):
    """Wants the top five classes."""

    weight = 5
    path = "/v1/classify"

    def wrong(self, body: dict[str, Any]) -> str:
        count = len(body.get("predictions", ()))
        return super().wrong(body) or ("" if count == 5 else f"{count} classes where 5 are the default")


class Detecting(Visitor):
    """Wants boxes."""

    weight = 3
    path = "/v1/detect"

    def wrong(self, body: dict[str, Any]) -> str:
        size = body.get("image", {})
        outside = [
            p for p in body.get("predictions", ()) if p["box"][2] > size["width"] or p["box"][3] > size["height"]
        ]
        return super().wrong(body) or ("" if not outside else f"boxes beyond the picture: {outside}")


class Segmenting(Visitor):
    """Wants masks, as run lengths."""

    weight = 2
    path = "/v1/segment"

    def wrong(self, body: dict[str, Any]) -> str:
        bare = [p for p in body.get("predictions", ()) if "counts" not in p.get("mask", {})]
        return super().wrong(body) or ("" if not bare else f"predictions without a mask: {bare}")


def _json(response: Any) -> dict[str, Any]:
    """Return an answer's body, or an empty one where it is no JSON object."""
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
