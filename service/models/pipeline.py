"""An image in a pipeline: a detector finds objects, and a second model is asked about the crop of each.

`service.pipelines` makes it. The image is decoded once. Crops are cut from its own pixels, not from the detector's
input, and each is an ordinary job of the second model, so the crops of all requests share batches. The detector looks
at the whole image, or in tiles.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from msgspec import Struct

from service.engine.calls import Calls
from service.engine.intake import Admission
from service.engine.job import Job
from service.errors import Reason, RequestError, refusal_of
from service.models.composite import CompositeImage, Steps
from service.models.inputs import ImageCut
from service.models.model import ImageModel
from service.models.tiles import cuts_for, look, merged
from service.results import Box, CropError, Cropped, Detection, ImageSize, PipelineResult, Result
from service.settings import Settings
from service.vision.geometry import whole_pixels
from zoo.pipeline_card import Crops, PipelineCard

CropBox = tuple[int, int, int, int]


class Pipeline(NamedTuple):
    """A pipeline's card, its loaded models, and the options of a request for each of them."""

    card: PipelineCard
    detector: ImageModel
    second: ImageModel
    options: Struct
    second_options: Struct

    def check(self, deadline: float) -> None:
        """Refuse an image that could not be answered in time by both models, before any work is done for it.

        Raises:
            RequestError: `queue_full`. The queue of the second model must have room for all crops that there may be.
        """
        for model in (self.detector, self.second):
            model.batcher.check(deadline)
        queue, crops = self.second.batcher, self.card.crops.max_crops
        if queue.pending and queue.pending + crops > queue.max_queue:
            raise RequestError(
                Reason.QUEUE_FULL,
                f"{queue.pending} images wait for `{self.second.card.name}` (of at most {queue.max_queue}), and the "
                f"pipeline may ask about {crops} crops. Try again later, or add capacity.",
                retry_after=1,
            )


class PipelineImage(CompositeImage):
    """An encoded image that a pipeline answers.

    Args:
        data: the encoded image.
        pipeline: with its loaded models and the options of the request.
        settings: how images are resized, and how large they may be.
        calls: decode.
    """

    __slots__ = ("_pipeline",)

    def __init__(self, data: bytes, pipeline: Pipeline, settings: Settings, calls: Calls) -> None:
        super().__init__(data, settings, calls)
        self._pipeline = pipeline

    def enter(self, queue: Admission, job: Job[Result]) -> None:
        """Begin with the job; raises `RequestError` (`queue_full`) as `Pipeline.check` does."""
        self._pipeline.check(job.deadline)
        super().enter(queue, job)

    async def compose(self, steps: Steps) -> PipelineResult:
        """Find objects, and ask about each.

        Raises:
            RequestError: the image is not one, damaged or too large, or has too many tiles; the detector failed;
                `deadline`, also if it passes while crops are computed. Other errors of a crop are in its place.
        """
        card, detector, second, options, second_options = self._pipeline
        size = await self._size(steps)
        tiles = cuts_for(steps, size, detector, options)
        async with self._decoded(steps, size) as image:
            results = await look(steps, image, tiles, detector, options, self._settings)
            found = await merged(steps, tiles, results, size, detector, options)
            objects: list[Any] = list(found.predictions)
            if card.detect.classes:
                objects = [each for each in objects if each.label in card.detect.classes]
            boxes = crops_of([each.box for each in objects], size, card.crops)
            cuts = [
                ImageCut(image, box, second.card, second_options, self._settings)
                for box in boxes
                if not isinstance(box, str)
            ]
            del image
            answers = iter(await steps.ask(second, cuts))
        predictions = [
            _nested(each, box, None if isinstance(box, str) else next(answers))
            for each, box in zip(objects, boxes, strict=True)
        ]
        return PipelineResult(found.model, found.version, found.task, ImageSize(*size), predictions, card.name)


def crops_of(boxes: Sequence[Box], size: tuple[int, int], crops: Crops) -> list[CropBox | str]:
    """Return what is cut out for each box, in whole pixels of the image, or the reason why nothing is.

    Args:
        boxes: xyxy in pixels of the image, within it; the best first.
        size: width and height of the image.
        crops: of the pipeline's card.

    Returns:
        For each box (left, top, right, bottom), at least one pixel large, or `min_size` or `max_crops`.
    """
    found: list[CropBox | str] = []
    left = crops.max_crops
    for x0, y0, x1, y1 in boxes:
        across, down = crops.pad * (x1 - x0), crops.pad * (y1 - y0)
        (start, end), (top, bottom) = (
            whole_pixels(max(0.0, low), min(high, side), side)
            for low, high, side in ((x0 - across, x1 + across, size[0]), (y0 - down, y1 + down, size[1]))
        )
        if min(end - start, bottom - top) < crops.min_size:
            found.append("min_size")
        elif left == 0:
            found.append("max_crops")
        else:
            found.append((start, top, end, bottom))
            left -= 1
    return found


def _nested(found: Detection, box: CropBox | str, answer: Result | BaseException | None) -> Cropped:
    """Put the second model's answer into its object."""
    about = found.class_id, found.label, found.score, found.box
    if isinstance(box, str):
        return Cropped(*about, skipped=box)  # type: ignore[arg-type]  # one of the two reasons
    if isinstance(answer, BaseException):
        return Cropped(*about, crop=box, error=_error(answer))
    return Cropped(*about, crop=box, second=answer)


def _error(error: BaseException) -> CropError:
    """Tell a crop's error; see `refusal_of`."""
    refusal = refusal_of(error, "crop")
    if refusal.reason is Reason.DEADLINE:
        raise refusal
    refusal.forget()
    return CropError(refusal.reason, refusal.detail)
