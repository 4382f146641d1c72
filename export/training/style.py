"""Trains a network to paint in the style of a pattern: `python -m export.training.style --help`.

The loss is perceptual: a classifier's features say whether an image shows what the photo shows, and looks like the
pattern. The photo on which this is measured is not trained on, and nothing is chosen by it.
"""

import time
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from export.families.style import StyleNetwork
from export.photos import open_upright
from export.training.perceptual import Perception
from export.training.saving import FOLDER, descend, fix_seeds, moving_average, out_option, save
from zoo import catalog

PATTERNS = ("brick", "tissue")
PHOTOS = ("astronaut", "coffee", "rocket", "china", "flower")
HELD_OUT = "chelsea"
_SIDE, _MEASURED = 128, 256  # pixels, of the crops to train on and of the image to measure on
_STYLE_WEIGHT, _SMOOTH_WEIGHT = 1.0, 2e-5


def read_images(names: tuple[str, ...]) -> list[Tensor]:
    """Fetch sample photos: uint8 [3, H, W] RGB, their short side twice the crops' at least."""
    return [_tensor(open_upright(catalog.sample(name)), 2 * _SIDE) for name in names]


def read_pattern(name: str) -> Tensor:
    """Fetch a pattern: float32 [1, 3, H, W] RGB in 0..255."""
    return _tensor(open_upright(catalog.dataset("patterns")[name]), _MEASURED)[None].float()


def _tensor(image: Image.Image, short_side: int) -> Tensor:
    scale = short_side / min(image.size)
    width, height = (round(scale * side) for side in image.size)
    return torch.from_numpy(np.asarray(image.resize((width, height), Image.Resampling.BICUBIC)).copy()).permute(2, 0, 1)


def crops(images: list[Tensor], count: int, random: torch.Generator) -> Tensor:
    """Cut random squares out of random images, half of them mirrored: float32 [N, 3, 128, 128] in 0..255."""

    def one() -> Tensor:
        image = images[int(torch.randint(len(images), (1,), generator=random))]
        top, left = (int(torch.randint(side - _SIDE + 1, (1,), generator=random)) for side in image.shape[1:])
        cut = image[:, top : top + _SIDE, left : left + _SIDE]
        return cut.flip(2) if torch.rand(1, generator=random) < 0.5 else cut

    return torch.stack([one() for _ in range(count)]).float()


def measure(network: nn.Module, perception: Perception, style: list[Tensor]) -> dict[str, float]:
    """Measure on the photo that is held out, 256 x 256 of it.

    Returns:
        `style` and `style_of_photo`: `Perception.style_loss` of the painted photo, and of the photo itself. `content`
        and `content_of_another`: `Perception.content_loss` of the painted photo, and of another photo.
    """
    photo, other = (one[None, :, :_MEASURED, :_MEASURED].float() for one in read_images((HELD_OUT, PHOTOS[0])))
    with torch.inference_mode():
        wanted = perception.features(photo)
        painted = perception.features(network(photo / 255)["image"])
        return {
            "style": perception.style_loss(perception.grams(painted), style).item(),
            "style_of_photo": perception.style_loss(perception.grams(wanted), style).item(),
            "content": perception.content_loss(painted, wanted).item(),
            "content_of_another": perception.content_loss(perception.features(other), wanted).item(),
        }


@click.command()
@click.argument("pattern", type=click.Choice(PATTERNS))
@out_option(None)
@click.option("--steps", type=click.IntRange(1), default=600, show_default=True, help="Of the optimiser.")
@click.option("--batch-size", type=click.IntRange(1), default=2, show_default=True, help="Crops per step.")
@click.option("--learning-rate", default=0.003, show_default=True, help="Peak of the one-cycle schedule.")
@click.option("--seed", default=0, show_default=True, help="Of everything that is random.")
def main(pattern: str, out: Path | None, steps: int, batch_size: int, learning_rate: float, seed: int) -> None:
    """Train on five sample photos to paint like PATTERN, and measure on a sixth."""
    random = fix_seeds(seed)
    perception = Perception()
    with torch.inference_mode():
        style = perception.grams(perception.features(read_pattern(pattern)))
    style = [one.clone() for one in style]
    images = read_images(PHOTOS)
    network = StyleNetwork()
    average = moving_average(network, 0.98)
    optimiser = torch.optim.Adam(network.parameters(), learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=steps, pct_start=0.1)
    began = time.monotonic()
    for step in range(1, steps + 1):
        photos = crops(images, batch_size, random)
        with torch.no_grad():
            wanted = perception.features(photos)
        painted = network(photos / 255)["image"]
        features = perception.features(painted)
        content = perception.content_loss(features, wanted)
        looks = perception.style_loss(perception.grams(features), style)
        rough = painted.diff(dim=2).square().mean() + painted.diff(dim=3).square().mean()
        loss = content + _STYLE_WEIGHT * looks + _SMOOTH_WEIGHT * rough
        descend(loss, network, optimiser, schedule, average)
        if step % 50 == 0 or step == steps:
            click.echo(f"step {step}/{steps}: content {content.item():.3f}, style {looks.item():.3f}")
    out = out or FOLDER / f"style_{pattern}.pt"
    measured = measure(average.module.eval(), perception, style)
    save(average.module, out, "style", measured)
    minutes = (time.monotonic() - began) / 60
    click.echo(f"{out} after {minutes:.1f} minutes: {', '.join(f'{k} {v:.3f}' for k, v in measured.items())}")


if __name__ == "__main__":
    main()
