"""`zooserve dream`: what a layer of a classifier sees in a photo, exaggerated. `export.dream` does it."""

from pathlib import Path

import click
import numpy as np
from PIL import Image

from export.converters import need_torch
from service.errors import RequestError
from service.vision.decode import decode
from zoo.cli import drawn_into


@click.command(
    epilog="""\b
Examples:
  zooserve dream mobilenet_v2 photo.jpg
  zooserve dream mobilenet_v2 photo.jpg --layers
  zooserve dream mobilenet_v2 photo.jpg --layer network.features.10 --steps 30 --out dream.png
"""
)
@click.argument("model")
@click.argument("photo", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--layer", default="", help="Of its network, by name. [default: a convolution at 0.6 of the depth]")
@click.option("--layers", is_flag=True, help="List the layers, and do nothing else.")
@click.option("--steps", type=click.IntRange(1, 1000), default=10, show_default=True, help="At each size.")
@click.option("--octaves", type=click.IntRange(1, 10), default=4, show_default=True, help="Sizes, the coarsest first.")
@click.option("--rate", type=click.FloatRange(0, 100), default=2.0, show_default=True, help="Grey levels a step.")
@click.option(
    "--side", type=click.IntRange(32, 2048), default=384, show_default=True, help="The longer one, in pixels."
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=drawn_into,
    help="[default: ./<photo>.dream.png]",
)
def dream(
    model: str,
    photo: Path,
    *,
    layer: str,
    layers: bool,
    steps: int,
    octaves: int,
    rate: float,
    side: int,
    out: Path | None,
) -> None:
    """Change PHOTO so that a layer of the classifier MODEL answers more strongly; show it before and after.

    It goes up the gradient of the mean square of the layer's answer, at several sizes (Mordvintsev et al., 2015).
    """
    need_torch()
    from export.dream import Dreamer  # noqa: PLC0415 - takes seconds

    try:
        image = Image.fromarray(decode(photo.read_bytes()))
    except (OSError, RequestError) as error:
        raise click.ClickException(f"{photo}: not an image that can be read: {error}") from error
    dreamer = Dreamer(model, layer)
    if layers:
        click.echo("\n".join(dreamer.layers))
        return
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    before = np.asarray(image)
    after = dreamer.dream(before, octaves=octaves, steps=steps, rate=rate)
    out = out or Path(f"{photo.stem}.dream.png")
    Image.fromarray(np.concatenate([before, after], axis=1)).save(out)
    strength = [dreamer.strength(one) for one in (before, after)]
    click.echo(
        f"{out}: before and after. The layer {dreamer.layer} answers {strength[1] / strength[0]:.1f} times as "
        f"strongly; a pixel changed by {np.abs(after.astype(int) - before).mean():.1f} of 255 on average"
    )
