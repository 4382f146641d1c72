"""Drawing of predictions: what is drawn, where, and that it stays within the image."""

import cv2
import numpy as np
import pytest
from PIL import Image

from service.results import Classification, Cropped, Detection, ImageSize, Instance, Png, Result, Segment
from service.vision import masks
from service.vision.activation import encode_heat
from service.vision.draw import colour_of, draw
from service.vision.fonts import drawable
from zoo.card import Recipe
from zoo.recipe import placement

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:pycocotools")

CLASSES = [Classification(285, "Egyptian cat", 0.71), Classification(281, "a long name " * 20, 0.2)]
SIZES = [(1, 1), (28, 28), (1, 3000), (3000, 1), (3, 600), (640, 427), (2400, 1800)]


def result(size: tuple[int, int], predictions: list) -> Result:
    return Result("a_model", "1", "a task", ImageSize(*size), predictions)


def segment(size: tuple[int, int], class_id: int, form: masks.Form) -> Segment:
    mask = np.zeros((100, 100), np.uint8)
    cv2.circle(mask, (50, 50), 30, 255, -1)
    return Segment(class_id, "a thing", 0.28, masks.encode(mask, placement(Recipe(100, 100, "stretch"), *size), form))


def heat(size: tuple[int, int]) -> Png:
    ramp = np.tile(np.linspace(0, 255, 100).astype(np.uint8), (100, 1))
    return encode_heat(ramp, placement(Recipe(100, 100, "stretch"), *size))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["classify", "localised", "detect", "segment", "instances", "nothing"])
def test_every_size_of_image_can_be_drawn_on(encoded, size, kind):
    """Small images are enlarged by a whole factor. Text that does not fit is no error."""
    predictions = {
        "classify": CLASSES,
        "localised": [Classification(285, "Egyptian cat", 0.71, (0.0, 0.0, *map(float, size)), heat(size)), *CLASSES],
        "detect": [Detection(0, "person", 0.9, (0.0, 0.0, float(size[0]), float(size[1])))],
        "segment": [segment(size, 3, "rle"), Segment(4, "a thing without a mask", 0.001)],
        "instances": [
            Instance(0, "person", 0.9, (0.0, 0.0, *map(float, size)), 0.28, segment(size, 3, "rle").mask),
            Instance(0, "person", 0.8, (0.0, 0.0, *map(float, size)), 0.28),
        ],
        "nothing": [],
    }[kind]
    image = draw(encoded(Image.new("RGB", size, "navy"), "PNG"), result(size, predictions))
    factor = image.width // size[0]
    assert image.mode == "RGB"
    assert image.size == (size[0] * factor, size[1] * factor)
    assert max(image.size) >= 480
    assert factor == 1 or max(size) * (factor - 1) < 480


