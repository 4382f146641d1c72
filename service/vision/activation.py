"""Turns a class activation map into a bounding box and a heat map of the class. Called by `tasks.classify`.

The method is that of Zhou et al., "Learning Deep Features for Discriminative Localization" (CVPR 2016), section 3: the
map is resized to the graph's input, thresholded at 20 % of its maximum, and the box encloses the largest connected
component.
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
_THRESHOLD = 51  # 20 % of 255
_PNG = (cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP)


def heat_of(activation: npt.NDArray[np.float32], where: Placement, width: int, height: int) -> Heat:
    """Resize a class activation map to the graph's input and scale its values to 0..255.

    The lowest value in the image becomes 0 and the highest 255, as in the code of the paper's authors. Outside of the
    image, in the padding of a letterbox, values are clipped to this range. A constant map becomes 255 everywhere.

    Args:
        activation: the map, float32 [h, w], values of any range.
        where: placement of the image in the graph's input.
        width: of the graph's input, in pixels.
        height: of the graph's input, in pixels.

    Returns:
        The heat map, uint8 [height, width], in pixels of the graph's input.
    """
    scaled = cast("npt.NDArray[np.float32]", cv2.resize(activation, (width, height), interpolation=cv2.INTER_LINEAR))
    seen = scaled[view(where, width, height).slices]
    low, high = float(seen.min()), float(seen.max())
    if low == high:
        return np.full((height, width), 255, np.uint8)
    return ((scaled - low) * (255 / (high - low))).clip(0, 255).round().astype(np.uint8)


def box_of(heat: Heat, where: Placement) -> Box:
    """Find the box around the largest connected component of the pixels above 20 % of the maximum.

    Args:
        heat: uint8 [H, W], from `heat_of`.
        where: placement of the image in the graph's input.

    Returns:
        The box, xyxy in pixels of the original image. It never contains a part of the image that was cropped away.
    """
    height, width = heat.shape
    seen = view(where, width, height)
    above = (heat[seen.slices] > _THRESHOLD).astype(np.uint8)
    _, _, components, _ = cv2.connectedComponentsWithStats(above)
    # Component 0 is the background.
    left, top, across, down, _ = max(components[1:].tolist(), key=lambda one: one[cv2.CC_STAT_AREA])
    x0, x1 = (seen.x.start + edge * seen.x.scale for edge in (left, left + across))
    y0, y1 = (seen.y.start + edge * seen.y.scale for edge in (top, top + down))
    return round(x0, 2), round(y0, 2), round(x1, 2), round(y1, 2)


def encode_heat(heat: Heat, where: Placement) -> Png:
    """Encode a heat map as a greyscale PNG of the original image's size.

    Args:
        heat: uint8 [H, W], from `heat_of`.
        where: placement of the image in the graph's input.

    Returns:
        The PNG, base64. It is 0 in the parts of the image that were cropped away.
    """
    _, data = cv2.imencode(".png", to_image_size(heat, where), _PNG)
    return Png(base64.b64encode(data.tobytes()).decode("ascii"))
