"""From the objects of tiles to those of the image: places, classes, scores, and masks of every form."""

from types import SimpleNamespace

import numpy as np
import pytest

from service.results import Detection, Instance
from service.tasks import options_of
from service.tasks.grid import tiling_of
from service.tasks.tiles import merge_tiles, options_of_a_tile
from service.vision.masks import decode, encode_rle
from zoo.card import Nms

SIZE = (200, 100)
CUTS = [(0, 0, 120, 100), (80, 0, 200, 100), (0, 0, *SIZE)]


def card(*, class_agnostic: bool = False) -> SimpleNamespace:
    return SimpleNamespace(nms_options=Nms(0.25, 0.45, 100, class_agnostic))


def merged(task: str, found, model=None, **given):
    options = options_of(task, {"tiles": "auto", **given})
    return merge_tiles(CUTS, found, SIZE, model or card(), options, tiling_of(options))


def test_boxes_of_tiles_are_in_pixels_of_the_image():
    cup, rest = Detection(41, "cup", 0.7, (10.25, 5.5, 30, 40)), Detection(1, "bicycle", 0.9, (20, 20, 60, 60))
    found = merged("detect", [[cup], [cup], [rest]])
    assert found == [
        rest,
        Detection(41, "cup", 0.7, (10.25, 5.5, 30, 40)),
        Detection(41, "cup", 0.7, (90.25, 5.5, 110, 40)),
    ]
    assert merged("detect", [[], [], []]) == []


@pytest.mark.parametrize(("class_agnostic", "count"), [(False, 2), (True, 1)])
def test_classes_are_merged_as_the_card_says(class_agnostic, count):
    dog, cat = Detection(16, "dog", 0.7, (90, 10, 110, 30)), Detection(15, "cat", 0.9, (10, 10, 30, 30))
    assert len(merged("detect", [[dog], [cat], []], card(class_agnostic=class_agnostic))) == count


def instance(cut: tuple[int, ...], box: tuple[int, ...], score: float = 0.9) -> Instance:
    """An object that fills its box, xyxy in pixels of the image, as it is seen in a cut."""
    mask = np.zeros((cut[3] - cut[1], cut[2] - cut[0]), np.uint8)
    x0, y0, x1, y1 = (side - cut[i % 2] for i, side in enumerate(box))
    mask[y0:y1, x0:x1] = 255
    return Instance(0, "cup", score, (x0, y0, x1, y1), 0.0, encode_rle(mask))


@pytest.mark.parametrize("form", ["rle", "png", "polygon", "none"])
@pytest.mark.parametrize(
    ("objects", "box"),
    [
        ([(0, (60, 20, 120, 60)), (1, (80, 20, 140, 60))], (60, 20, 140, 60)),  # two pieces
        ([(1, (90, 20, 140, 60))], (90, 20, 140, 60)),
        ([(2, (10, 20, 190, 60)), (0, (10, 20, 120, 60))], (10, 20, 190, 60)),  # a piece of what was seen whole
        ([(2, (10, 20, 190, 60)), (0, (10, 10, 120, 60))], (10, 20, 190, 60)),  # which reaches beyond it
    ],
)
def test_masks_are_united_in_pixels_of_the_image(form, objects, box):
    found = [[instance(CUTS[cut], each) for part, each in objects if part == cut] for cut in range(3)]
    (one,) = merged("segment", found, mask=form)
    expected = np.zeros((SIZE[1], SIZE[0]), np.uint8)
    expected[box[1] : box[3], box[0] : box[2]] = 255
    assert one.box == box
    assert one.area == pytest.approx(np.count_nonzero(expected) / expected.size, abs=1e-6)
    if form == "none":
        assert one.mask is None
    else:
        assert np.array_equal(decode(one.mask, *SIZE) > 127, expected > 127)


def test_masks_take_the_memory_of_their_tiles_and_not_of_the_image():
    side = 100_000  # 10 GB as a mask
    cuts = [(0, 0, 120, 100), (80, 0, 200, 100)]
    found = [[instance(cuts[0], (60, 20, 120, 60))], [instance(cuts[1], (80, 20, 140, 60))]]
    options = options_of("segment", {"tiles": "120x100", "mask": "polygon"})
    (one,) = merge_tiles(cuts, found, (side, side), card(), options, tiling_of(options))
    (polygon,) = one.mask.polygons
    assert set(zip(polygon[::2], polygon[1::2], strict=True)) == {(60, 20), (140, 20), (140, 60), (60, 60)}


def test_tiles_are_asked_for_masks_that_can_be_united():
    asked = options_of_a_tile(options_of("segment", {"tiles": "auto", "mask": "png", "score_threshold": 0.4}))
    assert (asked.mask, asked.tiles, asked.score_threshold) == ("rle", None, 0.4)
    assert options_of_a_tile(options_of("detect", {"tiles": "auto"})) == options_of("detect", {})
