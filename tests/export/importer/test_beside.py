"""`config.json` and `preprocessor_config.json` beside a file: the recipe and the labels come from there."""

import json

import numpy as np
import pytest
import timm
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform, resolve_data_config

from export.heads import Pixels
from export.importer.adding import propose
from export.importer.beside import read_beside
from export.importer.options import ImportOptions
from zoo import catalog
from zoo.card import Recipe
from zoo.errors import CardError, ExportError
from zoo.labels import read_labels
from zoo.model_card import Normalise
from zoo.recipe import apply_exact

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
BYTES = Normalise((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
LABELS = {"id2label": {"0": "cup", "1": "plate", "2": "spoon", "3": "fork"}}
SIDE = {"height": 32, "width": 32}


def write(folder, **files: dict) -> None:
    for name, said in files.items():
        (folder / f"{name}.json").write_text(json.dumps(said))


def prepared(folder, photo: Image.Image) -> np.ndarray:
    """A photo as the files of a folder say, [3, H, W]."""
    beside = read_beside(folder / "net.onnx")
    how = {"short_side": beside.short_side, "odd_padding": beside.odd_padding, "interpolation": beside.interpolation}
    pixels = apply_exact(Recipe(*beside.size, beside.resize, **how), photo)
    return ((pixels - np.array(beside.normalise.mean)) / np.array(beside.normalise.std)).transpose(2, 0, 1)


@pytest.fixture
def draft(make_onnx, tmp_path):
    """Draft the card of a classifier of four classes."""

    def make(shape=("N", 3, 32, 32), **stated):
        (tmp_path / "scratch").mkdir(exist_ok=True)
        options = ImportOptions("net", licence="MIT", **stated)
        path = make_onnx(shape)
        return propose(path, options, tmp_path / "scratch", family=None, architecture=None, cfg=None)

    return make


# As the processors of ViT, DeiT, ConvNeXt, MobileNetV2 and EfficientNet in transformers write them.
@pytest.mark.parametrize(
    ("said", "recipe", "normalise"),
    [
        ({"size": SIDE, "resample": 2, "do_normalize": True, **HALF}, Recipe(32, 32, "stretch"), (127.5, 127.5)),
        ({"size": 32, "do_normalize": True, **HALF}, Recipe(32, 32, "stretch"), (127.5, 127.5)),
        (
            {"size": {"height": 40, "width": 40}, "crop_size": SIDE, "do_center_crop": True, "resample": 3, **IMAGENET},
            Recipe(32, 32, "crop", short_side=37),  # stretched, then cut: no recipe says that, so the usual is assumed
            BYTES,
        ),
        (
            {"size": SIDE, "do_flip_channel_order": True, "do_normalize": True, **IMAGENET},
            Recipe(32, 32, "stretch"),
            Normalise(BYTES.mean, BYTES.std, "bgr"),
        ),
        ({"size": 32, "crop_pct": 0.875, "resample": 3, **IMAGENET},
         Recipe(32, 32, "crop", short_side=36, odd_padding="after", interpolation="bicubic"), BYTES),
        ({"size": {"shortest_edge": 32}, "crop_pct": 0.875, "resample": 3, **IMAGENET},
         Recipe(32, 32, "crop", short_side=36, odd_padding="after", interpolation="bicubic"), BYTES),
        ({"size": SIDE, "resample": 1, **HALF}, Recipe(32, 32, "stretch", interpolation="lanczos"), (127.5, 127.5)),
        ({"size": {"shortest_edge": 40}, "crop_size": SIDE, "do_center_crop": True, "resample": 2, **HALF},
         Recipe(32, 32, "crop", short_side=40, odd_padding="after"), (127.5, 127.5)),
        ({"size": SIDE, "do_rescale": True, "rescale_factor": 1 / 127.5, "do_normalize": False},
         Recipe(32, 32, "stretch"), (0.0, 127.5)),
        ({"size": SIDE, "do_rescale": False, "do_normalize": True, "image_mean": [123.0] * 3, "image_std": [58.0] * 3},
         Recipe(32, 32, "stretch"), (123.0, 58.0)),
    ],
)  # fmt: skip
def test_the_processor_gives_the_recipe(draft, tmp_path, said, recipe, normalise):
    write(tmp_path, preprocessor_config=said, config=LABELS)
    made = draft()
    expected = recipe
    if said.get("resample") == 3 and recipe.interpolation == "bilinear":
        expected = Recipe(32, 32, "crop", short_side=37, interpolation="bicubic")
    assert made.card.recipe == expected
    wanted = normalise if isinstance(normalise, Normalise) else Normalise((normalise[0],) * 3, (normalise[1],) * 3)
    assert made.candidates.popitem()[1] == wanted
    assert made.labels == ("cup", "plate", "spoon", "fork")
    known = {finding.what: finding.known_from for finding in made.findings}
    assert known["pixels"] == known["labels"] == "preprocessor_config.json and config.json"


@pytest.mark.parametrize(
    ("processor", "said"),
    [
        ("Bit", {}),
        ("CLIP", {"size": 240, "crop_size": 224}),
        ("ConvNext", {"size": {"shortest_edge": 224}}),
        ("ConvNext", {"size": 224}),
        ("ConvNext", {"size": 384}),
        ("EfficientNet", {"size": SIDE}),
        ("EfficientNet", {"size": SIDE, "rescale_offset": True, "rescale_factor": 1 / 127.5, "include_top": False}),
        ("EfficientNet", {"size": SIDE, "do_normalize": False}),
        ("Flava", {}),
        ("Levit", {}),
        ("MobileNetV2", {}),
        ("MobileNetV2", {"size": {"shortest_edge": 255}}),
        ("PoolFormer", {}),
        ("ViT", {"size": 48}),
        ("ViT", {"image_mean": 0.5, "image_std": 0.25}),
    ],
)
@pytest.mark.parametrize("size", [(601, 397), (397, 602)])
def test_pixels_are_those_of_the_processor_in_transformers(tmp_path, processor, said, size):
    made = getattr(transformers, f"{processor}ImageProcessorPil")(**said)
    write(tmp_path, preprocessor_config=made.to_dict() | said)
    photo = Image.open(catalog.sample("coffee")).convert("RGB").resize(size)
    expected = made(photo, return_tensors="np")["pixel_values"][0]
    assert np.allclose(prepared(tmp_path, photo), expected, atol=0.01)


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"crop_pct": 0.95, "interpolation": "bilinear", "mean": [0.5] * 3, "std": [0.25] * 3},
        {"crop_pct": 1.0, "crop_mode": "squash"},
    ],
)
@pytest.mark.parametrize("size", [(601, 397), (397, 602)])
def test_pixels_are_those_of_timm_s_transform(tmp_path, said, size):
    made = {"input_size": [3, 224, 224]} | said
    write(tmp_path, config={"architecture": "resnet18", "pretrained_cfg": made})
    photo = Image.open(catalog.sample("coffee")).convert("RGB").resize(size)
    expected = create_transform(**resolve_data_config(pretrained_cfg=made))(photo).numpy()
    assert np.allclose(prepared(tmp_path, photo), expected, atol=0.01)


