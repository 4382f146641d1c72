"""A user of the service, for Locust: sends an image, checks the answer, thinks, and sends the next.

Its tasks are tagged by what they ask: `--tags detect`. Which of them are asked is the plan's to say.
"""

import random
from typing import Any, ClassVar

from locust import FastHttpUser, tag, task
from locust.env import Environment

from loadtests.users.plan import WEIGHTS, Plan
from loadtests.users.wrong import wrong


class Visitor(FastHttpUser):
    """One user with a connection of its own."""

    plan: ClassVar[Plan]
    insecure = False  # certificates are checked

    def __init__(self, environment: Environment) -> None:
        self.default_headers = dict(self.plan.server.headers)
        self.ssl_context_factory = self.plan.server.ssl_context
        self.connection_timeout = self.network_timeout = self.plan.timeout_s
        super().__init__(environment)
        self.client.base_url = self.plan.server.url

    def wait_time(self) -> float:
        """How long the user thinks, in seconds."""
        return random.uniform(*self.plan.think_s)  # noqa: S311 - load, not secrets

    @tag("classify")
    @task(WEIGHTS["classify"])
    def classify(self) -> None:
        """Ask for classes."""
        self._ask("classify")

    @tag("detect")
    @task(WEIGHTS["detect"])
    def detect(self) -> None:
        """Ask for boxes."""
        self._ask("detect")

    @tag("segment")
    @task(WEIGHTS["segment"])
    def segment(self) -> None:
        """Ask for masks."""
        self._ask("segment")

    @tag("rubbish")
    @task(1)
    def rubbish(self) -> None:
        """Send what must be refused, with the right status and a reason."""
        kind = random.choice(self.plan.rubbish)  # noqa: S311
        request = kind.request
        with self._post(request.path, request.headers, request.body, name=f"rubbish: {kind.name}") as response:
            if response.status_code == kind.status and _json(response).get("detail"):
                response.success()
            elif response.status_code:  # else there was no answer, which is the failure
                response.failure(f"{response.status_code} where {kind.status} is right: {_said(response)}")

    def _ask(self, about: str) -> None:
        photo = random.choice(self.plan.photos)  # noqa: S311
        path = self.plan.asked[about].question
        with self._post(path, {"Content-Type": photo.content_type}, photo.data, name=f"/v1/{about}") as response:
            if response.status_code == 200:
                if problem := wrong(about, _json(response)):
                    response.failure(f"{photo.name}: {problem}")
            elif response.status_code:
                response.failure(f"{response.status_code} {_said(response)}")

    def _post(self, path: str, headers: Any, data: Any, name: str) -> Any:
        return self.client.post(path, data=data, headers=headers, name=name, catch_response=True)


def tasks_of(plan: Plan) -> list[Any]:
    """Return the user's tasks as Locust has them, each as often as it weighs."""
    return [getattr(Visitor, name) for name, weight in plan.weights.items() for _ in range(weight)]


def _json(response: Any) -> dict[str, Any]:
    """Return an answer's body, or an empty one where it is no JSON object."""
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _said(response: Any) -> str:
    return (response.text or "")[:200]
