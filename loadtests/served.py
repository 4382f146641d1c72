"""What a server under test has: its models, their tasks, and why it is not ready. Asked before any load."""

import ssl
from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec

from loadtests.client import run
from loadtests.exchange import Request, Response, fetch
from loadtests.report import TestedServer
from loadtests.target import DEFAULT_URL, KEY_VARIABLE, TASKS, Target, TargetError
from loadtests.transport import Asked, outcome_name, transport


@dataclass(frozen=True)
class ServedModel:
    """A model of the server. `state` is `ready`, `loading`, `failed` or `unloaded`."""

    name: str
    task: str
    version: str = ""
    state: str = "ready"
    default: bool = False


@dataclass(frozen=True)
class Served:
    """What a server has. `problem` is why it is not ready, in its words; empty where it is."""

    models: tuple[ServedModel, ...]
    problem: str = ""

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that can be asked: those with a model that is ready."""
        return tuple(task for task in TASKS if self.of(task))

    def of(self, task: str) -> list[ServedModel]:
        """Return the models of a task that are ready, its default first."""
        return sorted((m for m in self.models if m.task == task and m.state == "ready"), key=lambda m: not m.default)

    def choose(self, target: Target) -> Target:
        """Return the target with a task and a model that the server has, where none or only one was named.

        Raises:
            TargetError: the server does not have what was named, or has nothing that is ready.
        """
        named = next((m for m in self.models if m.name == target.model), None)
        if target.model and named is None:
            raise TargetError(f"the server has no model {target.model}; it has {self._names()}")
        if named is not None and named.state != "ready":
            raise TargetError(f"the model {named.name} is {named.state}{self._because()}")
        task = target.task or (named.task if named else next(iter(self.tasks), ""))
        if not task:
            raise TargetError(f"the server has no model that is ready{self._because()}")
        if named is not None and named.task != task:
            raise TargetError(f"{named.name} is a model for {named.task}, not for {task}: leave --task out")
        if task not in self.tasks:
            able = ", ".join(self.tasks) or "nothing"
            raise TargetError(f"the server cannot {task}: it has ready models for {able}{self._because()}")
        models = self.of(task)
        if named is None and not models[0].default and len(models) > 1:
            raise TargetError(f"several models can {task}: name one with --model: {', '.join(m.name for m in models)}")
        return replace(target, task=task, model=(named or models[0]).name)

    def choose_each(self, target: Target) -> list[Target]:
        """Return a target for every task that can be asked, or for the one that was named; each with its model.

        Where a task has several models and no default, its first is asked.

        Raises:
            TargetError: as `choose`.
        """
        if target.task or target.model or not self.tasks:
            return [self.choose(target)]
        return [replace(target, task=task, model=self.of(task)[0].name) for task in self.tasks]

    def _names(self) -> str:
        return ", ".join(sorted(m.name for m in self.models if m.state == "ready")) or "none that is ready"

    def _because(self) -> str:
        return f" ({self.problem})" if self.problem else ""


def served(target: Target, timeout: float = 10.0) -> Served:
    """Ask a server which models it has.

    Raises:
        TargetError: it cannot be reached, wants a key, is not trusted, or is not this service; with what to do.
    """
    if target.grpc:
        from loadtests.oip_grpc import served_over_grpc  # noqa: PLC0415 - grpcio is not always installed

        return served_over_grpc(target, timeout)
    response = _ask(target, "/v1/models", timeout)
    try:
        listed = msgspec.json.decode(response.body, type=_Listed)
    except msgspec.MsgspecError as error:
        raise TargetError(f"{target.url} is not this service: its /v1/models is no list of models ({error})") from error
    return Served(tuple(listed.models), "" if listed.ready else _problem(target, timeout))


class _Listed(msgspec.Struct):
    """The body of `/v1/models`."""

    models: list[ServedModel]

    @property
    def ready(self) -> bool:
        return bool(self.models) and all(model.state == "ready" for model in self.models)


def _ask(target: Target, path: str, timeout: float, statuses: Sequence[int] = (200,)) -> Response:
    try:
        response = run(fetch(target, Request("GET", path), timeout))
    except OSError as error:
        raise TargetError(unreachable(target, error)) from error
    if response.status in statuses:
        return response
    if response.status in (401, 403):
        wrong = "it does not take this key" if target.api_key else "it needs a key"
        raise TargetError(f"{target.url} answers {response.status}: {wrong}: --api-key or {KEY_VARIABLE}")
    if 300 <= response.status < 400:
        raise TargetError(f"{target.url} sends elsewhere: --url {response.headers.get('location', '')}")
    hint = " (is the URL's path prefix right?)" if response.status == 404 else ""
    raise TargetError(f"{target.url} answers {response.status} at {target.path(path)}{hint}: {response.body[:200]!r}")


def answering(target: Target, requests: Sequence[Asked], timeout: float) -> TestedServer:
    """Send each request once, and return who answered.

    Raises:
        TargetError: one was not answered with 200.
    """

    async def each() -> bytes:
        by, body = transport(target, requests, timeout), b""
        try:
            for which in range(len(requests)):
                outcome, body, _ = await by.ask(which)
                if outcome != 200:
                    said = f"{outcome_name(outcome)}: {body[:300].decode(errors='replace')}"
                    raise TargetError(f"{target.url}: {target.path(target.question)} answers {said}")
        finally:
            await by.close()
        return body

    answer = msgspec.json.decode(run(each()))
    if target.model and answer["model"] != target.model:
        raise TargetError(f"{target.model} was asked, and {answer['model']} answered")
    return TestedServer(target.url, target.scheme, target.task, answer["model"], answer["version"])


def unreachable(target: Target, error: OSError) -> str:
    """Say why a server could not be asked, and what to do."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{target.url}: its certificate is not trusted ({error.verify_message}): --ca-file names its authority"
    if isinstance(error, ssl.SSLError):
        return f"{target.url} does not speak TLS as expected ({error.reason or error}): is it {target.scheme[:-1]}://?"
    if isinstance(error, ConnectionResetError):
        return f"{target.url} closes the connection without an answer: does it want https://?"
    start = " (start it with `make serve`)" if target.url == DEFAULT_URL else ""
    return f"{target.url} is not reachable{start}: {str(error) or 'no answer in time'}"


def _problem(target: Target, timeout: float) -> str:
    """Say, in its own words, why a server is not ready."""
    try:
        said = msgspec.json.decode(_ask(target, "/readyz", timeout, (200, 503)).body, type=_Readiness)
    except (TargetError, msgspec.MsgspecError):
        return ""
    models = ((name, model) for name, model in said.models.items() if model.state != "ready")
    reasons = [f"{name} is {model.state}" + (f": {model.reason}" if model.reason else "") for name, model in models]
    return "; ".join([*filter(None, [said.problem]), *reasons])


class _State(msgspec.Struct):
    """A model in the body of `/readyz`."""

    state: str
    reason: str = ""


class _Readiness(msgspec.Struct):
    """The body of `/readyz`."""

    models: dict[str, _State]
    problem: str = ""
