"""SAHI with a model of ours, in a process that has SAHI on its path: the test of tiles calls it there."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from service.commands.load import load_model
from service.models.inputs import ImageCut
from service.tasks import options_of
from service.vision.decoded import DecodedImage

PACKAGES = ["sahi==0.12.0", "shapely==2.1.2"]


def sliced(models: str, name: str, file: Path, size: int) -> list[tuple[str, float, tuple[float, ...]]]:
    """Return label, score and box (xyxy) of what SAHI finds, with its defaults, in slices of `size` pixels."""
    from sahi.models.base import DetectionModel
    from sahi.predict import get_sliced_prediction
    from sahi.prediction import ObjectPrediction
    from sahi.utils.compatibility import fix_full_shape_list, fix_shift_amount_list

    model, _, settings = load_model(name, models)
    options = options_of("detect", {})

    class Ours(DetectionModel):
        def set_device(self, device: Any = None) -> None:
            self.device = "cpu"

        def load_model(self) -> None:
            self.model = partial(ImageCut, card=model.card, options=options, settings=settings)

        def perform_inference(self, image: np.ndarray) -> None:
            pixels = DecodedImage(np.ascontiguousarray(image))
            self._original_predictions = self.model(pixels, (0, 0, pixels.width, pixels.height)).alone(
                model.session.run
            )

        def _create_object_prediction_list_from_original_predictions(
            self, shift_amount_list: Any = None, full_shape_list: Any = None
        ) -> None:
            self._object_prediction_list_per_image = [
                [
                    ObjectPrediction(
                        bbox=list(found.box),
                        category_id=found.class_id,
                        score=found.score,
                        category_name=found.label,
                        shift_amount=fix_shift_amount_list(shift_amount_list)[0],
                        full_shape=(fix_full_shape_list(full_shape_list) or [None])[0],
                    )
                    for found in self._original_predictions.predictions
                ]
            ]

    made = get_sliced_prediction(
        np.asarray(Image.open(file).convert("RGB")), Ours(), slice_height=size, slice_width=size, verbose=0
    )
    return [
        (each.category.name, float(each.score.value), tuple(each.bbox.to_xyxy()))
        for each in made.object_prediction_list
    ]
