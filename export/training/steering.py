"""Trains the steering network on rendered roads: `python -m export.training.steering --help`.

The roads are made here (`export.training.roads`): no photo is among them, and the figures say nothing of real roads.
Nothing is chosen by the roads that are measured on: the weights are a moving average, taken after the last epoch.
"""

import time
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812, the name that everyone knows it by
from torch import Tensor, nn

from export.families.steering import SteeringNetwork
from export.training.roads import roads
from export.training.saving import descend, fix_seeds, moving_average, out_option, save

TRAINED, UNSEEN = 1, 2  # seeds of the roads
_UNSEEN = 1000  # roads to measure on
_BLOCK = 8  # pixels, of the baseline's averages


def errors(network: nn.Module, images: npt.NDArray[np.uint8], angles: npt.NDArray[np.float32]) -> float:
    """Return the mean absolute error of a network in eval mode, in degrees."""
    with torch.inference_mode():
        found = torch.cat(
            [network(_pixels(part))["angle"][:, 0] for part in torch.split(torch.from_numpy(images), 250)]
        )
    return (found - torch.from_numpy(angles)).abs().mean().item()


def baselines(
    seen: tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]],
    unseen: tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]],
) -> dict[str, float]:
    """Return the mean absolute errors, in degrees, of answering the same always, and of a linear regression.

    The regression reads averages of 8 x 8 grey pixels, and has a ridge penalty.
    """
    before, after = _blocks(seen[0]), _blocks(unseen[0])
    weights = np.linalg.solve(before.T @ before + 0.1 * np.eye(before.shape[1]), before.T @ seen[1])
    return {
        "constant": float(np.abs(unseen[1] - np.median(seen[1])).mean()),
        "linear": float(np.abs(unseen[1] - after @ weights).mean()),
    }


def _blocks(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Return averages of blocks, each image's own mean left out, and a column of ones."""
    count, height, width, _ = images.shape
    grey = images.mean(axis=3).reshape(count, height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK).mean(axis=(2, 4)) / 255
    flat = grey.reshape(count, -1)
    return np.concatenate([flat - flat.mean(axis=1, keepdims=True), np.ones((count, 1))], axis=1)


def _pixels(images: Tensor) -> Tensor:
    return images.permute(0, 3, 1, 2).float() / 255


@click.command()
@out_option("steering")
@click.option("--count", type=click.IntRange(10), default=4000, show_default=True, help="Roads to train on.")
@click.option("--epochs", type=click.IntRange(1), default=8, show_default=True, help="Passes over them.")
@click.option("--batch-size", type=click.IntRange(1), default=50, show_default=True, help="Images per step.")
@click.option("--learning-rate", default=0.002, show_default=True, help="Peak of the one-cycle schedule.")
@click.option("--seed", default=0, show_default=True, help="Of everything that is random but the roads.")
def main(out: Path, count: int, epochs: int, batch_size: int, learning_rate: float, seed: int) -> None:
    """Train on rendered roads, and measure on a thousand others."""
    random = fix_seeds(seed)
    began = time.monotonic()
    seen, unseen = roads(count, TRAINED), roads(_UNSEEN, UNSEEN)
    images, angles = torch.from_numpy(seen[0]), torch.from_numpy(seen[1])
    network = SteeringNetwork()
    average = moving_average(network, 0.99)
    optimiser = torch.optim.AdamW(network.parameters(), learning_rate, weight_decay=0.01)
    steps = -(-count // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=epochs * steps, pct_start=0.1)
    for epoch in range(1, epochs + 1):
        losses = 0.0
        for batch in torch.split(torch.randperm(count, generator=random), batch_size):
            mirrored = torch.rand(1, generator=random) < 0.5  # a mirrored road bends the other way
            x = _pixels(images[batch].flip(2) if mirrored else images[batch])
            loss = F.smooth_l1_loss(network(x)["angle"][:, 0], -angles[batch] if mirrored else angles[batch])
            descend(loss, network, optimiser, schedule, average)
            losses += loss.item()
        click.echo(f"epoch {epoch}/{epochs}: loss {losses / steps:.4f}")
    measured = {"mean_absolute_error": errors(average.module.eval(), *unseen), **baselines(seen, unseen)}
    save(average.module, out, "steering", measured)
    minutes = (time.monotonic() - began) / 60
    click.echo(
        f"{out} after {minutes:.1f} minutes, in degrees: {', '.join(f'{k} {v:.3f}' for k, v in measured.items())}"
    )


if __name__ == "__main__":
    main()
