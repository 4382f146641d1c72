"""mIoU against values computed by hand, and of masks that are the model's own answers."""

import numpy as np
import pytest
from PIL import Image

from evaluation.dataset import DataError
from evaluation.run import judge_all
from evaluation.voc import MeanIoU, confusion, layout, read_voc
from service.vision.masks import decode


def test_iou_equals_values_computed_by_hand():
    truth = np.array([[0, 0, 1, 1], [0, 255, 1, 2]], np.uint8)
    answer = np.array([[0, 1, 1, 1], [0, 2, 0, 0]], np.uint8)
    counts = confusion(truth, answer, 4)
    assert counts.sum() == 7  # 255 means that no class is known
    judge = MeanIoU(["background", "a", "b", "c"])
    judge.add(counts)
    scores = judge.scores()
    # background: 2 of 3 + 2; a: 2 of 3 + 1; b: 0 of 1; c is nowhere
    assert {one.label: one.value for one in scores.per_class} == {
        "background": pytest.approx(2 / 5),
        "a": pytest.approx(2 / 4),
        "b": 0.0,
    }
    assert [one.value for one in scores.measures] == pytest.approx([0.3, 4 / 7, (2 / 3 + 2 / 3 + 0) / 3])


@pytest.fixture
def masks(street, loaded):
    """Masks of the model's own answers, as VOC's palette or in grey."""

    def make(model: str, mode: str = "P"):
        loaded_model, predictor, _ = loaded(model)
        folder = street.parent / "masks"
        folder.mkdir()
        for path in street.iterdir():
            result = predictor.predict(path.read_bytes(), loaded_model, {"mask": "rle"})
            ids = np.zeros((result.image.height, result.image.width), np.uint8)
            for found in result.predictions:
                ids[decode(found.mask, *ids.shape[::-1]) > 127] = found.class_id if mode == "P" else int(mode[1:])
            image = Image.fromarray(ids)
            if mode == "P":
                ids[:3] = 255
                image = Image.fromarray(ids)
                image.putpalette([i // 3 for i in range(768)])
            image.save(folder / f"{path.stem}.png")
        return folder

    return make


@pytest.mark.parametrize(
    ("model", "mode"), [("deeplabv3_mobilenet_v2", "P"), ("u2netp", "L1"), ("u2netp", "L15"), ("u2netp", "L255")]
)
def test_the_models_own_masks_have_an_iou_of_one(street, loaded, masks, model, mode):
    """Of a salient object also in grey, whatever its value is."""
    loaded_model, predictor, _ = loaded(model)
    dataset = read_voc(street, masks(model, mode), loaded_model.card)
    scores, problems = judge_all(predictor, loaded_model, dataset.examples, dataset.judge, threads=2)
    assert not problems
    assert [one.value for one in scores.measures] == [1.0, 1.0, 1.0]
    assert len(scores.per_class) >= 2


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        (None, ["a", "b", "c"]),
        ("b\r\nnobody\r\n", ["b"]),
        ("\ufeffa\nc\n\n", ["a", "c"]),
        (b"\xff\xfe", "cannot be read"),
        ("a.jpg\n", r"val\.txt names no mask in .*: expected names without their suffix"),
    ],
    ids=["no list", "CRLF", "BOM", "not text", "suffixes"],
)
def test_vocs_list_of_validation_images_chooses(loaded, tmp_path, listed, expected):
    for name in "abc":
        for folder in ("JPEGImages", "SegmentationClass"):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.new("L", (60, 40)).save(tmp_path / folder / f"{name}.png")
    if listed is not None:
        file = tmp_path / "ImageSets" / "Segmentation" / "val.txt"
        file.parent.mkdir(parents=True)
        file.write_bytes(listed if isinstance(listed, bytes) else listed.encode())
    card = loaded("deeplabv3_mobilenet_v2")[0].card
    if isinstance(expected, str):
        with pytest.raises(DataError, match=expected):
            read_voc(*layout(tmp_path), card)
        return
    dataset = read_voc(*layout(tmp_path), card)
    assert [example.truth.stem for example in dataset.examples] == expected
    assert any("val.txt" in note for note in dataset.notes) == (listed is not None)


def test_what_has_no_partner_is_noted(street, loaded, tmp_path):
    (tmp_path / "masks").mkdir()
    for name in ("coffee", "nobody"):
        Image.new("L", (600, 400)).save(tmp_path / "masks" / f"{name}.png")
    dataset = read_voc(street, tmp_path / "masks", loaded("deeplabv3_mobilenet_v2").model.card)
    assert [one.name for one in dataset.examples] == ["coffee.png"]
    assert dataset.notes == (
        "1 masks; 255 is ignored",
        "masks left out, since no image has their name: 1 (nobody.png)",
        "images left out, since no mask has their name: 1",
    )


def test_images_with_the_masks_beside_them_are_refused(street, loaded):
    """Else the mask of the same name would be taken for the image."""
    for path in sorted(street.iterdir()):
        Image.new("L", (600, 400)).save(path.with_suffix(".bmp"))
    with pytest.raises(DataError, match=r"has chelsea\.bmp and chelsea\.png: .* Put masks into a folder of their own"):
        read_voc(street, street, loaded("deeplabv3_mobilenet_v2").model.card)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (Image.new("L", (600, 400), 21), "has the class id 21, and the model has 21 labels"),
        (Image.new("L", (60, 40)), "has 60 x 40 pixels, its image 600 x 400"),
        (Image.new("RGB", (600, 400)), "has the mode RGB; expected class ids"),
    ],
)
def test_masks_that_do_not_fit_are_refused(street, loaded, tmp_path, mask, message):
    loaded_model, predictor, _ = loaded("deeplabv3_mobilenet_v2")
    (tmp_path / "masks").mkdir()
    mask.save(tmp_path / "masks" / "coffee.png")
    dataset = read_voc(street, tmp_path / "masks", loaded_model.card)
    with pytest.raises(DataError, match=rf"none of 1 images could be judged; coffee\.png: .*{message}"):
        judge_all(predictor, loaded_model, dataset.examples, dataset.judge, threads=1)
