"""Published ONNX graphs: what can be served, and clear refusals of the rest."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.convert import convert as convert_unchecked
from export.families.onnx import build
from export.reference import Reference
from tests.export.any_batch import convert
from zoo import catalog
from zoo.errors import ExportError
from zoo.sources import fetch_all

FLOAT = TensorProto.FLOAT


def value(name: str, *shape: int | str, dtype: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


POOLED = [
    helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
    helper.make_node("Flatten", ["pooled"], ["flat"]),
]


@pytest.fixture
def save(tmp_path):
    """Write a classifier [1, 3, 64, 96] -> [1, 10]: pool, flatten, multiply. Any part of it can be changed."""

    def save(*, inputs=None, outputs=None, nodes=None, opset=11):
        weights = np.random.default_rng(0).normal(0, 3, (3, 10)).astype(np.float32)
        graph = helper.make_graph(
            nodes or [*POOLED, helper.make_node("MatMul", ["flat", "w"], ["y"])],
            "net",
            inputs or [value("x", 1, 3, 64, 96)],
            outputs or [value("y", 1, 10)],
            [
                numpy_helper.from_array(weights, "w"),
                numpy_helper.from_array(np.array([1, 3]), "fixed"),
                numpy_helper.from_array(np.array([0]), "first"),
                numpy_helper.from_array(np.ones(3, np.float32), "gain"),
            ],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=6)
        onnx.save_model(model, tmp_path / "net.onnx")
        return {"weights": tmp_path / "net.onnx"}

    return save


RESHAPED = [
    helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
    helper.make_node("Reshape", ["pooled", "fixed"], ["flat"]),  # to [1, 3]: the batch is written into the shape
    helper.make_node("MatMul", ["flat", "w"], ["y"]),
]


@pytest.mark.parametrize(
    ("batch", "opset", "nodes"),
    [(1, 7, None), (1, 11, None), (1, 20, None), (1, 23, None), ("N", 7, None), ("N", 20, None), (1, 13, RESHAPED)],
)
def test_a_classifier_gets_any_batch(make_card, save, make_images, batch, opset, nodes):
    card = make_card("classify")
    images = make_images(card.recipe, "chelsea", "coffee", "rocket")
    inputs, outputs = [value("x", batch, 3, 64, 96)], [value("y", batch, 10)]
    network = build(card, save(inputs=inputs, outputs=outputs, nodes=nodes, opset=opset))
    assert network.reference_name == f"onnxruntime {onnxruntime.__version__}, net.onnx as published"
    reference = Reference(card, network, 10)
    expected = reference(images)["probabilities"]
    assert expected.std() > 0.01
    model = convert(card, network, reference.head, reference.raw(images[:2]))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    np.testing.assert_allclose(session.run(None, {"images": images})[0], expected, atol=1e-6)


def weights_as_inputs(model):
    model.ir_version = 3  # of files from before 2019
    for tensor in model.graph.initializer:
        model.graph.input.append(value(tensor.name, *tensor.dims, dtype=tensor.data_type))


def own_functions(model):
    opsets = [helper.make_opsetid("", 17)]
    node = helper.make_node("MatMul", ["a", "b"], ["c"])
    model.functions.append(helper.make_function("own", "Product", ["a", "b"], ["c"], [node], opsets))
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.graph.node[-1].op_type, model.graph.node[-1].domain = "Product", "own"
    model.ir_version = 8


def branches(model):
    """One branch reads a weight of the graph around it, the other an intermediate value, too."""
    doubled = [helper.make_node("Add", ["flat", "flat"], ["two"]), helper.make_node("MatMul", ["two", "w"], ["b"])]
    once = [helper.make_node("MatMul", ["flat", "w"], ["a"])]
    then, otherwise = (
        helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(name, FLOAT, None)])
        for nodes, name in ((once, "a"), (doubled, "b"))
    )
    del model.graph.node[-1]
    model.graph.node.extend(
        [
            helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
            helper.make_node("Cast", ["most"], ["bright"], to=TensorProto.BOOL),
            helper.make_node("If", ["bright"], ["y"], then_branch=then, else_branch=otherwise),
        ]
    )


def annotated(model):
    model.graph.quantization_annotation.add().tensor_name = "pooled"


@pytest.mark.parametrize("change", [weights_as_inputs, own_functions, branches, annotated])
def test_what_older_and_other_exporters_write(make_card, save, make_images, change):
    card, files = make_card("classify"), save(opset=17)
    model = onnx.load(files["weights"])
    expected = Reference(card, build(card, files), 10)(images := make_images(card.recipe, "chelsea", "coffee"))
    change(model)
    onnx.save_model(model, files["weights"])
    network = build(card, files)
    reference = Reference(card, network, 10)
    raw = reference.raw(images)
    served = convert_unchecked(card, network, reference.head, raw).SerializeToString()  # a GPU leaves `If` to the CPU
    got = onnxruntime.InferenceSession(served).run(None, {"images": images})[0]
    np.testing.assert_allclose(got, expected["probabilities"], atol=1e-6)


@pytest.mark.parametrize("probabilities", [False, True])
def test_a_classifier_without_its_last_flatten(make_card, save, make_images, probabilities):
    card = make_card("classify", options={"probabilities": True} if probabilities else {})
    end = [helper.make_node("Softmax", ["maps"], ["y"], axis=1)] if probabilities else []
    maps = [*POOLED, helper.make_node("MatMul", ["flat", "w"], ["rows"]),
            helper.make_node("Unsqueeze", ["rows"], [["y", "maps"][probabilities]], axes=[2, 3]), *end]  # fmt: skip
    images = make_images(card.recipe, "chelsea", "coffee")
    expected = Reference(make_card("classify"), build(make_card("classify"), save()), 10)(images)["probabilities"]
    network = build(card, save(nodes=maps, outputs=[value("y", 1, 10, 1, 1)]))
    reference = Reference(card, network, 10)
    np.testing.assert_allclose(reference(images)["probabilities"], expected, atol=1e-6)
    model = convert(card, network, reference.head, reference.raw(images))
    got = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"images": images})[0]
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_an_answer_that_is_no_number_is_refused(make_card, save):
    nodes = [*POOLED, helper.make_node("Neg", ["flat"], ["less"]), helper.make_node("Log", ["less"], ["flog"]),
             helper.make_node("MatMul", ["flog", "w"], ["y"])]  # fmt: skip
    with pytest.raises(ExportError, match=r"net\.onnx: the graph answers noise with NaN.*export it again"):
        build(make_card("classify"), save(nodes=nodes))


def test_of_several_outputs_the_card_chooses(make_card, save):
    files = save(outputs=[value("flat", 1, 3), value("y", 1, 10)])
    module = build(make_card("classify", options={"output": "y"}), files).module
    assert [output.name for output in module.graph.output] == ["logits"]
    for options in ({}, {"output": "z"}):
        with pytest.raises(ExportError, match=r"the card's option `output` is .*, expected one of \['flat', 'y'\]"):
            build(make_card("classify", options=options), files)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": [value("x", 1, 3, 32, 96)]}, r"takes tensor\(float\) \[1, 3, 32, 96\], but .* \['N', 3, 64, 96\]"),
        (
            {
                "inputs": [value("x", 1, 64, 96, 3)],
                "nodes": [helper.make_node("Relu", ["x"], ["y"])],
                "outputs": [value("y", 1, 64, 96, 3)],
            },
            r"takes tensor\(float\) \[1, 64, 96, 3\]",
        ),
        (
            {
                "inputs": [value("x", 1, 3, 64, 96), value("scale", 1)],
                "nodes": [helper.make_node("Mul", ["x", "scale"], ["y"])],
                "outputs": [value("y", 1, 3, 64, 96)],
            },
            r"has the inputs \['x', 'scale'\], expected one",
        ),
        (
            {
                "nodes": [
                    *POOLED,
                    helper.make_node("Gather", ["flat", "first"], ["one"]),
                    helper.make_node("MatMul", ["one", "w"], ["y"]),
                ]
            },
            "has its batch size built in, .*: it answers 2 images together otherwise than one by one, in 'logits'",
        ),
        ({"opset": 40}, "opset 40 is too new to be run here, export it again with opset_version=20"),
        (
            {"nodes": [*POOLED, helper.make_node("RMSNormalization", ["flat", "gain"], ["y"])], "opset": 23}
            | {"outputs": [value("y", 1, 3)]},
            "opset 23 cannot be brought to opset 20, export it again with opset_version=20: .*RMSNormalization",
        ),
        ({"opset": 6}, "opset 6 is too old, .* export it again with opset_version=20"),
    ],
)
def test_what_cannot_be_served_is_refused(make_card, save, changes, message, capfd):
    with pytest.raises(ExportError, match=rf"net\.onnx: .*{message}"):
        build(make_card("classify"), save(**changes))
    assert capfd.readouterr() == ("", "")


def test_other_files_and_detectors_are_refused(make_card, save, tmp_path):
    (tmp_path / "no.onnx").write_text("not found")
    with pytest.raises(ExportError, match=r"no\.onnx: not an ONNX file that can be run"):
        build(make_card("classify"), {"weights": tmp_path / "no.onnx"})
    with pytest.raises(ExportError, match="net: a detector needs a family that knows the form of its boxes"):
        build(make_card("detect"), save())


def test_weights_in_another_file_are_refused(make_card, save):
    """The sha256 of a source says nothing about them."""
    files = save()
    model = onnx.load(files["weights"])
    onnx.save_model(model, files["weights"], save_as_external_data=True, size_threshold=0)
    with pytest.raises(ExportError, match=r"net\.onnx: its weights are in another file.* external_data=False"):
        build(make_card("classify"), files)


def test_u2netp_sees_the_astronaut(make_images):
    card = catalog.find("u2netp")
    network = build(card, fetch_all(card.sources))
    images = make_images(card.recipe, "astronaut")
    alpha = Reference(card, network, 2)(images)["alpha"]
    assert alpha.shape == (1, 320, 320)
    assert alpha[0, 100, 150] > 250  # her face (about 225, 110 of 512)
    assert alpha[0, 10, 200] < 5  # the wall behind her
    assert (card.recipe.interpolation, card.normalise.brightest, card.min_max) == ("lanczos", True, True)  # as rembg
