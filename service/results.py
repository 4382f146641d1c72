"""What a request is answered with: typed, transport-free, and by msgspec the JSON of the v1 contract.

Boxes are xyxy in pixels of the original image (EXIF orientation applied), clipped to it.
"""

from msgspec import Struct

Box = tuple[float, float, float, float]


class ImageSize(Struct, frozen=True):
    """Size of the original image in pixels, after its EXIF orientation was applied."""

    width: int
    height: int


class RunLength(Struct, frozen=True):
    """A binary mask as COCO's compressed run lengths, for `pycocotools.mask.decode`; `size` is [height, width]."""

    size: tuple[int, int]
    counts: str


class Png(Struct, frozen=True):
    """A base64 greyscale PNG of the original image's size: a mask (0 or 255), a salient object's opacity, heat."""

    png: str


class Polygons(Struct, frozen=True):
    """A mask's outlines, each [x0, y0, x1, y1, ...] in pixels of the original image, along the pixels' outer edges.

    Within a pixel; the smallest parts may be left out. A hole is joined to its outline by a line there and back, which
    pycocotools and canvases fill rightly.
    """

    polygons: list[list[float]]


Mask = RunLength | Png | Polygons


class Classification(Struct, frozen=True, omit_defaults=True):
    """One class of an image and its probability; of the best class, on request, where in the image it is.

    `heatmap` is a greyscale PNG of the image's size, brightest where the image contributed most to the class.
    """

    class_id: int
    label: str
    score: float
    box: Box | None = None
    heatmap: Png | None = None


class Detection(Struct, frozen=True):
    """One object: its class, the score of it, and its box."""

    class_id: int
    label: str
    score: float
    box: Box


class Segment(Struct, frozen=True, omit_defaults=True):
    """One class present in an image: the share of the image that it covers, and where."""

    class_id: int
    label: str
    area: float
    mask: Mask | None = None


class Instance(Struct, frozen=True, omit_defaults=True):
    """One object with its outline: the share of the image that its mask covers, and the mask, which lies in its box.

    The box is rounded to whole pixels, at least one, where the mask is cut.
    """

    class_id: int
    label: str
    score: float
    box: Box
    area: float
    mask: Mask | None = None


Prediction = Classification | Detection | Segment | Instance


class Result(Struct, frozen=True):
    """The answer for one image."""

    model: str
    version: str
    task: str
    image: ImageSize
    predictions: list[Classification] | list[Detection] | list[Segment] | list[Instance]
