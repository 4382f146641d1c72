"""Conversion to ONNX: one file, any batch, nothing of this machine in it."""

import logging
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from export import convert as converter
from export.convert import OPSET
from export.network import Network
from export.reference import Reference
from tests.export import kept
from tests.export.any_batch import convert
from zoo.errors import ExportError


@pytest.fixture(autouse=True)
def _each_time(monkeypatch):
    monkeypatch.setattr(converter, "_export", kept.converting)


def converted(card, net, classes, images, **options) -> tuple[onnx.ModelProto, Reference]:
    network = Network(net, "torch")
    reference = Reference(card, network, classes)
    return convert(card, network, reference.head, reference.raw(images[:2]), **options), reference


@pytest.mark.parametrize(
    ("task", "classes", "outputs"),
    [("classify", 10, ["probabilities"]), ("detect", 80, ["boxes", "scores", "classes"]), ("segment", 21, ["mask"])],
)
def test_the_graph_answers_any_batch_as_torch_does(make_card, make_net, make_images, task, classes, outputs):
    card = make_card(task)
    images = make_images(card.recipe, "chelsea", "coffee", "rocket")
    model, reference = converted(card, make_net(task, classes), classes, images)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    assert [(x.name, x.type, x.shape) for x in session.get_inputs()] == [
        ("images", "tensor(uint8)", ["batch", 64, 96, 3])
    ]
    assert [x.name for x in session.get_outputs()] == outputs
    assert [x.version for x in model.opset_import if x.domain == ""] == [OPSET]
    for batch in (images[:1], images[:2], images, np.concatenate([images] * 3)):
        expected = reference(batch)
        for name, got in zip(outputs, session.run(outputs, {"images": batch}), strict=True):
            assert got.dtype == expected[name].dtype
            np.testing.assert_allclose(got, expected[name], atol=1e-4)


def test_the_file_is_the_same_every_time_and_names_no_path(make_card, make_net, make_images):
    card = make_card("detect")
    images = make_images(card.recipe)
    one, two = (converted(card, make_net("detect", 80), 80, images)[0].SerializeToString() for _ in range(2))
    assert one == two
    for trace in (str(Path(__file__).parents[2]), "site-packages", ".py"):
        assert trace.encode() not in one


def test_the_exporter_is_quiet_unless_asked(make_card, make_net, make_images, capfd, recwarn):
    card = make_card("classify")
    images = make_images(card.recipe)
    converted(card, make_net("classify", 10), 10, images)
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list
    assert logging.root.manager.disable == logging.NOTSET
    converted(card, make_net("classify", 10), 10, images, verbose=True)
    assert "torch.export" in "".join(capfd.readouterr())


class DependsOnData(nn.Module):
    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))}


def test_a_network_that_cannot_be_exported_is_an_export_error(make_card):
    card = make_card("classify")
    network = Network(DependsOnData(), "torch")
    raw = {"logits": torch.zeros(2, 3)}
    with pytest.raises(ExportError, match=r"net: the network does not convert to ONNX: .*"):
        convert(card, network, Reference(card, network, 3).head, raw)


def test_what_does_not_fit_into_one_file_is_refused_at_once(make_card):
    card = make_card("classify")
    network = Network(nn.Linear(2**15, 2**15, device="meta"), "torch")
    with pytest.raises(ExportError, match=r"net: 4\.00 GiB of weights; one ONNX file holds at most 2 GiB"):
        convert(card, network, Reference(card, network, 10).head, {"logits": torch.zeros(2, 10)})


def test_a_published_graph_needs_its_runtime(make_card, make_images):
    card = make_card("classify")
    with pytest.raises(ExportError, match="must bring the `reference`"):
        Reference(card, Network(onnx.ModelProto(), "none"), 10).raw(make_images(card.recipe))
