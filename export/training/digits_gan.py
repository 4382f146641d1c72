"""Trains the generator of digits on MNIST: `python -m export.training.digits_gan --help`.

LeNet-5, which the zoo serves, judges what it generates: whether it is sure of a digit, and whether all ten occur. The
distance to the nearest training image shows whether images were only learnt by heart. Nothing is chosen by these: the
weights are a moving average, taken after the last epoch.
"""

import math
import time
from pathlib import Path

import click
import torch
import torch.nn.functional as F  # noqa: N812, the name that everyone knows it by
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from export.build import build
from export.families.digits_gan import LATENT, DigitsGenerator
from export.training.lenet5 import read_mnist
from export.training.saving import fix_seeds, moving_average, out_option, save
from zoo import catalog
from zoo.model_card import require_images
from zoo.sources import fetch_all

SURE = 0.9  # probability of its best class from which on LeNet-5 counts as sure
_JUDGED, _COMPARED = 10_000, 500


class Discriminator(nn.Sequential):
    """An image float32 [N, 1, 28, 28] in 0..1 -> a logit [N, 1], high for real ones.

    Source: Spectral normalization for generative adversarial networks, Miyato et al., 2018.
    """

    def __init__(self) -> None:
        super().__init__(
            spectral_norm(nn.Conv2d(1, 32, 4, 2, 1)),
            nn.LeakyReLU(0.1),
            spectral_norm(nn.Conv2d(32, 64, 4, 2, 1)),
            nn.LeakyReLU(0.1),
            nn.Flatten(),
            nn.Dropout(0.2),
            spectral_norm(nn.Linear(64 * 7 * 7, 1)),
        )


def judged(images: Tensor) -> dict[str, float]:
    """Judge images float32 [N, 1, 28, 28], grey in 0..1, by LeNet-5.

    Returns:
        `sure`: share of which it is sure. `rarest` and `commonest`: share of the digit that it names least and most.
        `entropy_bits`: of the digits that it names; ten equally frequent ones have 3.32.
    """
    card = require_images(catalog.find("lenet5"))
    network = build(card, fetch_all(card.sources)).module
    assert isinstance(network, nn.Module)  # noqa: S101 - its family is torch's
    with torch.inference_mode():
        probabilities = torch.cat([network(batch)["logits"].softmax(1) for batch in torch.split(images, 1000)])
    best, digits = probabilities.max(1)
    shares = digits.bincount(minlength=10).double() / len(digits)
    entropy = -sum(share * math.log2(share) for share in shares.tolist() if share)
    return {
        "sure": (best >= SURE).double().mean().item(),
        "rarest": shares.min().item(),
        "commonest": shares.max().item(),
        "entropy_bits": entropy,
    }


def distance(images: Tensor, others: Tensor) -> float:
    """Return the mean Euclidean distance of images [N, 1, 28, 28], in 0..1, to the nearest among others."""
    nearest = [torch.cdist(part.flatten(1), others.flatten(1)).min(1).values for part in torch.split(images, 50)]
    return torch.cat(nearest).mean().item()


@click.command()
@out_option("digits_gan")
@click.option("--epochs", type=click.IntRange(1), default=6, show_default=True, help="Passes over the images.")
@click.option("--batch-size", type=click.IntRange(2), default=64, show_default=True, help="Images per step.")
@click.option("--learning-rate", default=0.0003, show_default=True, help="Of both networks.")
@click.option("--seed", default=0, show_default=True, help="Of everything that is random.")
def main(out: Path, epochs: int, batch_size: int, learning_rate: float, seed: int) -> None:
    """Train a generator against a discriminator on MNIST's 60,000 training images, and let LeNet-5 judge it."""
    random = fix_seeds(seed)
    real, _ = read_mnist("train")
    if batch_size > len(real):
        raise click.UsageError(f"--batch-size is {batch_size:,}, but there are {len(real):,} images")
    generator, discriminator = DigitsGenerator(), Discriminator()
    average = moving_average(generator, 0.998)
    betas = (0.5, 0.99)
    of_generator = torch.optim.Adam(generator.parameters(), learning_rate, betas)
    of_discriminator = torch.optim.Adam(discriminator.parameters(), learning_rate, betas)
    began = time.monotonic()
    for epoch in range(1, epochs + 1):
        losses = torch.zeros(2)
        batches = torch.split(torch.randperm(len(real), generator=random), batch_size)
        for batch in batches[: len(real) // batch_size]:
            latent = torch.randn(batch_size, LATENT, generator=random)
            made = generator.pixels(latent)
            # The non-saturating loss of Goodfellow et al., 2014: each is to be taken for what the other says it is not.
            wrong = F.softplus(-discriminator(real[batch])).mean() + F.softplus(discriminator(made.detach())).mean()
            of_discriminator.zero_grad()
            wrong.backward()  # type: ignore[no-untyped-call]
            of_discriminator.step()
            seen_through = F.softplus(-discriminator(made)).mean()
            of_generator.zero_grad()
            seen_through.backward()  # type: ignore[no-untyped-call]
            of_generator.step()
            average.update_parameters(generator)
            losses += torch.stack([wrong, seen_through]).detach()
        wrong_mean, seen_mean = (losses / (len(real) // batch_size)).tolist()
        click.echo(
            f"epoch {epoch}/{epochs}: loss of the discriminator {wrong_mean:.3f}, of the generator {seen_mean:.3f}"
        )
    average.eval()
    trained = average.module
    assert isinstance(trained, DigitsGenerator)  # noqa: S101 - it is a copy of `generator`
    with torch.inference_mode():
        samples = trained.pixels(torch.randn(_JUDGED, LATENT, generator=random))
    held_out, _ = read_mnist("test")
    measured = judged(samples) | {
        "distance": distance(samples[:_COMPARED], real),
        "distance_of_test_images": distance(held_out[:_COMPARED], real),
    }
    save(trained, out, "digits_gan", measured)
    minutes = (time.monotonic() - began) / 60
    click.echo(f"{out} after {minutes:.1f} minutes: {', '.join(f'{k} {v:.3f}' for k, v in measured.items())}")
    click.echo(f"test images: {', '.join(f'{k} {v:.3f}' for k, v in judged(held_out).items())}")


if __name__ == "__main__":
    main()
