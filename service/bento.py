"""The BentoML service: `bentoml serve service.bento:ZooServe`.

Our app (`service.server`) gets all requests first, and answers BentoML's typed endpoints too. These are declared here
so that BentoML's clients and its Swagger page include them.
"""

import functools
import os
from pathlib import Path
from typing import Annotated, Any, Literal

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
from service.internals import listen_apart, look_often, reserve_ports, use_protocol
from service.models.model import ImageModel
from service.predictor import deadline_after
from service.results import Result
from service.runtime import Runtime
from service.server import build_server
from service.supervisor import prepare, with_fronts
from service.tasks import Operation

_SETTINGS = with_fronts(read_settings())
ModelName = Annotated[str, Field(description="Name of the model; empty: the default of the task.")]
_LOOK_S = 0.2  # between two looks for fronts that have ended
_INSTANCES = "For models that find instances."
Tiles = Annotated[str | None, Field(description="Look for small objects in tiles: `auto`, or WIDTHxHEIGHT in pixels.")]
TileOverlap = Annotated[float, Field(ge=0, le=0.9)]
MaxTiles = Annotated[int, Field(ge=1, le=1000)]
Merge = Literal["seam", "nms", "none"]


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
        return build_server(runtime(), super().to_asgi(is_main))


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
        check_device(_SETTINGS.device, _SETTINGS.workers)
        prepare(_SETTINGS)
        if _SETTINGS.fronts > 0:
            look_often(_LOOK_S)
            reserve_ports()

    @bentoml.api
    async def classify(
        self,
        image: Path,
        model: ModelName = "",
        top_k: Annotated[int, Field(ge=1, le=1000)] = 5,
        localize: bool = False,
        heatmap: bool = False,
    ) -> dict[str, Any]:
        """Name what an image shows and, on request, where in it the best class is."""
        return await _answer("classify", image, model, top_k=top_k, localize=localize, heatmap=heatmap)

    @bentoml.api
    async def embed(self, image: Path, model: ModelName = "", normalize: bool = False) -> dict[str, Any]:
        """Answer with the features of an image, for search and comparison."""
        return await _answer("embed", image, model, normalize=normalize)

    @bentoml.api
    async def detect(
        self,
        image: Path,
        model: ModelName = "",
        score_threshold: Annotated[float, Field(ge=0, le=1)] | None = None,
        iou_threshold: Annotated[float, Field(ge=0, le=1)] | None = None,
        max_detections: Annotated[int, Field(ge=1, le=1000)] | None = None,
        tiles: Tiles = None,
        tile_overlap: TileOverlap = 0.2,
        tile_full: bool = True,
        max_tiles: MaxTiles = 128,
        merge: Merge = "seam",
    ) -> dict[str, Any]:
        """Find the objects in an image, with their boxes in its pixels."""
        return await _answer(
            "detect",
            image,
            model,
            score_threshold=score_threshold,
            iou_threshold=iou_threshold,
            max_detections=max_detections,
            tiles=tiles,
            tile_overlap=tile_overlap,
            tile_full=tile_full,
            max_tiles=max_tiles,
            merge=merge,
        )

    @bentoml.api
    async def segment(
        self,
        image: Path,
        model: ModelName = "",
        mask: Literal["rle", "png", "polygon", "none"] = "rle",
        score_threshold: Annotated[float | None, Field(ge=0, le=1, description=_INSTANCES)] = None,
        iou_threshold: Annotated[float | None, Field(ge=0, le=1, description=_INSTANCES)] = None,
        max_detections: Annotated[int | None, Field(ge=1, le=1000, description=_INSTANCES)] = None,
        tiles: Tiles = None,
        tile_overlap: TileOverlap = 0.2,
        tile_full: bool = True,
        max_tiles: MaxTiles = 128,
        merge: Merge = "seam",
    ) -> dict[str, Any]:
        """Tell which pixels of an image belong to which class, or to which object."""
        return await _answer(
            "segment",
            image,
            model,
            mask=mask,
            score_threshold=score_threshold,
            iou_threshold=iou_threshold,
            max_detections=max_detections,
            tiles=tiles,
            tile_overlap=tile_overlap,
            tile_full=tile_full,
            max_tiles=max_tiles,
            merge=merge,
        )

    @bentoml.api
    async def pose(
        self,
        image: Path,
        model: ModelName = "",
        score_threshold: Annotated[float, Field(ge=0, le=1)] | None = None,
        iou_threshold: Annotated[float, Field(ge=0, le=1)] | None = None,
        max_detections: Annotated[int, Field(ge=1, le=1000)] | None = None,
        form: Literal["named", "coco"] = "named",
    ) -> dict[str, Any]:
        """Find the objects in an image, with the keypoints of their poses."""
        return await _answer(
            "pose",
            image,
            model,
            score_threshold=score_threshold,
            iou_threshold=iou_threshold,
            max_detections=max_detections,
            form=form,
        )

    @bentoml.api
    async def obb(
        self,
        image: Path,
        model: ModelName = "",
        score_threshold: Annotated[float, Field(ge=0, le=1)] | None = None,
        iou_threshold: Annotated[float, Field(ge=0, le=1)] | None = None,
        max_detections: Annotated[int, Field(ge=1, le=1000)] | None = None,
    ) -> dict[str, Any]:
        """Find the objects in an image, with boxes turned as they are."""
        return await _answer(
            "obb",
            image,
            model,
            score_threshold=score_threshold,
            iou_threshold=iou_threshold,
            max_detections=max_detections,
        )

    @bentoml.api
    async def pipeline(self, image: Path, name: str, options: dict[str, Any] | None = None) -> dict[str, Any]:
        """Find the objects in an image, and ask a second model about the crop of each; `/v1/pipelines` lists all."""
        pipelines = runtime().pipelines
        card = pipelines.find(name)
        pipeline = pipelines.bind(card, [find() for find in pipelines.finds(card)], options or {})
        encoded = pipelines.image(image.read_bytes(), pipeline)
        return await _wait(encoded, pipeline.detector)


async def _answer(task: Operation, image: Path, model: str, **params: object) -> dict[str, Any]:
    """Answer a call in this process. Requests over HTTP are answered by `http.v1.predict` instead."""
    predictor = runtime().predictor
    loaded = predictor.resolve(task, model or None)
    encoded = predictor.input(image.read_bytes(), loaded, predictor.options(loaded, params, task))
    return await _wait(encoded, loaded)


async def _wait(image: Input[Result], model: ImageModel) -> dict[str, Any]:
    job = runtime().predictor.submit(image, model, deadline_after(_SETTINGS.timeout_ms))
    answer: dict[str, Any] = msgspec.to_builtins(await job.future)
    return answer
