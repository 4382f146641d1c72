"""Variants of lower precision: what is published, what is refused, and that they are served like any model."""

import json
import shutil

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.utils import Extractor

from export import variant
from export.command import export
from export.onnx_file.reading import open_session
from export.precision import _outside, to_fp16, to_int8
from export.provenance import is_variant_current
from export.variant import export_variant
from zoo import catalog
from zoo.card import Bound
from zoo.catalog import fetch_photos
from zoo.commands import show
from zoo.errors import ExportError, StoreError
from zoo.files import sha256_of
from zoo.listing import list_models
from zoo.served_card import Agreement, write_served_card
from zoo.store import Store, verify_folder


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    """A store with the fp32 models that the variants are made of, their cards' bounds as they are."""
    root = tmp_path_factory.mktemp("models")
    for name in ("lenet5", "mobilenet_v2", "yolov4_tiny"):
        shutil.copytree(f"models/{name}", root / name)
    return Store(root)


@pytest.mark.parametrize(
    ("name", "precision", "smaller"),
    [
        ("mobilenet_v2", "int8", 3.3),
        ("mobilenet_v2", "fp16", 1.9),
        ("yolov4_tiny", "int8", 3.5),
        ("yolov4_tiny", "fp16", 1.9),
    ],
)
def test_a_variant_is_smaller_and_keeps_its_answers(store, name, precision, smaller):
    card = catalog.find(name)
    done = export_variant(card, precision, store)
    served = verify_folder(done.folder)
    assert (served.name, served.precision, served.task_default) == (f"{name}-{precision}", precision, False)
    assert served.outputs == done.base.outputs
    assert served.size * smaller < done.base.size
    assert served.agreement.base == name
    assert served.agreement.photos >= 25
    assert served.parity != done.base.parity
    assert served.parity.reference == f"{precision} in onnxruntime {onnxruntime.__version__}, each photo alone"
    assert served.parity.batches == (1, 3, 8)
    assert served.parity.max_difference.keys() == served.parity.tolerance.keys()
    assert served.agreement.agreement >= card.bound.agreement
    assert served.agreement.shift <= card.bound.shift
    tops = [golden.predictions[0].label for golden in served.golden]
    assert tops == [golden.predictions[0].label for golden in done.base.golden]
    assert is_variant_current(card, precision, store)
    assert not is_variant_current(msgspec.structs.replace(card, bound=Bound(0.5)), precision, store)


@pytest.mark.parametrize("name", ["mobilenet_v2", "yolov4_tiny"])
def test_photos_that_calibrate_are_not_compared_on(store, name, monkeypatch):
    """Neither under their own name nor as a golden photo; and each photo is compared on once."""
    base = store.latest(name).card
    photos = fetch_photos(progress=False)
    golden = {one.sha256 for one in base.golden}
    assert golden & {sha256_of(path) for path in photos.values()}  # they are among the zoo's photos
    calibrating, comparing = variant.divide(photos | {"again": photos["coffee"]}, golden)
    hashes = [sha256_of(photo.path) for photo in (*calibrating, *comparing)]
    assert not set(hashes) & golden
    assert len(set(hashes)) == len(hashes) == len(photos) - len(golden)
    assert abs(len(calibrating) - len(comparing)) <= 1


def test_what_calibrates_and_what_is_compared_have_no_image_in_common(store, monkeypatch):
    seen = {}

    def calibrate(path, images):
        seen["calibrating"] = {image.tobytes() for image in images}
        return to_int8(path, images[:4])

    def compare(card, path, reference, images, expected, **where):
        seen["comparing"] = [image.tobytes() for image in images]
        raise ExportError("enough")

    monkeypatch.setattr(variant, "to_int8", calibrate)
    monkeypatch.setattr(variant.parity, "measure", compare)
    loose = msgspec.structs.replace(catalog.find("mobilenet_v2"), bound=Bound(0.0, 1.0))
    with pytest.raises(ExportError, match="enough"):
        export_variant(loose, "int8", store)
    assert len(seen["calibrating"]) >= 25
    assert len(set(seen["comparing"])) == len(seen["comparing"]) >= 25
    assert not seen["calibrating"] & set(seen["comparing"])


