"""Any graph is published as it is, if it answers rows together as alone; else a sentence says why not."""

import hashlib

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession

from export.pipeline import export_model
from export.provenance import is_current
from zoo.card import Licence
from zoo.errors import CardError, ExportError, LicenceError
from zoo.model_card import Source, TensorCard
from zoo.served_card import ServedTensors
from zoo.store import Store


def model_of(nodes, inputs, outputs, initializers=()):
    """An ONNX model; inputs and outputs are (name, element type, shape)."""
    values = [[helper.make_tensor_value_info(*value) for value in some] for some in (inputs, outputs)]
    graph = helper.make_graph(nodes, "net", *values, list(initializers))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 10
    return model


FLOAT = TensorProto.FLOAT


def doubled(*shape, kind=FLOAT):
    return model_of(
        [helper.make_node("Add", ["x", "x"], ["y"])], [("x", kind, list(shape))], [("y", kind, list(shape))]
    )


@pytest.fixture
def card_of(tmp_path):
    """Make the card of a model, and of rows where they are given."""

    def make(model, sample=None, **changes) -> TensorCard:
        def source(name, data):
            path = tmp_path / name
            path.write_bytes(data)
            return Source(file=str(path), sha256=hashlib.sha256(data).hexdigest())

        sources = {"weights": source("net.onnx", model.SerializeToString())}
        if sample is not None:
            np.savez(tmp_path / "rows.npz", **sample)
            sources["sample"] = source("rows.npz", (tmp_path / "rows.npz").read_bytes())
        fields = {"name": "net", "version": "1", "task": "tensors", "title": "", "licence": Licence("MIT", "MIT")}
        return TensorCard(**(fields | {"sources": sources} | changes))

    return make


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "models")


def test_a_graph_is_published_as_it_is(card_of, store, tmp_path):
    card = card_of(doubled("N", "T", 4))
    done = export_model(card, store)
    served = store.verify("net", "1")
    assert isinstance(served, ServedTensors)
    assert served == done.card
    assert [(x.name, x.dtype, x.shape) for x in served.inputs] == [("x", "float32", (None, None, 4))]
    assert (served.opset, served.precision, served.golden.sample) == (20, "fp32", False)
    published = onnx.load(done.folder / "model.onnx")
    assert published.graph.node == onnx.load(tmp_path / "net.onnx").graph.node
    golden = np.load(done.folder / "golden" / served.golden.file)
    assert golden["in/x"].shape == (3, 16, 4)
    np.testing.assert_array_equal(golden["out/y"], 2 * golden["in/x"])
    assert is_current(card, store)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (TensorProto.FLOAT16, "float16"),
        (TensorProto.DOUBLE, "float64"),
        (TensorProto.INT32, "int32"),
        (TensorProto.INT64, "int64"),
    ],
)
def test_other_numbers(card_of, store, kind, dtype):
    assert export_model(card_of(doubled("N", 3, kind=kind)), store).card.inputs[0].dtype == dtype


def test_texts_and_several_inputs(card_of, store):
    nodes = [helper.make_node("StringConcat", ["a", "b"], ["ab"]), helper.make_node("Not", ["c"], ["d"])]
    texts = TensorProto.STRING
    model = model_of(
        nodes,
        [("a", texts, ["N", 2]), ("b", texts, ["N", 2]), ("c", TensorProto.BOOL, ["N"])],
        [("ab", texts, ["N", 2]), ("d", TensorProto.BOOL, ["N"])],
    )
    card = export_model(card_of(model), store).card
    assert {x.name: x.dtype for x in (*card.inputs, *card.outputs)} == {
        "a": "string",
        "b": "string",
        "c": "bool",
        "ab": "string",
        "d": "bool",
    }


def test_rows_of_the_owner_s(card_of, store):
    rows = np.arange(20, dtype=np.float32).reshape(5, 4)
    done = export_model(card_of(doubled("N", 4), {"x": rows}), store)
    assert done.card.golden.sample
    np.testing.assert_array_equal(np.load(done.folder / "golden/tensors.npz")["out/y"], 2 * rows)


def test_sizes_of_free_dimensions(card_of, store):
    done = export_model(card_of(doubled("N", "T"), options={"T": 5}), store)
    assert np.load(done.folder / "golden/tensors.npz")["in/x"].shape == (3, 5)


MEAN = model_of(
    [
        helper.make_node("ReduceMean", ["x", "axes"], ["m"], keepdims=1),
        helper.make_node("Sub", ["x", "m"], ["y"]),
    ],
    [("x", FLOAT, ["N", 4])],
    [("y", FLOAT, ["N", 4])],
    [onnx.numpy_helper.from_array(np.array([0]), "axes")],
)
LOST = model_of(
    [helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=0)],
    [("x", FLOAT, ["N", 4])],
    [("y", FLOAT, ["M"])],
    [onnx.numpy_helper.from_array(np.array([0]), "axes")],
)
PINNED = model_of(
    [helper.make_node("Reshape", ["x", "shape"], ["y"])],
    [("x", FLOAT, ["N", 4])],
    [("y", FLOAT, ["N", 4])],
    [onnx.numpy_helper.from_array(np.array([1, 4]), "shape")],
)


FIXED = model_of(
    [helper.make_node("Reshape", ["x", "shape"], ["y"])],
    [("x", FLOAT, [3, 4])],
    [("y", FLOAT, [3, 4])],
    [onnx.numpy_helper.from_array(np.array([3, 4]), "shape")],
)
SHARED = model_of(
    [helper.make_node("Mul", ["x", "rate"], ["y"])],
    [("x", FLOAT, ["N", 4]), ("rate", FLOAT, [])],
    [("y", FLOAT, ["N", 4])],
)


