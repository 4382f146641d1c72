"""A model as a function: of the store, of a server, exported first; what people pass and what goes wrong."""

import io
import shutil

import numpy as np
import pytest
from PIL import Image

from zoo import catalog
from zooserve import load

COFFEE = "coffee"


@pytest.fixture(scope="module")
def here(models):
    return load("yolov4_tiny", models=models)


@pytest.fixture(scope="module")
def there(server):
    return load(server.url, "yolov4_tiny")


@pytest.fixture
def path():
    return catalog.sample(COFFEE)


def as_bytes(path):
    return path.read_bytes()


def as_text(path):
    return str(path)


def as_array(path):
    return np.asarray(Image.open(path).convert("RGB"))


def as_pil(path):
    return Image.open(path)


@pytest.mark.parametrize("form", [lambda path: path, as_text, as_bytes, as_array, as_pil])
def test_whatever_holds_the_image_the_answer_is_the_same(here, path, form):
    result = here(form(path))
    assert result.labels == ["cup", "dining table"]
    assert result.boxes == pytest.approx(here(path).boxes)


def test_a_server_answers_alike(here, there, path):
    ours, theirs = here(path), there(path)
    assert ours.to_dict() == theirs.to_dict()
    assert (here.name, here.task) == (there.name, there.task) == ("yolov4_tiny", "detect")


def test_a_list_has_a_list_of_answers(here, path):
    assert [answer.labels for answer in here([path, as_array(path)], score_threshold=0.5)] == [["cup"], ["cup"]]


@pytest.mark.parametrize("where", ["here", "there"])
def test_numbers_of_numpy_are_options(request, where, path):
    answer = request.getfixturevalue(where)(path, max_detections=np.int64(1), score_threshold=np.float32(0.25))
    assert answer.labels == ["cup"]


@pytest.mark.parametrize("where", ["here", "there"])
def test_an_answer_draws_itself(request, where, path):
    answer = request.getfixturevalue(where)(path)
    drawn = answer.plot()
    assert (drawn.size, drawn.mode) == (Image.open(path).size, "RGB")
    assert not np.array_equal(np.asarray(drawn), as_array(path))
    assert Image.open(io.BytesIO(answer._repr_jpeg_())).size == drawn.size


def test_masks_are_those_of_the_client(models, path):
    result = load("u2netp", models=models)(path, mask="png")
    assert result.masks.shape == (1, *as_array(path).shape[:2])
    assert result.opacity().max() == 255


@pytest.mark.parametrize(
    ("image", "options", "said"),
    [(b"nothing", {}, "not an image"), (COFFEE, {"colour": 1}, "There is no option `colour`")],
)
def test_what_cannot_be_answered_is_said(here, path, image, options, said):
    with pytest.raises(ValueError, match=said):
        here(path if image == COFFEE else image, **options)


def test_a_model_that_is_not_in_the_store_is_exported_first(tmp_path):
    model = load("lenet5", models=tmp_path)
    assert model.labels == tuple("0123456789")
    assert (tmp_path / "lenet5" / "1" / "card.json").is_file()


def test_the_models_of_a_pipeline_that_are_not_in_the_store_are_exported_first(models, tmp_path, monkeypatch):
    asked = []

    def export(name, folder):
        asked.append(name)
        shutil.copytree(models / name, tmp_path / name)

    monkeypatch.setattr("zooserve.models._export", export)
    shutil.copytree(models / "yolov4_tiny", tmp_path / "yolov4_tiny")
    assert load("pets", models=tmp_path).name == "pets"
    assert asked == ["mobilenet_v2"]


@pytest.mark.parametrize(
    ("name", "said"),
    [("no_such_model", "no model 'no_such_model'"), ("yolov8n_onnx", "--accept-license AGPL-3.0")],
)
def test_what_cannot_be_loaded_is_said_with_what_to_do(tmp_path, name, said):
    with pytest.raises(ValueError, match=said):
        load(name, models=tmp_path)


def test_without_what_exports_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("zooserve.models.installed", lambda _: False)
    with pytest.raises(ValueError, match=r"pip install .*\[export\]"):
        load("lenet5", models=tmp_path)


def test_a_server_without_such_a_model_says_what_it_has(server):
    with pytest.raises(ValueError, match=r"no model nothing; it has .*yolov4_tiny"):
        load(server.url, "nothing")


def test_a_pipeline_is_called_like_a_model(models, server):
    here, there = load("pets", models=models), load(server.url, "pets")
    chelsea = catalog.sample("chelsea")
    ours, theirs = here(chelsea, top_k=1), there(chelsea, top_k=1)
    assert ours.labels == theirs.labels == ["cat"]
    assert ours.second[0].labels == theirs.second[0].labels == ["Egyptian cat"]
    assert ours.pipeline == theirs.pipeline == "pets"
    assert (here.task, ours.plot().size, theirs.plot().size) == ("pipeline", (451, 300), (451, 300))
    with pytest.raises(ValueError, match="top_k=0"):
        here(chelsea, top_k=0)
