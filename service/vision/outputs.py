"""Encodes images that a graph answers with (style transfer, super-resolution, alpha). `models.inputs` calls it."""

import cv2
import numpy as np
import numpy.typing as npt

from service.vision.geometry import view, whole_pixels
from zoo.recipe import Placement

_TO_OPENCV = {1: None, 3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}  # by the number of channels


def encode_output(image: npt.NDArray[np.uint8], where: Placement, size: tuple[int, int]) -> bytes:
    """Cut the recipe's border from an image that a graph answered with, and encode it as PNG.

    Args:
        image: uint8 [h, w, C]: grey, RGB or RGBA. It shows the whole of the graph's input, at any scale.
        where: placement of the original image in the graph's input.
        size: height and width of the graph's input.
    """
    rows, columns = view(where, size[1], size[0]).slices
    down, across = image.shape[0] / size[0], image.shape[1] / size[1]
    top, bottom = whole_pixels(rows.start * down, rows.stop * down, image.shape[0])
    left, right = whole_pixels(columns.start * across, columns.stop * across, image.shape[1])
    seen = image[top:bottom, left:right]
    order = _TO_OPENCV[image.shape[2]]
    _, data = cv2.imencode(
        ".png", seen if order is None else cv2.cvtColor(seen, order), [cv2.IMWRITE_PNG_COMPRESSION, 1]
    )
    return data.tobytes()
