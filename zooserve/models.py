"""A model that is called with images: in this process, or asked of a server. Both have one face.

In this process, the answers are those of a server with `ZOOSERVE_PIXELS=exact` or `fast`, as the settings say: the same
decoding, graph and postprocessing.
"""

import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import click
import msgspec
import numpy as np
from PIL import Image
from zooserve_client import Client, Result
from zooserve_client.images import ImageInput, read_image

from service.commands.load import Loaded, LoadedPipeline, load_model, load_pipeline
from service.errors import RequestError
from service.settings import SettingError, read_settings
from service.vision.draw import draw
from zoo import catalog
from zoo.errors import ZooError
from zoo.extras import install, installed
from zoo.pipeline_card import find_pipeline
from zoo.store import Store

if TYPE_CHECKING:
    from zoo.model_card import AnyCard

_QUALITY = 90  # of JPEGs in a notebook


@dataclass(frozen=True, eq=False)
class Answer(Result):
    """The answer to one image: the client's `Result`, which can also draw itself."""

    _draw: Callable[[], Image.Image] = field(default=Image.Image, repr=False)

    def plot(self) -> Image.Image:
        """Return the image with the answer drawn on it, RGB, in the image's own size."""
        return self._draw()

    def _repr_jpeg_(self) -> bytes | None:
        """What Jupyter shows: the drawn image. An answer that cannot be drawn is shown as text."""
        out = io.BytesIO()
        try:
            self._draw().save(out, "JPEG", quality=_QUALITY)
        except Exception:  # a server that is gone: text is better than a traceback
            return None
        return out.getvalue()


class Model(ABC):
    """A model that is called with images.

    Attributes:
        name: of the model.
        task: classify, detect, segment and so on; of a pipeline, pipeline.
    """

    def __init__(self, name: str, task: str) -> None:
        self.name, self.task = name, task

    @overload
    def __call__(self, image: ImageInput, /, **options: Any) -> Answer: ...

    @overload
    def __call__(self, image: Sequence[ImageInput], /, **options: Any) -> list[Answer]: ...

    def __call__(self, image: ImageInput | Sequence[ImageInput], /, **options: Any) -> Answer | list[Answer]:
        """Answer one image, or a list of them.

        Args:
            image: a path, a file's bytes, an array uint8 [H, W, 3] (RGB), [H, W, 4] or [H, W], a PIL image; or a list
                or tuple of these.
            options: of the task, such as `score_threshold=0.5`, `top_k=3` or `mask="png"`.

        Raises:
            TypeError: it is none of these.
            ValueError: an option is not allowed, or the bytes or the array are not an image.
            ZooserveError: the server has no answer, or a file cannot be read.
        """
        options = {key: value.item() if isinstance(value, np.generic) else value for key, value in options.items()}
        if isinstance(image, list | tuple):
            return [self._answer(read_image(each), options) for each in image]
        return self._answer(read_image(image), options)  # type: ignore[arg-type]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}: {self.task}>"

    @abstractmethod
    def _answer(self, data: bytes, options: dict[str, Any]) -> Answer:
        """Answer an encoded image."""


