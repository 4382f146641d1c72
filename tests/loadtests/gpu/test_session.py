"""The GPU script's sessions, on the CPU: buffers, fp16, placement, refusals."""

import numpy as np
import onnxruntime as ort
import pytest

from loadtests.gpu.half import half
from loadtests.gpu.service import half_store
from loadtests.gpu.session import CPU, CUDA, Fixed, Model, ProviderError, Variant, prepare
from loadtests.gpu.sweep import VARIANTS, difference
from zoo.store import Store, verify_folder

HALF = Variant("fp16", CPU, half=True)


@pytest.fixture(scope="module")
def model(models, tmp_path_factory):
    return Model(Store(models).latest("mobilenet_v2"), "cpu", tmp_path_factory.mktemp("gpu"))


def test_images_are_the_golden_photos_over_and_over(model):
    images = model.images(5)
    assert (images.shape, images.dtype) == ((5, 224, 224, 3), np.uint8)
    count = len(model.card.golden)
    assert (images[0] == images[count]).all()
    assert images.flags.c_contiguous


@pytest.mark.parametrize("batch", [1, 3])
def test_fixed_buffers_answer_as_a_plain_run_does(model, batch):
    session, images = model.session(), model.images(batch)
    fixed = Fixed(session, images, "cpu", graph=False)
    for _ in range(2):
        for one, other in zip(fixed.run(), session.run(None, {"images": images}), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)
    fixed.compute()


def test_half_precision_answers_nearly_the_same(model):
    images = model.images(2)
    (one,) = model.session().run(["probabilities"], {"images": images})
    (other,) = model.session(HALF).run(["probabilities"], {"images": images})
    assert other.dtype == np.float32
    assert (one.argmax(axis=1) == other.argmax(axis=1)).all()
    assert 0 < np.abs(one - other).max() < 0.02
    assert half(model.path, model.folder).stat().st_size < 0.6 * model.path.stat().st_size


@pytest.mark.parametrize("name", ["yolov4_tiny", "deeplabv3_mobilenet_v2", "u2netp", "efficientnet_lite0"])
def test_every_family_has_a_half_precision(models, tmp_path, name):
    model = Model(Store(models).latest(name), "cpu", tmp_path)
    outputs = [output.name for output in model.session(HALF).get_outputs()]
    assert outputs == [output.name for output in model.card.outputs]


def test_a_store_in_half_precision_is_whole(model):
    card = verify_folder(half_store(model) / "mobilenet_v2" / model.card.version)
    assert card.precision == "fp16"
    assert card.sha256 != model.card.sha256


def test_placement(model):
    nodes = model.placement(CPU)
    assert list(nodes) == [CPU]
    assert nodes[CPU] > 20


@pytest.mark.skipif(CUDA in ort.get_available_providers(), reason="this ONNX Runtime has CUDA")
def test_without_cuda_it_refuses(model):
    with pytest.raises(ProviderError, match=r"onnxruntime-gpu.*--provider cpu"):
        prepare("cuda")
    with pytest.raises(ProviderError, match="no node of mobilenet_v2 ran on CUDA"):
        model.placement(CUDA)
    with pytest.warns(UserWarning, match="CUDA"), pytest.raises(ProviderError, match="fell back"):
        model.session(Variant("x", CUDA))


def test_difference():
    scores, other = np.float32([[0.5, 0.25]]), np.float32([[0.5, 0.3]])
    mask = np.zeros((1, 10, 10), np.uint8)
    changed = mask.copy()
    changed[0, 0, :5] = 1
    assert difference([scores], [other]) == "answers differ by 0.0500"
    assert difference([mask], [changed]) == "answers differ by 5.00% of the pixels, by up to 1"
    assert difference([scores, mask], [scores, mask]) == "answers differ by 0.0000, 0.00% of the pixels, by up to 0"


@pytest.mark.parametrize("device", VARIANTS)
def test_variants_have_names_of_their_own(device):
    names = [variant.name for variant in VARIANTS[device]]
    assert len(names) == len(set(names))
    assert all(variant.graph == ("enable_cuda_graph" in variant.options) for variant in VARIANTS[device])
