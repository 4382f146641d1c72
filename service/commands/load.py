"""Loads a model or a pipeline as a server does, for commands that answer without one: `predict`, `eval`, `score`."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import click
import msgspec

from service.models.model import ImageModel, takes_images
from service.predictor import Predictor
from service.results import Result
from service.runtime import Runtime
from service.settings import SettingError, Settings, read_settings
from zoo.pipeline_card import PipelineCard, find_pipeline
from zoo.store import Store

_NO_LIMIT = 100_000  # the largest queue that the setting allows


class Loaded(NamedTuple):
    """A model, its predictor and the settings of both."""

    model: ImageModel
    predictor: Predictor
    settings: Settings


def load_model(
    name: str,
    models: str | None = None,
    *,
    pixels: Literal["fast", "exact"] | None = None,
    threads: int | None = None,
    batches: bool = False,
) -> Loaded:
    """Load one model, self-test included.

    Args:
        name: of the model.
        models: the folder of exported models; None: that of the settings.
        pixels: how images are decoded and resized; None: as in the settings.
        threads: worker threads; None: as in the settings.
        batches: whether images are submitted to the model's queue, which collects them, as many as the caller likes;
            else each is answered alone.

    Raises:
        ClickException: a setting is wrong, or the model does not exist, or its newest version is damaged.
    """
    settings = _settings(name, models, pixels)
    if batches:
        batch = read_settings().max_batch
        settings = msgspec.structs.replace(settings, max_batch=batch, max_queue=_NO_LIMIT, prefer="throughput")
    if threads is not None:
        settings = msgspec.structs.replace(settings, threads=threads)
    runtime = Runtime(settings)
    runtime.repository.load()
    entry = runtime.repository.entries.get(name)
    if entry is None or entry.model is None:
        raise click.ClickException(runtime.repository.problem if entry is None else entry.reason)
    _check_newest(runtime, [name])
    if not takes_images(entry.model):
        raise click.ClickException(f"{name} takes tensors, not images: a server answers it at /v2/models/{name}")
    return Loaded(entry.model, runtime.predictor, settings)


class LoadedPipeline(NamedTuple):
    """A pipeline with its models, and what answers images with it.

    Attributes:
        answer: `(data, options)` -> the result for an encoded image; raises `RequestError`.
        skeleton: of the second model's keypoints.
    """

    card: PipelineCard
    answer: Callable[[bytes, Mapping[str, object]], Result]
    skeleton: tuple[tuple[int, int], ...]


def load_pipeline(name: str, models: str | None = None) -> LoadedPipeline | None:
    """Load the models of a pipeline, self-test included; None if there is no such pipeline, or a model of this name.

    Args:
        name: of the pipeline.
        models: the folder of exported models; None: that of the settings.

    Raises:
        ClickException: a setting or the pipeline's card is wrong, or one of its models does not exist or is damaged.
    """
    folder = Path(models or _settings("", models).models)
    card = find_pipeline(name, folder)
    if card is None or name in {entry.name for entry in Store(folder).look().entries}:
        return None
    runtime = Runtime(_settings(",".join(card.models), models))
    runtime.repository.load()
    if problem := runtime.repository.problem or runtime.pipelines.problem(card):
        raise click.ClickException(problem)
    _check_newest(runtime, card.models)
    second = runtime.repository.get(card.second.task, card.second.model)
    return LoadedPipeline(
        card, lambda data, options: runtime.pipelines.predict(data, name, options), second.card.skeleton
    )


def _check_newest(runtime: Runtime, names: Sequence[str]) -> None:
    """Refuse to answer with an older version where the newest fails a check, as a server does that starts."""
    for name in names:
        if refused := runtime.repository.entries[name].refused:
            raise click.ClickException(f"{name}: {refused}")


def _settings(load: str, models: str | None, pixels: Literal["fast", "exact"] | None = None) -> Settings:
    """Read the settings, for one image at a time and without a budget for memory."""
    try:
        settings = read_settings()
    except SettingError as error:
        raise click.ClickException(str(error)) from error
    return msgspec.structs.replace(
        settings,
        load=load,
        max_batch=1,
        memory_mb=0.0,
        gpu_memory_mb=0.0,
        model_idle_s=0.0,
        models=models or settings.models,
        pixels=pixels or settings.pixels,
    )