class LocalModel(Model):
    """A model of the store, in this process."""

    def __init__(self, loaded: Loaded) -> None:
        super().__init__(loaded.model.card.name, loaded.model.card.task)
        self._loaded = loaded

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of all classes, by class id."""
        return self._loaded.model.card.labels

    def _answer(self, data: bytes, options: dict[str, Any]) -> Answer:
        model, predictor, _ = self._loaded
        try:
            result = predictor.predict(data, model, options)
        except RequestError as error:
            raise ValueError(error.detail) from None
        as_asked = Result.read(msgspec.json.decode(msgspec.json.encode(result)))
        skeleton = self._loaded.model.card.skeleton
        return _with(as_asked, lambda: draw(data, result, skeleton=skeleton, enlarge=False))


class LocalPipeline(Model):
    """A pipeline of models of the store, in this process."""

    def __init__(self, loaded: LoadedPipeline) -> None:
        super().__init__(loaded.card.name, "pipeline")
        self._loaded = loaded

    def _answer(self, data: bytes, options: dict[str, Any]) -> Answer:
        try:
            result = self._loaded.answer(data, options)
        except RequestError as error:
            raise ValueError(error.detail) from None
        as_asked = Result.read(msgspec.json.decode(msgspec.json.encode(result)))
        return _with(as_asked, lambda: draw(data, result, skeleton=self._loaded.skeleton, enlarge=False))


class RemoteModel(Model):
    """A model of a server."""

    def __init__(self, client: Client, name: str, task: str) -> None:
        super().__init__(name, task)
        self._client = client

    def _answer(self, data: bytes, options: dict[str, Any]) -> Answer:
        ask: Any = self._client
        result: Result = ask.predict(self.task, data, model=self.name, **options)
        shown = {key: value for key, value in options.items() if key != "mask"}

        def drawn() -> Image.Image:
            return Image.open(io.BytesIO(ask.annotate(self.task, data, model=self.name, **shown))).convert("RGB")

        return _with(result, drawn)


class RemotePipeline(Model):
    """A pipeline of a server."""

    def __init__(self, client: Client, name: str) -> None:
        super().__init__(name, "pipeline")
        self._client = client

    def _answer(self, data: bytes, options: dict[str, Any]) -> Answer:
        def drawn() -> Image.Image:
            return Image.open(io.BytesIO(self._client.annotate_pipeline(self.name, data, **options))).convert("RGB")

        return _with(self._client.pipeline(self.name, data, **options), drawn)


def load(name: str, model: str | None = None, *, models: str | Path | None = None, api_key: str | None = None) -> Model:
    """Load a model or a pipeline.

    A model, also one of a pipeline's, is exported first if the store does not have it and what exports it is installed.

    Args:
        name: of a model, such as `yolov4_tiny`, or of a pipeline, such as `pets`; or the address of a server,
            `http://localhost:3000`.
        model: or pipeline, of the server; None: the default of its first task.
        models: the folder of exported models; None: `ZOOSERVE_MODELS`, or `models` in the current folder.
        api_key: of the server; None: `ZOOSERVE_API_KEY`.

    Raises:
        ValueError: there is no such model, it cannot be loaded, or its licence must be accepted first; the message says
            what to do.
        ZooserveError: the server cannot be reached.
    """
    if name.startswith(("http://", "https://")):
        return _of_server(Client(name, api_key=api_key), model)
    try:
        folder = str(models or read_settings().models)
        stored = {entry.name for entry in Store(Path(folder)).look().entries}
        card = None if name in stored else find_pipeline(name, Path(folder))
        for needed in card.models if card else (name,):
            if needed not in stored:
                _export(needed, folder)
        pipeline = load_pipeline(name, folder) if card else None
        return LocalPipeline(pipeline) if pipeline else LocalModel(load_model(name, folder))
    except (click.ClickException, SettingError, ZooError) as error:
        raise ValueError(error.message if isinstance(error, click.ClickException) else str(error)) from None


def _of_server(client: Client, name: str | None) -> Model:
    known = {each["name"]: each for each in client.models()}
    if name is None:
        able = [each for each in known.values() if each.get("default")] or list(known.values())
        name = next((each["name"] for each in able), None)
    if name is not None and name not in known and name in {each["name"] for each in client.pipelines()}:
        return RemotePipeline(client, name)
    if name is None or name not in known:
        raise ValueError(f"the server has no model {name}; it has {', '.join(known) or 'none'}")
    return RemoteModel(client, name, known[name]["task"])


def _export(name: str, folder: str) -> None:
    """Export a model that the store does not have.

    Raises:
        ValueError: what exports it is not installed.
        ZooError: it is not known, or cannot be exported; a licence that must be accepted is named.
    """
    card: AnyCard = catalog.find(name)
    if not (installed("torch") and installed("onnx")):
        raise ValueError(f"{folder} does not hold {name}, and what exports it is not installed: {install('export')}")
    from export.pipeline import export_model  # noqa: PLC0415 - torch takes seconds, and need not be there

    export_model(card, Store(Path(folder)))


def _with(result: Result, drawn: Callable[[], Image.Image]) -> Answer:
    known: dict[str, Any] = {each.name: getattr(result, each.name) for each in fields(Result)}
    return Answer(**known, _draw=drawn)
