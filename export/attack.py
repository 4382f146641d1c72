"""Adversarial images by the gradients of a model's network: FGSM and PGD, in whole grey levels of the graph's input.

`zooserve eval --attack` finds these by the entry points `zooserve.attacks`, and the served graph answers the images.
"""

import importlib
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812, the name that everyone knows it by
from torch import Tensor, nn

from export.heads import Pixels
from export.network import Network
from zoo.errors import ExportError
from zoo.libraries import find_card
from zoo.model_card import require_images
from zoo.served_card import ServedCard
from zoo.sources import fetch_all

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


class Target:
    """A classifier in torch, from grey levels to the gradient of its loss.

    Args:
        module: float32 [N, 3, H, W] (grey: [N, 1, H, W]) -> `logits` [N, C], as in `export.network.Network`.
        pixels: what comes before it in the served graph.
    """

    def __init__(self, module: nn.Module, pixels: Pixels) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._module = module.to(self.device).eval().requires_grad_(requires_grad=False)
        self._pixels = pixels.to(self.device).eval()

    def gradient(self, images: Tensor, labels: Tensor) -> Tensor:
        """The gradient of the cross-entropy of `labels`, int64 [N], at `images`, float32 [N, H, W, 3] in 0..255."""
        images = images.detach().requires_grad_()
        loss = F.cross_entropy(self._module(self._pixels(images))["logits"], labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, images)
        return gradient


def fast_gradient_sign(target: Target, images: Tensor, labels: Tensor, epsilon: int) -> Tensor:
    """One step of `epsilon` along the gradient's sign: images float32 [N, H, W, 3] in 0..255 -> the same.

    Source: Goodfellow, Shlens and Szegedy, Explaining and harnessing adversarial examples, 2015.
    """
    return (images + epsilon * target.gradient(images, labels).sign()).clamp(0, 255)


def projected_gradient_descent(target: Target, images: Tensor, labels: Tensor, epsilon: int, steps: int) -> Tensor:
    """`steps` steps along the gradient's sign from a random place, each brought back to within `epsilon` (L-infinity).

    A step is 2.5 epsilon / steps long, so that every place within epsilon can be reached. The random place is the same
    at every call.

    Source: Madry et al., Towards deep learning models resistant to adversarial attacks, 2018.
    """
    random = torch.Generator().manual_seed(0)
    start = (2 * torch.rand(images.shape, generator=random) - 1).to(images.device)
    low, high = (images - epsilon).clamp(min=0), (images + epsilon).clamp(max=255)
    attacked = torch.clamp(images + epsilon * start, low, high)
    for _ in range(steps):
        step = 2.5 * epsilon / steps * target.gradient(attacked, labels).sign()
        attacked = torch.clamp(attacked + step, low, high)
    return attacked


class _Attack:
    """What the two attacks share: building the target, bytes in and out. May be called from several threads at once."""

    def __init__(self, served: ServedCard) -> None:
        """Build the network that `served` was made from; see `target_of`."""
        self.target = target_of(served)

    def __call__(self, images: Images, labels: Labels, *, epsilon: int, steps: int = 1) -> Images:
        """Change images so that they are not taken for what they are.

        Args:
            images: uint8 [N, H, W, 3] RGB, the graph's input.
            labels: the class ids to get away from, [N].
            epsilon: the most that a channel of a pixel changes, in grey levels of 255 (L-infinity).
            steps: of PGD; FGSM takes one.

        Returns:
            uint8 [N, H, W, 3], nowhere more than `epsilon` away from `images`.
        """
        if epsilon < 0 or steps < 1:
            raise ExportError(f"epsilon {epsilon}, steps {steps}: expected at least 0 grey levels and 1 step")
        torch.set_num_threads(1)  # batches are attacked side by side, one on each core, as they are served
        x = torch.from_numpy(images).to(self.target.device).float()
        y = torch.from_numpy(labels).to(self.target.device)
        # Whole levels lie within epsilon too: it is whole, and so are the images' own.
        attacked: Images = self._change(x, y, epsilon, steps).round().to(torch.uint8).cpu().numpy()
        return attacked

    def _change(self, images: Tensor, labels: Tensor, epsilon: int, steps: int) -> Tensor:
        raise NotImplementedError


class Fgsm(_Attack):
    """The fast gradient sign method on a served model's network."""

    def _change(self, images: Tensor, labels: Tensor, epsilon: int, steps: int) -> Tensor:  # noqa: ARG002
        return fast_gradient_sign(self.target, images, labels, epsilon)


class Pgd(_Attack):
    """Projected gradient descent on a served model's network."""

    def _change(self, images: Tensor, labels: Tensor, epsilon: int, steps: int) -> Tensor:
        return projected_gradient_descent(self.target, images, labels, epsilon, steps)


def target_of(served: ServedCard) -> Target:
    """Build the network that a served classifier was made from; of a variant of lower precision, its fp32 model's.

    Raises:
        ExportError: it is no classifier, has no network in torch, or was exported from another checkpoint.
        UnknownModelError: no card has its name.
        SourceError: its checkpoint cannot be fetched.
    """
    if served.task != "classify":
        raise ExportError(f"{served.name} has the task {served.task}: only classifiers are attacked")
    card = require_images(find_card(served.agreement.base if served.agreement else served.name))
    if any(not served.provenance.sha256.get(name, "").startswith(s.digest) for name, s in card.sources.items()):
        raise ExportError(f"{served.name} was exported from another checkpoint than its card names: export it again")
    return _build(card.name)


@lru_cache(maxsize=1)  # several attacks on one model share its network
def _build(name: str) -> Target:
    card = require_images(find_card(name))
    family = importlib.import_module(f"export.families.{card.family}")
    network: Network = family.build(card, fetch_all(card.sources))
    if not isinstance(network.module, nn.Module):
        raise ExportError(
            f"{name} was published as an ONNX graph (family {card.family}) and has no network in torch, whose "
            "gradients an attack needs"
        )
    return Target(network.module, Pixels(card.normalise))
