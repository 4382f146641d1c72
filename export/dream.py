"""Dreams: an image changed so that a layer of a classifier answers more strongly. `zooserve dream` calls it.

Source: Mordvintsev, Olah and Tyka, Inceptionism: going deeper into neural networks, 2015.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812, the name that everyone knows it by
from torch import Tensor, nn

from export.build import build
from export.heads import Pixels
from zoo.errors import ExportError
from zoo.libraries import find_card
from zoo.model_card import require_images
from zoo.sources import fetch_all

Image = npt.NDArray[np.uint8]
_SMALLEST = 32  # pixels of an octave's short side
_JITTER = 16  # pixels that an image is shifted by before each step, so that no pattern sticks to the network's grid
_DEPTH = 0.6  # of the layers, in the order in which they run: where the layer is that is taken by default


class _Reached(Exception):  # noqa: N818 - no error: the layers behind are not run
    pass


class Dreamer:
    """A layer of a classifier, and the way up its gradient.

    Args:
        name: of a classifier of the zoo or of a library that has its network in torch.
        layer: name of a module in it, such as `features.14`; empty: a convolution at 0.6 of the depth.

    Attributes:
        layers: names of all layers that can be taken, in the order in which they run.
        layer: the one that is taken.

    Raises:
        ExportError: it is no classifier, has no network in torch, or no such layer.
        UnknownModelError, SourceError: there is no such card, or its files cannot be had.
    """

    def __init__(self, name: str, layer: str = "") -> None:
        card = require_images(find_card(name))
        if card.task != "classify":
            raise ExportError(f"{name} has the task {card.task}: only classifiers dream")
        module = build(card, fetch_all(card.sources)).module
        if not isinstance(module, nn.Module):
            raise ExportError(
                f"{name} was published as an ONNX graph: there is no network in torch to take gradients of"
            )
        self._network = module.eval().requires_grad_(requires_grad=False)
        self._pixels = Pixels(card.normalise)
        self._modules = dict(self._network.named_modules())
        self.layers = self._order(torch.zeros(1, card.recipe.height, card.recipe.width, 3))
        convolutions = [one for one in self.layers if isinstance(self._modules[one], nn.Conv2d)]
        self.layer = layer or convolutions[int(_DEPTH * len(convolutions))]
        if self.layer not in self.layers:
            raise ExportError(f"{name}: there is no layer {layer!r}; those that it has: {', '.join(self.layers)}")

    def activation(self, image: Tensor) -> Tensor:
        """Return the mean square of what the layer answers to an image, float32 [H, W, 3] in 0..255."""
        return self._answer(image[None], self.layer).square().mean()

    def strength(self, image: Image) -> float:
        """Return the same for uint8 [H, W, 3] RGB, as a root mean square."""
        with torch.no_grad():
            return self.activation(torch.from_numpy(image.copy()).float()).sqrt().item()

    def dream(self, image: Image, *, octaves: int, steps: int, rate: float) -> Image:
        """Change an image along the gradient, first the coarse and then the fine.

        Args:
            image: uint8 [H, W, 3] RGB.
            octaves: sizes, each 1.4 times the one before; the last is the image's own.
            steps: at each size.
            rate: the mean change of a pixel in a step, in grey levels of 255.
        """
        random = torch.Generator().manual_seed(0)
        whole = torch.from_numpy(image.copy()).float()
        detail = torch.zeros(1, 1, 3)
        for octave in reversed(range(octaves)):
            height, width = (round(side / 1.4**octave) for side in image.shape[:2])
            if min(height, width) < _SMALLEST and octave:
                continue
            base = _resized(whole, height, width)
            detail = _resized(detail, height, width)
            for _ in range(steps):
                detail = self._step(base, detail, rate, random)
        dreamt: Image = (whole + detail).clamp(0, 255).round().to(torch.uint8).numpy()
        return dreamt

    def _step(self, base: Tensor, detail: Tensor, rate: float, random: torch.Generator) -> Tensor:
        shift = torch.randint(-_JITTER, _JITTER + 1, (2,), generator=random).tolist()
        image = (base + detail).roll(shift, (0, 1)).requires_grad_()
        (gradient,) = torch.autograd.grad(self.activation(image), image)
        moved = detail + rate * (gradient / (gradient.abs().mean() + 1e-12)).roll([-side for side in shift], (0, 1))
        return (base + moved).clamp(0, 255) - base

    def _answer(self, images: Tensor, layer: str) -> Tensor:
        found: list[Tensor] = []

        def keep(_: nn.Module, __: object, output: Tensor) -> None:
            found.append(output)
            raise _Reached

        with _hooked(self._modules[layer], keep), suppress(_Reached):
            self._network(self._pixels(images))
        return found[0]

    def _order(self, images: Tensor) -> list[str]:
        """Return the names of the modules that answer with a tensor [N, C, h, w], in the order in which they run."""
        order: list[str] = []
        handles = [
            module.register_forward_hook(
                lambda _, __, output, name=name: (
                    order.append(name) if name and isinstance(output, Tensor) and output.ndim == 4 else None
                )
            )
            for name, module in self._modules.items()
        ]
        with torch.no_grad():
            self._network(self._pixels(images))
        for handle in handles:
            handle.remove()
        return list(dict.fromkeys(order))


@contextmanager
def _hooked(module: nn.Module, hook: object) -> Iterator[None]:
    handle = module.register_forward_hook(hook)  # type: ignore[arg-type]
    try:
        yield
    finally:
        handle.remove()


def _resized(image: Tensor, height: int, width: int) -> Tensor:
    """Resize an image [h, w, 3]."""
    planes = image.permute(2, 0, 1)[None]
    return F.interpolate(planes, (height, width), mode="bilinear", antialias=True)[0].permute(1, 2, 0)
