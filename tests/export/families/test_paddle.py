"""The real PicoDet and PP-LCNetV2. The expected numbers are PaddlePaddle 2.6.2's own, for the same pixels."""

import msgspec
import numpy as np
import onnxruntime
import pytest
import torch

from export.families.paddle import build
from export.heads import Pixels
from export.paddle.operators import OPERATORS
from export.paddle.program import SCHEMA
from export.parity import differences, tolerances
from export.reference import Reference
from tests.export.any_batch import convert
from zoo import catalog
from zoo.card import Recipe
from zoo.errors import ExportError
from zoo.labels import read_labels
from zoo.sources import fetch_all


@pytest.fixture(scope="module", params=["picodet_s_416", "pplcnetv2_base"])
def model(request):
    card = catalog.find(request.param)
    return card, fetch_all(card.sources)


picodet = pytest.mark.parametrize("model", ["picodet_s_416"], indirect=True)


@torch.no_grad()
def answer(model, make_images, *photos):
    card, files = model
    # Paddle's answers below are to Pillow's pixels, whatever the card's recipe says.
    images = make_images(msgspec.structs.replace(card.recipe, resampling="pillow"), *photos)
    answers = build(card, files).module(Pixels(card.normalise)(torch.from_numpy(images)))
    return {name: value.numpy() for name, value in answers.items()}


@picodet
@pytest.mark.parametrize(
    ("photo", "label", "score", "box"),
    [
        ("coffee", "cup", 0.914656, (116.8218, 17.4511, 294.9688, 313.2607)),
        ("coffee", "dining table", 0.925660, (-0.0880, 0.3294, 416.1235, 415.8544)),
        ("chelsea", "cat", 0.976168, (-0.1734, 0.0017, 381.4409, 416.0380)),
        ("astronaut", "person", 0.971342, (7.5821, 10.1079, 298.6457, 416.0521)),
    ],
)
def test_picodet_answers_as_paddle_does(model, make_images, photo, label, score, box):
    answers = answer(model, make_images, "rocket", photo)
    boxes, scores = answers["boxes"][1], answers["scores"][1][:, read_labels(model[0].labels).index(label)]
    assert boxes.shape == (52**2 + 26**2 + 13**2 + 7**2, 4)
    assert scores.max() == pytest.approx(score, abs=1e-5)
    np.testing.assert_allclose(boxes[scores.argmax()], box, atol=0.01)


@pytest.mark.parametrize("model", ["pplcnetv2_base"], indirect=True)
def test_pplcnet_answers_as_paddle_does(model, make_images):
    logits = answer(model, make_images, "coffee", "chelsea")["logits"]
    labels = read_labels(model[0].labels)
    expected = {
        "coffee": {"espresso": 10.541345, "cup": 6.1401987, "consomme": 5.3270907},
        "chelsea": {"tiger cat": 9.604724, "Egyptian cat": 9.569919, "tabby": 8.292457},
    }
    for row, best in zip(logits, expected.values(), strict=True):
        order = np.argsort(-row)[:3]
        assert [labels[i] for i in order] == list(best)
        np.testing.assert_allclose(row[order], list(best.values()), atol=1e-4)


@picodet
def test_picodet_converts_with_a_dynamic_batch(model, make_images):
    card, files = model
    images = make_images(card.recipe, "coffee", "astronaut", "chelsea")
    network = build(card, files)
    reference = Reference(card, network, 80)
    graph = convert(card, network, reference.head, reference.raw(images[:2]))
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    assert network.nms
    assert names == ["boxes", "scores", "classes"]
    for batch in (images[:1], images):
        expected, got = reference(batch), dict(zip(names, session.run(names, {"images": batch}), strict=True))
        assert got["boxes"].shape == (len(batch), 1000, 4)
        allowed = tolerances(card, expected)
        assert all(gap <= allowed[name] for name, gap in differences(expected, got, allowed["scores"]).items())