@pytest.mark.parametrize(
    ("said", "size", "short_side"),
    [
        ({"feature_extractor_type": "MobileViTFeatureExtractor", "size": 288, "crop_size": 256, "do_center_crop": True},
         256, 288),
        ({"feature_extractor_type": "PoolFormerFeatureExtractor", "size": 224, "crop_pct": 0.9}, 224, 248),
        ({"feature_extractor_type": "LevitFeatureExtractor", "size": 224, "do_center_crop": True}, 224, 256),
        ({"feature_extractor_type": "ConvNextFeatureExtractor", "size": 224, "crop_pct": 0.875}, 224, 256),
    ],
)  # fmt: skip
def test_crops_as_transformers_wrote_them_at_first(tmp_path, said, size, short_side):
    write(tmp_path, preprocessor_config={"do_resize": True, **said, **HALF})
    beside = read_beside(tmp_path / "net.onnx")
    assert (beside.size, beside.resize, beside.short_side) == ((size, size), "crop", short_side)


@pytest.mark.parametrize(
    ("said", "size", "resize"),
    [
        ({"size": 256, "crop_size": 224, "do_center_crop": True, "feature_extractor_type": "DeiTFeatureExtractor"},
         (224, 224), None),  # stretched, then cut
        ({"size": SIDE, "keep_aspect_ratio": True}, (32, 32), None),
        ({"size": {"shortest_edge": 384}, "crop_pct": None, "image_processor_type": "ConvNextImageProcessor"},
         (384, 384), "stretch"),
        ({"size": 48, "do_resize": False}, None, None),
    ],
)  # fmt: skip
def test_what_no_recipe_says_stays_open(tmp_path, said, size, resize):
    write(tmp_path, preprocessor_config=said | HALF)
    beside = read_beside(tmp_path / "net.onnx")
    assert (beside.size, beside.resize) == (size, resize)


