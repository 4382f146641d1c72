"""Trains LeNet-5 on MNIST: `python -m export.training.lenet5 --help`. It made `export/checkpoints/lenet5.pt`.

Nothing is chosen by looking at the test images: the weights are a moving average, taken after the last epoch.
"""

import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812, the name that everyone knows it by
from torch import Tensor

from export.families.lenet import LeNet5
from export.training.saving import descend, fix_seeds, moving_average, out_option, save
from zoo.catalog import dataset


def read_mnist(part: str) -> tuple[Tensor, Tensor]:
    """Fetch the `train` or the `test` part of MNIST: images float32 [N, 1, 28, 28] in 0..1, and digits int64 [N].

    Raises:
        SourceError: it cannot be fetched.
    """
    files = dataset("mnist")
    digits = np.fromfile(files[f"{part}_labels"], np.uint8, offset=8)
    pixels = np.fromfile(files[f"{part}_images"], np.uint8, offset=16).reshape(len(digits), 1, 28, 28)
    return torch.from_numpy(pixels).float() / 255, torch.from_numpy(digits).long()


def augment(images: Tensor, random: torch.Generator) -> Tensor:
    """Turn each image by up to 15 degrees, scale it by .8 to 1.2 per axis, shear it and shift it by up to 3 pixels.

    A digit that someone posts fills its image more or less than MNIST's do, and seldom as well centred.
    """
    n = len(images)

    def uniform(limit: float) -> Tensor:
        return (2 * torch.rand(n, generator=random) - 1) * limit

    angle, shear = uniform(math.radians(15)), uniform(0.15)
    turn = torch.stack([angle.cos(), shear - angle.sin(), angle.sin(), angle.cos()], dim=1).view(n, 2, 2)
    scale = 1 + torch.stack([uniform(0.2), uniform(0.2)], dim=1)
    shift = torch.stack([uniform(3 / 14), uniform(3 / 14)], dim=1)  # the image spans -1 to 1
    theta = torch.cat([turn * scale[:, None], shift[:, :, None]], dim=2)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def accuracy(network: torch.nn.Module, images: Tensor, digits: Tensor) -> float:
    """Share of the images whose digit the network, in eval mode, names."""
    network.eval()
    with torch.inference_mode():
        named = torch.cat([network(batch)["logits"].argmax(1) for batch in torch.split(images, 1000)])
    return (named == digits).double().mean().item()


@click.command()
@out_option("lenet5")
@click.option("--epochs", type=click.IntRange(1), default=20, show_default=True, help="Passes over the images.")
@click.option("--batch-size", type=click.IntRange(1), default=256, show_default=True, help="Images per step.")
@click.option("--learning-rate", default=0.1, show_default=True, help="Peak of the one-cycle schedule.")
@click.option("--seed", default=0, show_default=True, help="Of everything that is random.")
def main(out: Path, epochs: int, batch_size: int, learning_rate: float, seed: int) -> None:
    """Train LeNet-5 on MNIST's 60,000 training images and judge it on the 10,000 test images."""
    random = fix_seeds(seed)
    images, digits = read_mnist("train")
    test = read_mnist("test")
    network = LeNet5()
    average = moving_average(network, 0.995)
    optimiser = torch.optim.SGD(network.parameters(), learning_rate, momentum=0.9, nesterov=True, weight_decay=5e-4)
    steps = math.ceil(len(digits) / batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=epochs * steps)
    began = time.monotonic()
    for epoch in range(1, epochs + 1):
        losses = 0.0
        network.train()
        batches = torch.split(torch.randperm(len(digits), generator=random), batch_size)
        for batch in _progress(batches, f"epoch {epoch}/{epochs}"):
            logits = network(augment(images[batch], random))["logits"]
            loss = F.cross_entropy(logits, digits[batch])
            descend(loss, network, optimiser, schedule, average)
            losses += loss.item()
        click.echo(f"epoch {epoch}/{epochs}: loss {losses / steps:.4f}, test accuracy {accuracy(average, *test):.2%}")
    measured = accuracy(average, *test)
    save(average.module, out, "lenet5", {"test_accuracy": measured})
    minutes = (time.monotonic() - began) / 60
    click.echo(f"{out}: test accuracy {measured:.2%} after {minutes:.1f} minutes")


def _progress(batches: tuple[Tensor, ...], label: str) -> Iterator[Tensor]:
    with click.progressbar(batches, label=label, file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
        yield from bar


if __name__ == "__main__":
    main()
