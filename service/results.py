"""The typed answers of all tasks, independent of the transport. msgspec encodes them as the JSON of `/v1`.

Boxes are (left, top, right, bottom) in pixels of the original image (EXIF orientation applied), clipped to it.
"""

from typing import Literal

from msgspec import Struct

Box = tuple[float, float, float, float]
Point = tuple[float, float]
Keypoint = tuple[float, float, float]


class ImageSize(Struct, frozen=True):
    """Size of the original image in pixels, after its EXIF orientation was applied."""

    width: int
    height: int


class RunLength(Struct, frozen=True):
    """A binary mask as COCO's compressed run lengths, for `pycocotools.mask.decode`; `size` is [height, width]."""

    size: tuple[int, int]
    counts: str


class Png(Struct, frozen=True):
    """A base64 greyscale PNG of the original image's size: a mask (0 or 255), an opacity, or a heat map."""

    png: str


class Polygons(Struct, frozen=True):
    """A mask's outlines, each [x0, y0, x1, y1, ...] in pixels of the original image, on the pixels' outer edges.

    They are exact to a pixel; the smallest parts may be left out. A hole is connected to its outline by a line in both
    directions, which pycocotools and canvases fill correctly.
    """

    polygons: list[list[float]]


Mask = RunLength | Png | Polygons


class Classification(Struct, frozen=True, omit_defaults=True):
    """One class of an image and its probability. The best class has, on request, its box and heat map in the image.

    `heatmap` is a greyscale PNG of the image's size, brightest where the image contributed most to the class.
    """

    class_id: int
    label: str
    score: float
    box: Box | None = None
    heatmap: Png | None = None


class Embedding(Struct, frozen=True):
    """The features of an image [F]: float32 numbers, as JSON's."""

    embedding: list[float]


class Detection(Struct, frozen=True):
    """One object: its class, score and box."""

    class_id: int
    label: str
    score: float
    box: Box


class Pose(Struct, frozen=True):
    """One object with its keypoints by name: x and y in pixels of the original image, clipped to it, and a score.

    The score, 0 to 1, says how sure the model is that the point is visible; of models that give none it is 1.
    """

    class_id: int
    label: str
    score: float
    box: Box
    keypoints: dict[str, Keypoint]


class CocoPose(Struct, frozen=True):
    """One object as in COCO's results of keypoints, for pycocotools: add its `image_id`.

    `category_id` is the class id plus 1, as COCO counts; `bbox` is x, y, width and height; `keypoints` x, y and score
    of each.
    """

    category_id: int
    keypoints: list[float]
    score: float
    bbox: Box


class RotatedBox(Struct, frozen=True):
    """One object with a rotated box, in pixels of the original image, beyond whose edges it may reach.

    Attributes:
        corners: the four corners, clockwise from the top left of the object's own frame.
        center: x and y.
        size: width and height, along the object's own axes.
        angle: radians, in [-pi/4, 3pi/4), by which the object's x axis, along its width, is turned from the image's x
            axis towards its y axis: clockwise as one sees it.
    """

    class_id: int
    label: str
    score: float
    corners: tuple[Point, Point, Point, Point]
    center: Point
    size: Point
    angle: float


class Segment(Struct, frozen=True, omit_defaults=True):
    """One class in an image: the share of the image that it covers (0 to 1), and its mask."""

    class_id: int
    label: str
    area: float
    mask: Mask | None = None


class Instance(Struct, frozen=True, omit_defaults=True):
    """One object with its mask, and the share of the image that the mask covers (0 to 1).

    The mask is cut to the box, which is rounded to whole pixels, at least one, for that.
    """

    class_id: int
    label: str
    score: float
    box: Box
    area: float
    mask: Mask | None = None


Prediction = Classification | Embedding | Detection | Segment | Instance | Pose | CocoPose | RotatedBox


class Result(Struct, frozen=True):
    """The answer for one image."""

    model: str
    version: str
    task: str
    image: ImageSize
    predictions: (
        list[Classification]
        | list[Embedding]
        | list[Detection]
        | list[Segment]
        | list[Instance]
        | list[Pose]
        | list[CocoPose]
        | list[RotatedBox]
    )


class CropError(Struct, frozen=True):
    """Why the second model of a pipeline has no answer to a crop; the reasons are those of problems."""

    reason: str
    detail: str


class Cropped(Detection, frozen=True, omit_defaults=True):
    """One object of a pipeline, and the second model's answer to its crop.

    Attributes:
        crop: what was cut out, (left, top, right, bottom) in whole pixels of the original image.
        second: the answer to the crop as if it were an image: its pixels begin at the crop's left top corner.
        error: why the second model failed on this crop.
        skipped: why it was not asked about this one: the crop is smaller than the card's `min_size`, or there are
            `max_crops` better ones.
    """

    crop: tuple[int, int, int, int] | None = None
    second: Result | None = None
    error: CropError | None = None
    skipped: Literal["min_size", "max_crops"] | None = None


class PipelineResult(Result, frozen=True):
    """The answer of a pipeline to one image: its detector's, with the second model's nested in each prediction."""

    pipeline: str
    predictions: list[Cropped]  # type: ignore[assignment]  # the base class does not list it, for /v1/<task>
