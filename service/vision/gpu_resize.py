"""Resizes decoded images by a card's recipe where they lie, on a GPU or on the CPU, as a graph of ONNX Runtime.

Resampling is linear along each axis, so it is two products of matrices: with the weights of all target rows, and of all
target columns. Rows and columns outside the image have no weights and show the recipe's padding.
"""

from collections import OrderedDict
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from zoo.card import Recipe
from zoo.recipe import placement, scaled_size

Weights = npt.NDArray[np.float32]
_GRAPHS = Path(__file__).with_name("graphs")  # written by tests/service/vision/resize_graphs.py
_KEPT = 64  # sizes of images whose weights are kept


class UnsupportedError(ValueError):
    """A recipe whose resampling is no kernel that is known here."""


def graph(recipe: Recipe, *, vertical_first: bool) -> Path:
    """Return the graph of a recipe: the image, weights along both axes and the padding in, pixels out.

    Args:
        recipe: of a model. Pillow rounds to 8 bits between the two axes, so its graphs do, too.
        vertical_first: resample along y before x; where values between are rounded, the order changes a little.
    """
    order = "down_first" if vertical_first else "across_first"
    return _GRAPHS / f"{order}{'_rounded' if recipe.resampling == 'pillow' else ''}.onnx"


def weights(recipe: Recipe, side: int, scaled: int, offset: int, target: int) -> Weights:
    """Return how much each pixel of an axis counts in each pixel of the graph's input.

    Args:
        recipe: gives the kernel: Pillow's is as wide as the image shrinks, those of others are not.
        side: pixels of the image along the axis.
        scaled: to which it is resampled.
        offset: where its first one lies in the input; negative where the image is cropped.
        target: pixels of the input.

    Returns:
        float32 [target, side]. Rows sum to 1, those outside the image to 0.
    """
    at = np.arange(target) - offset
    inside = (at >= 0) & (at < scaled)
    centres = (at + 0.5) * (side / scaled)
    if recipe.resampling == "darknet":  # the corners' centres coincide
        centres = at * ((side - 1) / max(1, scaled - 1)) + 0.5
    width = max(1.0, side / scaled) if recipe.resampling == "pillow" else 1.0
    kernel, reach = _KERNELS[recipe.interpolation]
    # Only the pixels that the kernel reaches are computed: every image of a new size waits for this.
    pixels = np.floor(centres - reach * width).astype(int)[:, None] + np.arange(2 * ceil(reach * width) + 1)
    values = kernel(np.abs(pixels + 0.5 - centres[:, None]) / width)
    values[~inside] = 0.0
    values[(pixels < 0) | (pixels >= side)] = 0.0
    sums = values.sum(axis=1, keepdims=True)
    found = np.zeros((target, side), np.float32)
    rows, columns = np.nonzero(values)
    found[rows, pixels[rows, columns]] = (values / np.where(sums == 0, 1.0, sums))[rows, columns]
    return found


class Resizer:
    """Resizes images of any size into rows of a batch, by one recipe, on one device and stream.

    Args:
        recipe: of a model.
        device: `cuda` or `cpu`, as ONNX Runtime calls it.
        providers: of the session, as ONNX Runtime takes them.

    Raises:
        UnsupportedError: the recipe resamples otherwise than linearly, and not as Pillow does.
    """

    def __init__(self, recipe: Recipe, device: str, providers: list[Any]) -> None:
        if recipe.resampling != "pillow" and recipe.interpolation != "bilinear":
            raise UnsupportedError(f"{recipe.resampling} {recipe.interpolation} is not resized on a GPU")
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        if device != "cpu":  # no step on the CPU: pixels would come back for it
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        self._recipe, self._device = recipe, device
        self._sessions = [
            ort.InferenceSession(
                str(graph(recipe, vertical_first=first)), options, providers=providers, enable_fallback=0
            )
            for first in (False, True)
        ]
        self._pad = self._place(np.array(recipe.pad, np.float32).reshape(3, 1, 1))
        # By height and width, those that were used last at the end.
        self._weights: OrderedDict[tuple[int, int], tuple[ort.OrtValue, ort.OrtValue]] = OrderedDict()
        self._options = ort.RunOptions()
        if device == "cuda":  # who uses the rows waits for the stream
            self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def resize(self, image: int, height: int, width: int, row: int) -> None:
        """Resize an image to a row of a batch.

        Args:
            image: address of its pixels on the device, uint8 [height, width, 3] RGB, without gaps.
            height: in pixels.
            width: in pixels.
            row: address of uint8 [recipe.height, recipe.width, 3].
        """
        down, across = self._weights_of(height, width)
        new_width, new_height = scaled_size(self._recipe, width, height)
        # As Pillow 13: first along x, unless the image shrinks much more along y.
        session = self._sessions[height - new_height > max(0, 2 * (width - new_width))]
        binding = session.io_binding()
        binding.bind_input("image", self._device, 0, np.uint8, (height, width, 3), image)
        binding.bind_ortvalue_input("across", across)
        binding.bind_ortvalue_input("down", down)
        binding.bind_ortvalue_input("pad", self._pad)
        shape = (self._recipe.height, self._recipe.width, 3)
        binding.bind_output("resized", self._device, 0, np.uint8, shape, row)
        session.run_with_iobinding(binding, self._options)

    def trim(self) -> None:
        """Let go of the weights for sizes that were seen long ago. Only when nothing is queued on the device."""
        while len(self._weights) > _KEPT:
            self._weights.popitem(last=False)

    def _weights_of(self, height: int, width: int) -> tuple[ort.OrtValue, ort.OrtValue]:
        found = self._weights.get((height, width))
        if found is None:
            recipe = self._recipe
            where = placement(recipe, width, height)
            new_width, new_height = scaled_size(recipe, width, height)
            down = weights(recipe, height, new_height, int(where.offset_y), recipe.height)
            across = weights(recipe, width, new_width, int(where.offset_x), recipe.width)
            found = self._place(down), self._place(np.ascontiguousarray(across.T))
            self._weights[height, width] = found
        self._weights.move_to_end((height, width))
        return found

    def _place(self, array: Weights) -> ort.OrtValue:
        return ort.OrtValue.ortvalue_from_numpy(array, self._device, 0)


def _linear(distance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.maximum(0.0, 1.0 - distance)


def _cubic(distance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Keys' kernel with a = -0.5, as Pillow's."""
    near = (1.5 * distance - 2.5) * distance * distance + 1.0
    far = ((-0.5 * distance + 2.5) * distance - 4.0) * distance + 2.0
    return np.where(distance < 1, near, np.where(distance < 2, far, 0.0))


def _lanczos(distance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Lanczos' kernel of three lobes, as Pillow's."""
    return np.where(distance < 3, np.sinc(distance) * np.sinc(distance / 3), 0.0)


# With the distance from which on a kernel is 0.
_KERNELS = {"bilinear": (_linear, 1), "bicubic": (_cubic, 2), "lanczos": (_lanczos, 3)}
