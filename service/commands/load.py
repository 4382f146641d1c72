"""Loads one model as a server does, for the commands that answer without a server: `predict` and `eval`."""

from typing import Literal, NamedTuple

import click
import msgspec

from service.models.model import ImageModel, takes_images
from service.predictor import Predictor
from service.runtime import Runtime
from service.settings import SettingError, Settings, read_settings


class Loaded(NamedTuple):
    """A model, its predictor and the settings of both."""

    model: ImageModel
    predictor: Predictor
    settings: Settings


def load_model(name: str, models: str | None = None, *, pixels: Literal["fast", "exact"] | None = None) -> Loaded:
    """Load one model, self-test included.

    Args:
        name: of the model.
        models: the folder of exported models; None: that of the settings.
        pixels: how images are decoded and resized; None: as in the settings.

    Raises:
        ClickException: a setting is wrong, or the model does not exist or is damaged.
    """
    try:
        settings = read_settings()
    except SettingError as error:
        raise click.ClickException(str(error)) from error
    settings = msgspec.structs.replace(
        settings,
        load=name,
        max_batch=1,
        memory_mb=0.0,
        gpu_memory_mb=0.0,
        model_idle_s=0.0,
        models=models or settings.models,
        pixels=pixels or settings.pixels,
    )
    runtime = Runtime(settings)
    runtime.repository.load()
    entry = runtime.repository.entries.get(name)
    if entry is None or entry.model is None:
        raise click.ClickException(runtime.repository.problem if entry is None else entry.reason)
    if not takes_images(entry.model):
        raise click.ClickException(f"{name} takes tensors, not images: a server answers it at /v2/models/{name}")
    return Loaded(entry.model, runtime.predictor, settings)
