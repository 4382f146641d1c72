"""From a class activation map to where in the image the class is: a box, and a heat map. Called by `tasks.classify`.

Zhou et al., "Learning Deep Features for Discriminative Localization" (CVPR 2016), section 3: the map is brought to the
input's size, and the box is that of the largest connected part over a fifth of its maximum.
"""

import base64
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from service.results import Box, Png
from service.vision.geometry import view
from service.vision.masks import to_image_size
from zoo.recipe import Placement

Heat = npt.NDArray[np.uint8]
_FIFTH = 51  # of 255
_PNG = (cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP)


def heat_of(activation: npt.NDArray[np.float32], where: Placement, width: int, height: int) -> Heat:
    """Bring a map to the size of the graph's input.

    Args:
        activation: float32 [h, w], of any range.
        where: the image in the input.
        width: of the input, in pixels.
        height: likewise.

    Returns:
        uint8 [height, width]: within the image, 0 where the map is lowest and 255 where it is highest. (The authors'
        own code takes the lowest off as well.) 255 everywhere where the map is flat.
    """
    scaled = cast("npt.NDArray[np.float32]", cv2.resize(activation, (width, height), interpolation=cv2.INTER_LINEAR))
    seen = scaled[view(where, width, height).slices]
    low, high = float(seen.min()), float(seen.max())
    if low == high:
        return np.full((height, width), 255, np.uint8)
    return ((scaled - low) * (255 / (high - low))).clip(0, 255).round().astype(np.uint8)


def box_of(heat: Heat, where: Placement) -> Box:
    """The box around the largest connected part that is over a fifth of the maximum.

    Args:
        heat: uint8 [H, W], from `heat_of`.
        where: the image in the graph's input.

    Returns:
        xyxy in pixels of the image. What a crop cut off is never in it.
    """
    height, width = heat.shape
    seen = view(where, width, height)
    warm = (heat[seen.slices] > _FIFTH).astype(np.uint8)
    _, _, parts, _ = cv2.connectedComponentsWithStats(warm)
    left, top, across, down, _ = max(parts[1:].tolist(), key=lambda part: part[cv2.CC_STAT_AREA])  # 0: all the rest
    x0, x1 = (seen.x.start + edge * seen.x.scale for edge in (left, left + across))
    y0, y1 = (seen.y.start + edge * seen.y.scale for edge in (top, top + down))
    return round(x0, 2), round(y0, 2), round(x1, 2), round(y1, 2)


def encode_heat(heat: Heat, where: Placement) -> Png:
    """Write a heat map from `heat_of` down at the image's size; 0 where a crop cut the image off."""
    _, data = cv2.imencode(".png", to_image_size(heat, where), _PNG)
    return Png(base64.b64encode(data.tobytes()).decode("ascii"))
