"""The BentoML service: `bentoml serve service.bento:ZooServe`.

Our app (`service.server`) gets all requests first, and answers BentoML's typed endpoints too. These are declared here
so that BentoML's clients and its Swagger page include them.
"""

import functools
import os
from inspect import Parameter, Signature
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from service.settings import read_settings, refuse_unprotected

refuse_unprotected()  # also for `bentoml serve`, which does not run `zooserve serve`
# Processes share their metrics by `counts`, not by files; prometheus_client decides this when it is imported.
os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)

import bentoml
import msgspec
from pydantic import Field
from starlette.types import ASGIApp

from service.engine.job import Input
from service.engine.probe import check_device
from service.internals import (
    command_from_within,
    end_with_terminal,
    listen_apart,
    look_often,
    reserve_ports,
    turn_away,
    use_protocol,
)
from service.models.model import ImageModel
from service.options import given_type
from service.predictor import deadline_after
from service.results import Result
from service.runtime import Runtime
from service.server import build_server
from service.supervisor import prepare, with_fronts
from service.tasks import TASKS, Operation
from service.telemetry.logs import set_up_parent_logs

_SETTINGS = with_fronts(read_settings())
_LOOK_S = 0.2  # between two looks for fronts that have ended
_ANY_WAY = Parameter.POSITIONAL_OR_KEYWORD


@functools.cache
def runtime() -> Runtime:
    """Return the runtime of this server process, made at the first call."""
    return Runtime(_SETTINGS, (bentoml.server_context.worker_index or 1) - 1)


use_protocol("service.http.server.connections:Connection")


class Service(bentoml.Service):  # type: ignore[misc]
    """A BentoML service whose app gets only the requests that ours does not answer."""

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        """Build BentoML's app and put ours in front of it."""
        if _SETTINGS.fronts > 0:
            listen_apart()
        elif _SETTINGS.workers == 1:  # else one that ends alone would turn away the clients of others
            turn_away()
        return build_server(runtime(), super().to_asgi(is_main))


def _endpoint(task: Operation) -> Any:
    """Declare the typed endpoint of a task: its parameters are the image, the model and the task's options.

    It answers calls in this process. Requests over HTTP are answered by `http.v1.predict` instead.
    """
    about_model = Field("", description="Name of the model; empty: the default of the task.")
    options = [_parameter(option) for option in msgspec.structs.fields(TASKS[task].options)]
    signature = Signature(
        [
            Parameter("self", _ANY_WAY),
            Parameter("image", _ANY_WAY, annotation=Path),
            Parameter("model", _ANY_WAY, annotation=str, default=about_model),
            *options,
        ],
        return_annotation=dict[str, Any],
    )

    async def endpoint(*args: object, **kwargs: object) -> dict[str, Any]:
        params = dict(signature.bind(*args, **kwargs).arguments)
        image, model, _ = (params.pop(name, None) for name in ("image", "model", "self"))
        predictor = runtime().predictor
        loaded = runtime().repository.get(task, model or None)
        encoded = predictor.input(image.read_bytes(), loaded, predictor.options(loaded, params, task))
        return await _wait(encoded, loaded)

    endpoint.__name__, endpoint.__doc__ = task, f"{TASKS[task].summary}."
    endpoint.__signature__ = signature  # type: ignore[attr-defined]  # BentoML reads it as that of any function
    return bentoml.api(endpoint)


def _parameter(option: msgspec.structs.FieldInfo) -> Parameter:
    """Declare an option of a task with its type, default, limits and description, as pydantic reads them."""
    kind = given_type(option.type)
    plain, meta = get_args(kind) if get_origin(kind) is Annotated else (kind, msgspec.Meta())
    annotation = plain if kind is option.type else plain | None
    default = Field(option.default, ge=meta.ge, le=meta.le, description=meta.description)
    return Parameter(option.name, _ANY_WAY, annotation=annotation, default=default)


async def _wait(image: Input[Result], model: ImageModel) -> dict[str, Any]:
    job = runtime().predictor.submit(image, model, deadline_after(_SETTINGS.timeout_ms))
    answer: dict[str, Any] = msgspec.to_builtins(await job.future)
    return answer


@bentoml.service(
    name="zooserve",
    service_class=Service,
    workers=_SETTINGS.processes,
    traffic={"timeout": _SETTINGS.timeout_ms / 1000 + 1},  # after our own timeout, whose answer has the reason
    metrics={"enabled": False},  # clients could create any number of series, by its label `endpoint`
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": [".*"]},
)
class ZooServe:
    """Pretrained vision models: classes, features, objects, masks, poses and rotated boxes in images."""

    @bentoml.on_deployment
    def prepare() -> None:
        """BentoML calls this once, before it starts the server's processes."""
        set_up_parent_logs(_SETTINGS.log)
        os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # as NVML numbers GPUs; CUDA has the fastest first
        check_device(_SETTINGS.device, max(_SETTINGS.workers, _SETTINGS.engines))
        prepare(_SETTINGS)
        command_from_within()
        end_with_terminal()
        if _SETTINGS.fronts > 0:
            look_often(_LOOK_S)
            reserve_ports()

    classify = _endpoint("classify")
    embed = _endpoint("embed")
    detect = _endpoint("detect")
    segment = _endpoint("segment")
    pose = _endpoint("pose")
    obb = _endpoint("obb")

    @bentoml.api
    async def pipeline(self, image: Path, name: str, options: dict[str, Any] | None = None) -> dict[str, Any]:
        """Find the objects in an image, and ask a second model about the crop of each; `/v1/pipelines` lists all."""
        pipelines = runtime().pipelines
        card = pipelines.find(name)
        pipeline = pipelines.bind(card, [find() for find in pipelines.finds(card)], options or {})
        encoded = pipelines.image(image.read_bytes(), pipeline)
        return await _wait(encoded, pipeline.detector)