@pytest.mark.parametrize("label", ["", "two\nlines", "杯子", "طبق", "จาน", "🍽️", "x" * 100_000, "\x00\ud83c"])
@pytest.mark.parametrize("kind", ["classify", "detect", "segment", "instances"])
def test_every_name_can_be_drawn(encoded, label, kind):
    """A name whose letters no font has is drawn like the text that replaces it."""
    size = (640, 480)
    mask = segment(size, 3, "rle").mask

    def drawn(name: str) -> np.ndarray:
        box = (100.0, 200.0, 400.0, 400.0)
        predictions = {
            "classify": [Classification(3, name, 0.71, box)],
            "detect": [Detection(3, name, 0.9, box)],
            "segment": [Segment(3, name, 0.28, mask)],
            "instances": [Instance(3, name, 0.9, box, 0.28, mask)],
        }[kind]
        return np.asarray(draw(encoded(Image.new("RGB", size, "navy"), "PNG"), result(size, predictions)))

    image = drawn(label)
    assert np.array_equal(image, drawn(drawable(label, 3).text))
    assert not np.array_equal(image, drawn("another"))


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_box_lies_on_the_upright_image(encoded, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    size = (600, 800) if orientation == 6 else (800, 600)
    data = encoded(Image.new("RGB", (800, 600), "black"), "PNG", exif=exif)
    image = np.asarray(draw(data, result(size, [Detection(2, "car", 0.5, (100.0, 200.0, 400.0, 500.0))])))
    assert image.shape == (size[1], size[0], 3)
    for x, y in ((100, 350), (399, 350), (250, 499), (250, 200)):
        assert tuple(image[y, x]) == colour_of(2)
    assert (image[260:440, 160:340] == 0).all()
    assert (image[520:] == 0).all()
    rows, columns = np.nonzero(image.any(axis=2))
    assert (columns.min(), rows.max()) == (100, 499)
    assert rows.min() < 200  # its label stands above it


@pytest.mark.parametrize("box", [(0.0, 0.0, 50.0, 40.0), (780.0, 0.0, 800.0, 20.0), (790.0, 590.0, 800.0, 600.0)])
def test_labels_stay_within_the_image(encoded, box):
    """The rectangle behind a label is as wide at every edge of the image as it is in the middle."""
    data = encoded(Image.new("RGB", (800, 600), "black"), "PNG")

    def plate(at) -> int:
        image = np.asarray(draw(data, result((800, 600), [Detection(2, "elephant", 0.5, at)])))
        return int((image.any(axis=2)).sum(axis=1).max())

    assert plate(box) == plate((300.0, 300.0, 310.0, 310.0))


def test_the_best_label_is_on_top(encoded):
    data = encoded(Image.new("RGB", (800, 600), "black"), "PNG")
    box = (100.0, 200.0, 400.0, 500.0)
    one = [Detection(2, "car", 0.9, box), Detection(7, "bus", 0.4, box)]
    images = [np.asarray(draw(data, result((800, 600), found))) for found in (one, one[::-1])]
    assert np.array_equal(*images)
    assert tuple(images[0][350, 100]) == colour_of(2)


@pytest.mark.parametrize("form", ["rle", "png", "polygon"])
def test_masks_are_tinted(encoded, form):
    data = encoded(Image.new("RGB", (800, 600), "black"), "PNG")
    image = np.asarray(draw(data, result((800, 600), [segment((800, 600), 5, form)]))).astype(int)
    assert (image[:100] == 0).all()
    assert (image[:, :100] == 0).all()
    assert np.abs(image[200, 400] - np.array(colour_of(5)) // 2).max() <= 1
    outline = np.nonzero(image[300].any(axis=1))[0][0]
    assert tuple(image[300, outline]) == colour_of(5)


def test_instances_of_one_class_differ_in_colour(encoded):
    """Each has its mask, its box and its label; where two overlap, the better is on top."""
    data = encoded(Image.new("RGB", (800, 600), "black"), "PNG")
    mask = segment((800, 600), 5, "rle").mask  # an ellipse around (400, 300) that reaches to (640, 300), (400, 480)
    found = [
        Instance(5, "bus", 0.9, (160.0, 120.0, 640.0, 480.0), 0.28, mask),
        Instance(5, "bus", 0.8, (100.0, 110.0, 700.0, 500.0), 0.28),
    ]
    image = np.asarray(draw(data, result((800, 600), found))).astype(int)
    assert np.abs(image[300, 400] - np.array(colour_of(0)) // 2).max() <= 1
    assert tuple(image[300, 160]) == tuple(image[475, 160]) == colour_of(0)
    assert tuple(image[300, 100]) == tuple(image[499, 400]) == colour_of(1)
    assert (image[490, 120] == 0).all()


def test_bars_are_as_long_as_the_probabilities(encoded):
    data = encoded(Image.new("RGB", (800, 600), "white"), "PNG")
    full, half = (np.asarray(draw(data, result((800, 600), [Classification(9, "", p)]))) for p in (1.0, 0.5))
    row = 599  # below the letters

    def length(image) -> int:
        return int((image[row] != image[row, -1]).any(axis=1).sum())

    tinted = np.nonzero(np.abs(np.diff(half[row].astype(int), axis=0)).sum(axis=1) > 60)[0]
    assert length(full) == length(half)  # the panel
    assert tinted[0] + 1 == pytest.approx(length(full) / 2, abs=1)


@pytest.mark.parametrize("apart", [1, 2, 3, 5, 8, 13, 21])
def test_colours_of_different_classes_differ(apart):
    colours = np.array([colour_of(i) for i in range(81)])
    assert np.abs(colours[apart:] - colours[:-apart]).sum(axis=1).min() >= 45


def test_box_and_heat_map_of_the_best_class_are_drawn(encoded):
    size = (800, 600)
    best = Classification(2, "car", 0.5, (100.0, 200.0, 400.0, 500.0), heat(size))
    image = np.asarray(draw(encoded(Image.new("RGB", size, "grey"), "PNG"), result(size, [best])))
    for x, y in ((100, 350), (399, 350), (250, 499)):
        assert tuple(image[y, x]) == colour_of(2)
    cold, hot = image[50, 2].astype(int), image[50, 797].astype(int)
    assert np.abs(cold - 128).max() < 10
    assert hot[0] > hot[2] + 50


def test_what_a_second_model_found_lies_in_its_crop(encoded):
    data = encoded(Image.new("RGB", (800, 600), "black"), "PNG")
    box, crop = (100.0, 100.0, 500.0, 500.0), (90, 90, 510, 510)
    inner = Result("m", "1", "detect", ImageSize(420, 420), [Detection(7, "door", 0.9, (100.0, 200.0, 300.0, 400.0))])
    image = np.asarray(draw(data, result((800, 600), [Cropped(2, "car", 0.5, box, crop, inner)])))
    for x, y in ((190, 400), (389, 400), (300, 489)):
        assert tuple(image[y, x]) == colour_of(7)
    assert tuple(image[300, 100]) == colour_of(2)


def test_the_class_of_a_crop_is_named_beside_its_object(encoded):
    data = encoded(Image.new("RGB", (800, 600), "black"), "PNG")
    box, crop = (100.0, 100.0, 500.0, 500.0), (90, 90, 510, 510)
    inner = Result("m", "1", "classify", ImageSize(420, 420), [Classification(7, "taxi", 0.9)])
    named, plain = (
        np.asarray(draw(data, result((800, 600), [found])))
        for found in (Cropped(2, "car", 0.5, box, crop, inner), Detection(2, "car: taxi", 0.9, box))
    )
    assert np.array_equal(named, plain)
