"""Draws predictions into their image: boxes with labels, coloured masks, skeletons, heat maps, bars of probabilities.

Called by `zooserve predict --annotate`, `zooserve add` and `http.v1.annotate`. Line widths and font sizes are
proportional to the image's size, and all text stays within the image.
"""

import colorsys
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from service.results import (
    Classification,
    CocoPose,
    Cropped,
    Detection,
    Instance,
    Mask,
    Point,
    Pose,
    Prediction,
    Result,
    RotatedBox,
    Segment,
)
from service.vision.decode import EncodedImage
from service.vision.fonts import Font, Name, drawable, font
from service.vision.formats import MAX_PIXELS
from service.vision.masks import decode
from service.vision.named import with_names, with_second

Colour = tuple[int, int, int]

# Images are enlarged until their longer side has at least this many pixels, so that text fits.
_MIN_SIDE = 480
# The smallest font size, in pixels. Text that does not fit at this size is cut or left out.
_MIN_FONT_SIZE = 9
_CLEAR = 0.5  # score from which on a keypoint is drawn
_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)


def draw(
    data: bytes,
    result: Result,
    *,
    skeleton: Sequence[tuple[int, int]] = (),
    max_pixels: int = MAX_PIXELS,
    enlarge: bool = True,
) -> Image.Image:
    """Draw the predictions for an image into it.

    Args:
        data: the image file.
        result: the predictions. Masks of every form are drawn; of segments without a mask only the names.
        skeleton: pairs of keypoints to connect, as indices; `zoo.card.Keypoints` has those of a model.
        max_pixels: larger images are refused.
        enlarge: whether to enlarge a small image by a whole factor, so that text fits.

    Returns:
        The upright image with the predictions, mode RGB.

    Raises:
        RequestError: `undecodable`, `not_an_image` or `too_large`, as for `EncodedImage`.
    """
    image = EncodedImage(data, max_pixels).image()
    factor = -(-_MIN_SIDE // max(image.size)) if enlarge else 1
    if factor > 1:
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    _paint(image, result.predictions, factor, skeleton)
    return image


def _paint(
    image: Image.Image, predictions: Sequence[Prediction], factor: int, skeleton: Sequence[tuple[int, int]]
) -> None:
    """Draw predictions into an image that was enlarged by `factor`, in place."""
    canvas = _Canvas(image, factor)
    canvas.segments([found for found in predictions if isinstance(found, Segment)])
    canvas.instances([found for found in predictions if isinstance(found, Instance)])
    for found in predictions:
        if isinstance(found, Cropped) and found.crop and found.second and found.second.task != "classify":
            left, top, right, bottom = (side * factor for side in found.crop)
            part = image.crop((left, top, right, bottom))
            _paint(part, found.second.predictions, factor, skeleton)
            image.paste(part, (left, top))
    canvas.boxes([with_second(found) for found in predictions if isinstance(found, Detection)])
    canvas.poses([with_names(found) for found in predictions if isinstance(found, Pose | CocoPose)], skeleton)
    canvas.rotated([found for found in predictions if isinstance(found, RotatedBox)])
    canvas.classes([found for found in predictions if isinstance(found, Classification)])


def colour_of(class_id: int) -> Colour:
    """Choose a bright colour (red, green, blue; 0 to 255) for a class id.

    The hues of consecutive ids differ by the golden ratio. Ids with similar hues (which differ by 8, 13 or 21) have
    another saturation or brightness.
    """
    hue, saturation, value = (
        (0.02 + class_id * 0.618034) % 1.0,
        (0.9, 0.55, 0.75)[class_id % 3],
        (1.0, 0.8)[class_id % 2],
    )
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


class _Tag(NamedTuple):
    """A text that fits into the image. `width` and `height` are those of the rectangle behind it, in pixels."""

    text: str
    font: Font
    width: int
    height: int


class _Canvas:
    """Draws into an image in place.

    Args:
        image: mode RGB.
        factor: by which the image was enlarged. Boxes and masks are in pixels of the image before that.
    """

    def __init__(self, image: Image.Image, factor: int) -> None:
        self.image = image
        self.factor = factor
        self.pen = ImageDraw.Draw(image)
        size = (image.width * image.height) ** 0.5
        self.line = max(2, round(size / 250))
        self.font_size = max(_MIN_FONT_SIZE, min(round(size / 32), image.height // 2))

    def boxes(self, objects: Sequence[Detection | Instance | Pose], colours: Sequence[Colour] | None = None) -> None:
        """Draw boxes and their labels, the best object on top. A label is above its box, or in it at the image's edge.

        Args:
            objects: the objects.
            colours: of each object; None for the colours of their classes.
        """
        names = []
        coloured = zip(objects, colours or [colour_of(found.class_id) for found in objects], strict=True)
        for found, colour in sorted(coloured, key=lambda pair: pair[0].score):
            x0, y0, x1, y1 = (value * self.factor for value in found.box)
            self.pen.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=colour, width=self.line)
            tag = self.tag(drawable(found.label, found.class_id), f"{found.score:.2f}")
            names.append((tag, colour, x0, y0 - tag.height if y0 >= tag.height else y0))
        for name in names:
            self.put(*name)

    def instances(self, instances: Sequence[Instance]) -> None:
        """Draw masks, the best object on top, then boxes and labels. Each object has a colour of its own."""
        colours = [colour_of(rank) for rank in range(len(instances))]
        for found, colour in reversed(list(zip(instances, colours, strict=True))):
            if found.mask is not None:
                self.mask(found.mask, colour)
        self.boxes(instances, colours)

    def poses(self, poses: Sequence[Pose], skeleton: Sequence[tuple[int, int]]) -> None:
        """Draw skeletons and keypoints that are clear, the best object on top, then boxes and labels."""
        colours = [colour_of(rank) for rank in range(len(poses))]
        for found, colour in reversed(list(zip(poses, colours, strict=True))):
            points = [self.scaled((x, y)) if score >= _CLEAR else None for x, y, score in found.keypoints.values()]
            for ends in ((points[start], points[end]) for start, end in skeleton):
                if ends[0] is not None and ends[1] is not None:
                    self.pen.line((*ends[0], *ends[1]), colour, self.line)
            for place in points:
                if place is not None:
                    self.pen.circle(place, self.line * 1.5, colour, _BLACK)
        self.boxes(poses, colours)

    def rotated(self, objects: Sequence[RotatedBox]) -> None:
        """Draw rotated boxes, the best object on top, each with a stronger upper side and its label at its top left."""
        names = []
        for found in reversed(objects):
            colour = colour_of(found.class_id)
            ends = [self.scaled(corner) for corner in found.corners]
            self.pen.line([*ends, ends[0], ends[1]], colour, self.line, joint="curve")
            self.pen.line([*ends[:2]], colour, 2 * self.line)
            tag = self.tag(drawable(found.label, found.class_id), f"{found.score:.2f}")
            names.append((tag, colour, *ends[0]))
        for name in names:
            self.put(*name)

    def scaled(self, point: Point) -> Point:
        """Take a point to the enlarged image."""
        return point[0] * self.factor, point[1] * self.factor

    def segments(self, segments: Sequence[Segment]) -> None:
        """Draw masks, each with its name where it is thickest. Names of segments without a mask are in the corner."""
        names = []
        for row, found in enumerate(segments):
            colour = colour_of(found.class_id)
            share = f"{found.area:.{0 if found.area >= 0.01 else 1}%}"
            tag = self.tag(drawable(found.label, found.class_id), share)
            x, y = 0.0, float(row * tag.height)
            if found.mask is not None:
                x, y = self.mask(found.mask, colour)
                x, y = x - tag.width / 2, y - tag.height / 2
            names.append((tag, colour, x, y))
        for name in names:  # after all masks, so that none covers a name
            self.put(*name)

    def decoded(self, mask: Mask) -> npt.NDArray[np.uint8]:
        """Decode a mask or a heat map, in pixels of the image before it was enlarged."""
        return decode(mask, self.image.width // self.factor, self.image.height // self.factor)

    def mask(self, mask: Mask, colour: Colour) -> tuple[int, int]:
        """Draw one mask. Returns the point (x, y) that is farthest from its outline, in pixels of `self.image`."""
        scaled = np.asarray(cv2.resize(self.decoded(mask), self.image.size, interpolation=cv2.INTER_NEAREST))
        self.image.paste(colour, mask=Image.fromarray(scaled // 2))
        # The mask ends at the image's edge, so that the point is not at the edge.
        inside = cv2.copyMakeBorder((scaled > 127).astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT)
        depth = cv2.distanceTransform(inside, cv2.DIST_L2, 3)[1:-1, 1:-1]
        self.image.paste(colour, mask=Image.fromarray((depth > 0) & (depth <= self.line)))
        x, y = cv2.minMaxLoc(depth)[3]
        return x, y

    def classes(self, classes: Sequence[Classification]) -> None:
        """Draw heat map and box of the best class, if it has them, and the probabilities of all classes."""
        for found in classes:
            if found.heatmap is not None:
                self.heat(self.decoded(found.heatmap))
        self.boxes([Detection(c.class_id, c.label, c.score, c.box) for c in classes if c.box is not None])
        self.bars(classes)

    def heat(self, heat: npt.NDArray[np.uint8]) -> None:
        """Draw a heat map, from blue to red. Higher values are more opaque."""
        scaled = np.asarray(cv2.resize(heat, self.image.size, interpolation=cv2.INTER_LINEAR))
        colours = cv2.cvtColor(cv2.applyColorMap(scaled, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
        self.image.paste(Image.fromarray(colours), mask=Image.fromarray((scaled * 0.7).astype(np.uint8)))

    def bars(self, classes: Sequence[Classification]) -> None:
        """Draw probabilities as bars in the lower left corner, the best first, up to half of the image's height."""
        row = round(self.font_size * 1.6)
        shown = classes[: self.image.height // 2 // row]
        width = min(self.image.width, self.font_size * 18)
        top = self.image.height - row * len(shown)
        self.shade((0, top, width, self.image.height), _BLACK, 0.55)
        for found in shown:
            self.shade((0, top, max(2, round(width * found.score)), top + row), colour_of(found.class_id), 0.75)
            share = f"{found.score:.0%}" if found.score >= 0.1 else f"{found.score:.1%}"
            gap = self.font_size // 2
            name, plain = drawable(found.label, found.class_id), font("", self.font_size)
            face = font(name.path, self.font_size)
            room = width - 3 * gap - round(plain.getlength(share))
            middle = top + row // 2
            outline = {"stroke_width": max(1, self.font_size // 12), "stroke_fill": _BLACK}
            self.pen.text((gap, middle), _cut(name.text, face, room), _WHITE, face, anchor="lm", **outline)
            self.pen.text((width - gap, middle), share, _WHITE, plain, anchor="rm", **outline)
            top += row

    def shade(self, box: tuple[int, int, int, int], colour: Colour, opacity: float) -> None:
        """Draw a rectangle of some opacity, 0 to 1."""
        x0, y0, x1, y1 = box
        self.image.paste(colour, box, Image.new("L", (x1 - x0, y1 - y0), round(opacity * 255)))

    def tag(self, name: Name, value: str) -> _Tag:
        """Choose a font size at which a name and its value fit into the image. Text that never fits is cut."""
        size, room, text = self.font_size, self.image.width, f"{name.text} {value}"
        length = font(name.path, size).getlength(text) + size
        if length > room:
            size = max(_MIN_FONT_SIZE, int(size * room / length))
        face = font(name.path, size)
        text = _cut(text, face, room - size)
        return _Tag(text, face, round(face.getlength(text)) + size, round(size * 1.5))

    def put(self, tag: _Tag, colour: Colour, x: float, y: float) -> None:
        """Draw a tag at (x, y), or the nearest position within the image. A tag higher than the image is left out."""
        if not tag.text or tag.height > self.image.height:
            return
        left = max(0, min(round(x), self.image.width - tag.width))
        top = max(0, min(round(y), self.image.height - tag.height))
        self.pen.rectangle((left, top, left + tag.width - 1, top + tag.height - 1), fill=colour)
        red, green, blue = colour
        ink = _BLACK if 0.299 * red + 0.587 * green + 0.114 * blue > 120 else _WHITE
        self.pen.text((left + tag.width / 2, top + tag.height / 2), tag.text, ink, tag.font, anchor="mm")


def _cut(text: str, face: Font, room: float) -> str:
    """Cut a text to `room` pixels, with an ellipsis at the end."""
    if face.getlength(text) <= room:
        return text
    while text and face.getlength(text + "…") > room:
        text = text[:-1]
    return text and text.rstrip() + "…"