def test_a_variant_that_is_otherwise_in_a_batch_is_not_published(store, monkeypatch):
    def broken(path):
        """A graph whose answers are those of the batch's first image."""
        model = to_fp16(path)
        softmax = next(node for node in model.graph.node if node.op_type == "Softmax")
        first = onnx.helper.make_tensor("first", onnx.TensorProto.INT64, [1], [0])
        model.graph.initializer.append(first)
        gather = onnx.helper.make_node("Gather", [softmax.input[0], "first"], ["one"], axis=0)
        add = onnx.helper.make_node("Mul", [softmax.input[0], "nought"], ["zero"])
        join = onnx.helper.make_node("Add", ["one", "zero"], ["all"])
        model.graph.initializer.append(onnx.helper.make_tensor("nought", onnx.TensorProto.FLOAT, [], [0.0]))
        at = list(model.graph.node).index(softmax)
        softmax.input[0] = "all"
        for node in (join, add, gather):
            model.graph.node.insert(at, node)
        return model

    monkeypatch.setattr(variant, "to_fp16", broken)
    with pytest.raises(ExportError, match=r"lenet5: ONNX Runtime differs from fp16 in .* each photo alone in probabil"):
        export_variant(catalog.find("lenet5"), "fp16", store)


def test_a_variant_is_shown_with_what_it_keeps(store, cli):
    export_variant(catalog.find("lenet5"), "fp16", store)
    shown = cli(show, "lenet5-fp16", "--models", store.root).stdout
    assert "differs by up to 0 from fp16 in onnxruntime" in shown
    assert "keeps 100.0% of lenet5's sure answers on" in shown


@pytest.mark.parametrize(
    ("precision", "provider", "said"),
    [
        ("fp16", "CPUExecutionProvider", "shifted by 0.000, on CPU; not measured on CUDA, which it is for"),
        ("fp16", "CUDAExecutionProvider", "shifted by 0.000, on CUDA\n"),
        ("int8", "CPUExecutionProvider", "shifted by 0.000, on CPU\n"),
    ],
)
def test_where_agreement_was_measured_is_said(store, tmp_path, cli, precision, provider, said):
    folder = tmp_path / "lenet5-x" / "1"
    shutil.copytree(store.path("lenet5", "1"), folder)
    base = store.latest("lenet5").card
    kept = Agreement("lenet5", 29, 1.0, 0.0, Bound(), provider)
    card = msgspec.structs.replace(base, name="lenet5-x", precision=precision, agreement=kept)
    write_served_card(card, folder / "card.json")
    assert said in cli(show, "lenet5-x", "--models", tmp_path).stdout
    listed = next(line for line in cli(list_models, "--models", tmp_path).stdout.splitlines() if "lenet5-x" in line)
    assert (f"{precision}, not measured on CUDA" in listed) == ("not measured" in said)
    (row,) = (x for x in json.loads(cli(list_models, "--json", "--models", tmp_path).stdout) if x["name"] == "lenet5-x")
    assert row["unmeasured"] == ("CUDA" if "not measured" in said else "")


def test_a_variant_with_other_answers_is_not_published(store):
    strict = msgspec.structs.replace(catalog.find("mobilenet_v2"), bound=Bound(agreement=1.0, shift=1e-6))
    with pytest.raises(ExportError, match=r"in int8 it keeps \d.*shifts them by 0\.\d+; the card's bound is 100.0%"):
        export_variant(strict, "int8", store)
    other = msgspec.structs.replace(strict, name="efficientnet_lite0")
    with pytest.raises(StoreError, match="zooserve export efficientnet_lite0"):
        export_variant(other, "int8", store)


def test_only_the_network_is_converted():
    for model in (to_fp16(catalog_path("mobilenet_v2")), to_int8(catalog_path("mobilenet_v2"), pixels(224))):
        onnx.checker.check_model(model, full_check=True)
        softmax = next(node for node in model.graph.node if node.op_type == "Softmax")
        graph = onnx.shape_inference.infer_shapes(model).graph
        types = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}
        assert types[softmax.input[0]] == types[softmax.output[0]] == onnx.TensorProto.FLOAT
        assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8