@pytest.mark.parametrize("size", [1, 10, -1])
def test_a_fixed_batch_that_need_not_be_is_freed(card_of, store, size):
    done = export_model(card_of(doubled(size, 4)), store)
    assert done.card.inputs[0].shape == done.card.outputs[0].shape == (None, 4)
    session = InferenceSession(done.folder / "model.onnx")
    assert session.run(None, {"x": np.ones((7, 4), np.float32)})[0].shape == (7, 4)


@pytest.mark.parametrize(
    ("model", "sample", "changes", "message"),
    [
        (FIXED, None, {}, r"its batch of 3 is built in: the output 'y' has the shape \[3, 4\]"),
        (SHARED, None, {}, r"'rate' has the shape \[\], whose .* counts for all rows at once"),
        (doubled(), None, {}, "whose first dimension is not a free batch"),
        (doubled("N", 4, kind=TensorProto.BFLOAT16), None, {}, "cannot be sent|not an ONNX file that can be run"),
        (MEAN, None, {}, "answered otherwise than each alone"),
        (PINNED, None, {}, r"the output 'y' has the shape \[1, 4\], whose .* constants .of Reshape or Expand"),
        (LOST, None, {}, r"'y' has the shape \[4\], whose first dimension is not a free batch"),
        (doubled("N", "T"), None, {"options": {"S": 5}}, "no free dimension 'S'; those that it has: T"),
        (doubled("N", 4), {"y": np.zeros((3, 4), np.float32)}, {}, r"has the arrays \['y'\], expected \['x'\]"),
        (doubled("N", 4), {"x": np.zeros((2, 4), np.float32)}, {}, "at least 3"),
        (doubled("N", 4), {"x": np.zeros((3, 4))}, {}, "'x' is float64, expected float32"),
        (
            doubled("N", 4),
            {"x": np.zeros((3, 5), np.float32)},
            {},
            r"net: the graph does not run on the rows of (.|\n)*Got: 5 Expected: 4",
        ),
    ],
)
def test_what_is_not_published(card_of, store, model, sample, changes, message):
    with pytest.raises(ExportError, match=message):
        export_model(card_of(model, sample, **changes), store)
    assert store.entries() == []


def unrolled(count):
    """[N, 2] -> [N, 2]: what suppresses boxes once for each of `count` rows, and answers later rows with zeros."""
    nodes = [helper.make_node("NonMaxSuppression", ["boxes", "scores", "most"], [f"kept{i}"]) for i in range(count)]
    nodes += [
        helper.make_node("Concat", [f"kept{i}" for i in range(count)], ["kept"], axis=0),
        helper.make_node("Shape", ["kept"], ["kept_shape"]),
        helper.make_node("Gather", ["kept_shape", "zero"], ["handled"]),  # one box for each
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["rows"]),
        helper.make_node("Range", ["zero", "rows", "one"], ["numbers"]),
        helper.make_node("Less", ["numbers", "handled"], ["is_handled"]),
        helper.make_node("Cast", ["is_handled"], ["mask"], to=FLOAT),
        helper.make_node("Reshape", ["mask", "column"], ["masks"]),
        helper.make_node("Mul", ["x", "masks"], ["y"]),
    ]
    constants = {"boxes": np.array([[[0, 0, 1, 1]]], np.float32), "scores": np.ones((1, 1, 1), np.float32)}
    constants |= {"most": np.array([1]), "zero": np.array(0), "one": np.array(1), "column": np.array([-1, 1])}
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    return model_of(nodes, [("x", FLOAT, ["N", 2])], [("y", FLOAT, ["N", 2])], tensors)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_graph_that_suppresses_boxes_is_asked_with_real_rows(card_of, store, count):
    with pytest.raises(ExportError, match=r"noise cannot show whether rows stay independent.* --sample"):
        export_model(card_of(unrolled(count)), store)
    with pytest.raises(ExportError, match="several rows together are answered otherwise than each alone"):
        export_model(card_of(unrolled(count), sample={"x": np.ones((3, 2), np.float32)}), store)


def test_what_is_no_graph(card_of, store, tmp_path):
    path = tmp_path / "text.onnx"
    path.write_bytes(b"no graph")
    source = Source(file=str(path), sha256=hashlib.sha256(b"no graph").hexdigest())
    with pytest.raises(ExportError, match="not an ONNX file that can be run"):
        export_model(card_of(doubled("N"), sources={"weights": source}), store)


def test_licences_are_asked_for(card_of, store):
    with pytest.raises(LicenceError, match=r"AGPL-3\.0-only"):
        export_model(card_of(doubled("N", 4), licence=Licence("MIT", "AGPL-3.0-only")), store)
    assert export_model(card_of(doubled("N", 4)), store, accepted=()).card.accepted == ()


def test_a_card_of_tensors_is_refused_where_images_are_required(tmp_path):
    from zoo.model_card import read_model_card, require_images

    path = tmp_path / "net.toml"
    text = 'name = "net"\nversion = "1"\ntask = "tensors"\ntitle = ""\nlicence = {code = "MIT", weights = "MIT"}\n'
    path.write_text(text + f'[sources.weights]\nfile = "net.onnx"\nsha256 = "{"0" * 64}"\n')
    card = read_model_card(path)
    assert isinstance(card, TensorCard)
    assert card.sources["weights"].file == str((tmp_path / "net.onnx").resolve())
    with pytest.raises(CardError, match="net takes tensors"):
        require_images(card)
    path.write_text(text + 'labels = "coco80"\n[sources]\n')
    with pytest.raises(CardError, match="labels"):
        read_model_card(path)