def test_the_folder_onnx_of_a_repository_has_its_files_one_above(tmp_path):
    write(tmp_path, preprocessor_config={"size": SIDE, **HALF}, config=LABELS | {"pretrained_cfg": None})
    (tmp_path / "onnx").mkdir()
    assert read_beside(tmp_path / "onnx" / "model.onnx") == read_beside(tmp_path / "model.onnx")
    assert read_beside(tmp_path / "else" / "model.onnx").files == ()


def test_a_free_size_is_taken_from_there_and_what_is_stated_comes_first(draft, tmp_path):
    write(tmp_path, preprocessor_config={"size": SIDE, **HALF}, config=LABELS)
    assert draft(("N", 3, "h", "w")).card.recipe == Recipe(32, 32, "stretch")
    made = draft(("N", 3, "h", "w"), size=(64, 48), resize="letterbox", mean=(1.0,) * 3, std=(2.0,) * 3)
    assert (made.card.recipe, made.card.normalise) == (
        Recipe(64, 48, "letterbox"),
        Normalise((1.0,) * 3, (2.0,) * 3),
    )


@pytest.mark.parametrize("said", [{"id2label": {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2", "3": "LABEL_3"}}, {}])
def test_placeholders_are_no_labels(draft, tmp_path, said):
    write(tmp_path, config=said | {"model_type": "vit"})
    with pytest.raises(ExportError, match="need names: --labels"):
        draft()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"size": 32, "resample": 4}', "images are resampled by 4, and recipes know lanczos, bilinear, bicubic"),
        ('{"size": {"height": -3, "width": 32}}', "a side of -3 pixels"),
        ('{"size": 32, "do_normalize": true}', "image_mean"),
        ('{"size": ', "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
    ],
)
def test_what_cannot_be_understood_is_an_error(tmp_path, text, message):
    (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(CardError, match=message):
        read_beside(tmp_path / "net.onnx")


def test_a_byte_order_mark_is_skipped(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LABELS), encoding="utf-8-sig")
    assert read_beside(tmp_path / "net.onnx").labels == ("cup", "plate", "spoon", "fork")


def test_nothing_beside_says_nothing(tmp_path):
    assert read_beside(tmp_path / "net.onnx").files == ()


@pytest.mark.parametrize("name", ["test_resnet.r160_in1k", "test_vit.r160_in1k"])
def test_a_checkpoint_of_timm_s_with_its_config(tmp_path, name):
    """As timm's `save_for_hf` writes it; the pixels are those of timm's own evaluation."""
    from timm.models import save_for_hf

    torch.manual_seed(0)
    config = timm.get_pretrained_cfg(name)
    network = timm.create_model(config.architecture, pretrained=False).eval()
    network.pretrained_cfg = config.to_dict()
    save_for_hf(network, tmp_path, safe_serialization=True)
    file = tmp_path / "model.safetensors"
    save_file(network.state_dict(), file)
    made = propose(file, ImportOptions("net", licence="Apache-2.0"), tmp_path, family=None, architecture=None, cfg=None)
    assert (made.card.family, made.card.options) == ("timm", {"architecture": config.architecture})
    assert made.labels == read_labels("imagenet1k")
    image = Image.open(catalog.sample("chelsea")).convert("RGB")
    expected = timm.data.create_transform(**timm.data.resolve_data_config({}, pretrained_cfg=config.to_dict()))(image)
    got = Pixels(made.card.normalise)(torch.from_numpy(np.array(apply_exact(made.card.recipe, image))[None]))[0]
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)


def test_checkpoints_of_transformers_are_refused_with_the_way_out(tmp_path):
    write(tmp_path, config={"architectures": ["ViTForImageClassification"], **LABELS})
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ExportError, match=r"is a ViTForImageClassification of transformers, .*optimum-cli export onnx"):
        propose(
            tmp_path / "model.safetensors",
            ImportOptions("net", licence="MIT"),
            tmp_path,
            family=None,
            architecture=None,
            cfg=None,
        )
