"""The BentoML service: `bentoml serve service.bento:ZooServe`.

Our HTTP (`service.http`) stands in front of BentoML's own app. BentoML's typed endpoints stand beside it, so that its
clients work, and call the same predictor.
"""

import functools
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from service.settings import read_settings

_SETTINGS = read_settings()
if _SETTINGS.workers == 1:
    # One process needs no shared files for its metrics, which cost three times as much. The choice is made on import.
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)

import bentoml
import msgspec
import uvicorn.config
from _bentoml_impl.serde import MultipartSerde
from bentoml.exceptions import InvalidArgument
from pydantic import Field, ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from service.errors import RequestError
from service.http.app import build_app
from service.http.problems import CONTENT_TYPE, problem
from service.predictor import deadline_after
from service.runtime import Runtime
from zoo.card import Task

ModelName = Annotated[str, Field(description="Name of the model; empty: the default of the task.")]
_INSTANCES = "For models that find instances."


@functools.cache
def runtime() -> Runtime:
    """Return the runtime of this server process, made at the first call."""
    return Runtime(_SETTINGS, (bentoml.server_context.worker_index or 1) - 1)


async def _only_files(part: str | UploadFile) -> UploadFile:
    """Refuse a URL where a file is due: BentoML would fetch it. It would also name a file as the client does."""
    if isinstance(part, UploadFile):
        part.filename = None  # a long one cannot be a file's
        return part
    raise InvalidArgument("the picture must be sent as a file; addresses are not fetched")


_parse = MultipartSerde.parse_request


async def _parse_or_refuse(serde: MultipartSerde, request: Request, kind: Any) -> Any:
    """Refuse a broken multipart body: BentoML would answer 500."""
    try:
        return await _parse(serde, request, kind)
    except ValidationError:
        raise
    except (HTTPException, ValueError, RecursionError) as error:
        raise InvalidArgument(f"the multipart body cannot be read: {error}") from None


MultipartSerde.ensure_file = staticmethod(_only_files)
MultipartSerde.parse_request = _parse_or_refuse
uvicorn.config.HTTP_PROTOCOLS["auto"] = "service.http.connections:Connection"


class FrontedService(bentoml.Service):  # type: ignore[misc]
    """A BentoML service whose app stands behind ours."""

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        """Build BentoML's app and put ours in front of it."""
        return build_app(runtime(), super().to_asgi(is_main))


@bentoml.service(
    name="zooserve",
    service_class=FrontedService,
    workers=_SETTINGS.workers,
    traffic={"timeout": _SETTINGS.timeout_ms / 1000 + 1},  # ours comes first, with a body that says why
    metrics={"enabled": False},  # its `endpoint` label is whatever path a client types
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": [".*"]},
)
class ZooServe:
    """Pretrained vision models: classification, detection and segmentation of pictures."""

    @bentoml.api
    async def classify(
        self,
        image: Path,
        model: ModelName = "",
        top_k: Annotated[int, Field(ge=1, le=1000)] = 5,
        localize: bool = False,
        heatmap: bool = False,
    ) -> dict[str, Any]:
        """Name what a picture shows and, on request, where in it the best class is."""
        return await _answer("classify", image, model, top_k=top_k, localize=localize, heatmap=heatmap)

    @bentoml.api
    async def detect(
        self,
        image: Path,
        model: ModelName = "",
        score_threshold: Annotated[float, Field(ge=0, le=1)] = 0.25,
        iou_threshold: Annotated[float, Field(ge=0, le=1)] = 0.45,
        max_detections: Annotated[int, Field(ge=1, le=1000)] = 100,
    ) -> dict[str, Any]:
        """Find the objects in a picture, with their boxes in its pixels."""
        return await _answer(
            "detect",
            image,
            model,
            score_threshold=score_threshold,
            iou_threshold=iou_threshold,
            max_detections=max_detections,
        )

    @bentoml.api
    async def segment(
        self,
        image: Path,
        model: ModelName = "",
        mask: Literal["rle", "png", "polygon", "none"] = "rle",
        score_threshold: Annotated[float, Field(ge=0, le=1, description=_INSTANCES)] = 0.25,
        iou_threshold: Annotated[float, Field(ge=0, le=1, description=_INSTANCES)] = 0.45,
        max_detections: Annotated[int, Field(ge=1, le=1000, description=_INSTANCES)] = 100,
    ) -> dict[str, Any]:
        """Tell which pixels of a picture belong to which class, or to which object."""
        return await _answer(
            "segment",
            image,
            model,
            mask=mask,
            score_threshold=score_threshold,
            iou_threshold=iou_threshold,
            max_detections=max_detections,
        )


async def _answer(task: Task, image: Path, model: str, **words: Any) -> dict[str, Any]:
    """Answer through the queue. A ready `Response` spares BentoML's schema work, which costs more than the answer's."""
    return await _respond(task, image, model, words)  # type: ignore[return-value]


async def _respond(task: Task, image: Path, model: str, words: dict[str, Any]) -> Response:
    predictor = runtime().predictor
    try:
        loaded = predictor.resolve(task, model or None)
        options = predictor.options(loaded, words)
        deadline = deadline_after(_SETTINGS.timeout_ms)
        job = predictor.submit(image.read_bytes(), loaded, options, deadline)
        return Response(msgspec.json.encode(await job.future), media_type="application/json")
    except RequestError as error:
        body = problem(error)
        return Response(msgspec.json.encode(body), body.status, media_type=CONTENT_TYPE.decode())
