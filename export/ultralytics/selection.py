"""How Ultralytics' library prepares images, and how its `predict` and its `val` select objects.

For the families and the importers that read its files.
"""

import msgspec

from zoo.card import Nms, Recipe

PREDICT = Nms(score_threshold=0.25, iou_threshold=0.7, max_detections=300)
VAL = Nms(score_threshold=0.001, iou_threshold=0.7, max_detections=300, multi_label=True)
VAL_OF_OBJECTS = msgspec.structs.replace(VAL, multi_label=False)
"""Of networks whose candidates are objects already."""


def prepared(recipe: Recipe) -> Recipe:
    """Return a recipe of its networks with OpenCV's resampling and its rounding, except a classifier's: by Pillow."""
    if recipe.resize == "crop":
        return recipe
    return msgspec.structs.replace(recipe, resampling="opencv", odd_padding="after")