@pytest.mark.parametrize("name", ["lenet5", "mobilenet_v2", "yolov4_tiny", "u2netp"])
def test_no_value_is_cast_to_float16_and_back(name):
    model = to_fp16(catalog_path(name))
    onnx.checker.check_model(model, full_check=True)
    kinds = {node.output[0]: node.attribute[0].i for node in model.graph.node if node.op_type == "Cast"}
    back = [node.input[0] for node in model.graph.node if kinds.get(node.output[0]) == onnx.TensorProto.FLOAT]
    assert back
    assert not [name for name in back if kinds.get(name) == onnx.TensorProto.FLOAT16]


def test_boxes_are_as_exact_in_fp16_as_in_fp32(make_images):
    """Given what the fp16 network answers, the fp32 graph's own arithmetic makes the same boxes, scores and classes."""
    path = catalog_path("yolov4_tiny")
    whole, half = onnx.load(path), to_fp16(path)
    makers = {node.output[0]: node.op_type for node in half.graph.node}
    casts = {
        n.input[0]: n.output[0] for n in half.graph.node if n.op_type == "Cast" and makers.get(n.input[0]) == "Conv"
    }
    half.graph.output.extend(onnx.ValueInfoProto(name=cast) for cast in casts.values())
    shapes = {x.name: x for x in onnx.shape_inference.infer_shapes(whole).graph.value_info}
    whole.graph.value_info.extend(shapes[raw] for raw in casts)
    names = [output.name for output in whole.graph.output]
    tail = Extractor(whole).extract_model(list(casts), names)
    images = make_images(catalog.find("yolov4_tiny").recipe, "coffee", "astronaut")
    got = open_session(half.SerializeToString()).run([*names, *casts.values()], {"images": images})
    answers = open_session(tail.SerializeToString()).run(names, dict(zip(casts, got[len(names) :], strict=True)))
    for output, ours, exact in zip(names, got, answers, strict=False):
        np.testing.assert_allclose(ours, exact, atol=1e-3, rtol=0, err_msg=output)
    assert np.any(got[0] * 16 % 1)  # finer than float16 has them


def test_arithmetic_with_constants_of_few_numbers_is_no_network():
    """Sides of distributions (a Conv over 16 bins) and corners of centres (a MatMul with 4 x 4 numbers)."""
    nodes = [
        ("Conv", "x weights", "features"),
        ("Softmax", "features", "likely"),
        ("Conv", "likely bins", "sides"),
        ("Transpose", "sides", "rows"),
        ("MatMul", "rows corners", "y"),
    ]
    made = [onnx.helper.make_node(kind, given.split(), [output], output) for kind, given, output in nodes]
    sizes = {"weights": (16, 3, 1, 1), "bins": (1, 16, 1, 1), "corners": (1, 4)}
    tensors = [onnx.numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in sizes.items()]
    values = [
        onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["batch", None, None, None]) for n in ("x", "y")
    ]
    graph = onnx.helper.make_graph(made, "net", values[:1], values[1:], tensors)
    assert _outside(graph) == ["likely", "sides", "rows", "y"]


def test_a_graph_without_products_is_refused(tmp_path):
    node = onnx.helper.make_node("Identity", ["images"], ["same"])
    graph_input = onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, [1])
    same = onnx.helper.make_tensor_value_info("same", onnx.TensorProto.FLOAT, [1])
    path = tmp_path / "model.onnx"
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "g", [graph_input], [same])), path)
    with pytest.raises(ExportError, match="no convolution or matrix product"):
        to_fp16(path)


def test_the_command_publishes_both_and_leaves_them_alone_afterwards(store, cli):
    first = cli(export, "lenet5", "--precision", "int8", "--precision", "fp16", "--models", store.root)
    assert first.exit_code == 0, first.output
    assert "lenet5-int8 1: " in first.stdout
    assert "(fp32 0.5)" in first.stdout
    assert "of fp32's sure answers" in first.stdout
    second = cli(export, "lenet5", "--precision", "int8", "--models", store.root)
    assert "lenet5-int8 1: up to date" in second.stdout


def catalog_path(name: str):
    return Store().latest(name).path / "model.onnx"


def pixels(side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (4, side, side, 3), np.uint8)