def test_a_card_that_does_not_fit_is_refused(model):
    card, files = model
    with pytest.raises(ExportError, match=r"but the card's recipe makes \[-1, 3, 64, 96\]"):
        build(msgspec.structs.replace(card, recipe=Recipe(64, 96, "stretch")), files)
    with pytest.raises(ExportError, match=r"no options, but this one has \['program'\] and \[\]"):
        build(card, {"program": files["program"]})


@picodet
def test_an_unknown_operator_is_named(model, monkeypatch):
    monkeypatch.delitem(OPERATORS, "nearest_interp_v2")
    with pytest.raises(
        ExportError, match=r"model\.pdmodel: operator \d+, nearest_interp_v2 is not known\. Known are batch"
    ):
        build(*model)


@picodet
@pytest.mark.parametrize(
    ("source", "change", "message"),
    [
        ("program", lambda content: b"PK\x03\x04", r"not a Paddle program"),
        ("program", lambda content: b"", r"not a Paddle program: it has no operators"),
        ("program", lambda content: content[:-1000], r"not a Paddle program"),
        ("parameters", lambda content: content[:-4], "not the parameters of a Paddle program, or damaged"),
        ("parameters", lambda content: content + b"1234", "4 bytes are left over .* belongs to another"),
        ("parameters", lambda content: b"PK\x03\x04" + content, "not the parameters of a Paddle program, or damaged"),
        ("parameters", lambda content: b"", "not the parameters of a Paddle program, or damaged"),
    ],
)
def test_other_files_are_refused(model, tmp_path, source, change, message):
    card, files = model
    other = tmp_path / "other"
    other.write_bytes(change(files[source].read_bytes()))
    with pytest.raises(ExportError, match=f"other: .*{message}|other: {message}"):
        build(card, {**files, source: other})


@picodet
@pytest.mark.parametrize("side", ["inputs", "outputs"])
def test_operators_that_do_not_fit_together_are_refused(model, tmp_path, side):
    card, files = model
    program = SCHEMA["ProgramDesc"]()
    program.ParseFromString(files["program"].read_bytes())
    convolution = next(op for op in program.blocks[0].ops if op.type == "conv2d")
    del getattr(convolution, side)[:]
    other = tmp_path / "other"
    other.write_bytes(program.SerializeToString())
    with pytest.raises(ExportError, match=r"other: (its operators do not fit together: |operator 2, conv2d has no)"):
        build(card, {**files, "program": other})


def appended(files, kind, path, **settings):
    """The program with an operator at its end, as it is fetched then."""
    program = SCHEMA["ProgramDesc"]()
    program.ParseFromString(files["program"].read_bytes())
    operators = program.blocks[0].ops
    fetch = next(op for op in operators if op.type == "fetch")
    more = type(fetch)(type=kind)
    more.inputs.add(parameter="X", arguments=fetch.inputs[0].arguments)
    more.outputs.add(parameter="Out", arguments=["more"])
    for name, number in settings.items():
        more.attrs.add(name=name, type=1, f=number)
    fetch.inputs[0].arguments[:] = ["more"]
    operators.insert(list(operators).index(fetch), more)
    path.write_bytes(program.SerializeToString())
    return files | {"program": path}


@pytest.mark.parametrize("model", ["pplcnetv2_base"], indirect=True)
def test_no_softmax_of_a_softmax_is_served(model, make_images, tmp_path):
    card, files = model
    scaled = appended(files, "scale", tmp_path / "scaled", scale=1.0, bias=0.0)
    expected, got = (answer((card, one), make_images, "coffee")["logits"] for one in (files, scaled))
    np.testing.assert_array_equal(got, expected)
    with pytest.raises(ExportError, match=r"operator \d+, sigmoid is its end, so each class has a score alone"):
        build(card, appended(files, "sigmoid", tmp_path / "sigmoid"))


@picodet
def test_parameters_of_another_program_are_refused(model):
    card, files = model
    other = fetch_all(catalog.find("pplcnetv2_base").sources)
    with pytest.raises(ExportError, match=r"inference\.pdiparams: .* but the program's is .*: it belongs to another"):
        build(card, {**files, "parameters": other["parameters"]})
