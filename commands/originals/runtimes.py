"""Other runtimes that read the same files: OpenCV 4 (Darknet, Caffe), Paddle 2.6, LiteRT, and rembg for U2-Net.

OpenCV's Darknet reader and rembg prepare images themselves; the others get what the recipe makes of them.
"""

import importlib
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import cv2
import msgspec
import numpy as np
import onnxruntime
from google.protobuf import text_format
from PIL import Image

from commands.originals.differences import (
    OPAQUE,
    Difference,
    Found,
    Pixels,
    compare_classes,
    compare_modes,
    compare_objects,
    compare_scores,
    mask_iou,
    photos,
    png,
    squared,
)
from export.caffe.net import NetParameter, read_net
from service.commands.load import Loaded
from service.vision.masks import decode
from zoo import catalog
from zoo.card import Nms
from zoo.errors import ExportError
from zoo.model_card import ModelCard, Source
from zoo.recipe import apply_exact
from zoo.sources import fetch_all

Outputs = list[list[Any]]
_REMBG = {
    "base": Source(
        package="rembg==2.0.86",
        member="rembg/sessions/base.py",
        sha256="ec4c58b33dd47ad6f03883ee375353314b19d5688fffd5c1ddb57bb21e9846a3",
    ),
    "u2netp": Source(
        package="rembg==2.0.86",
        member="rembg/sessions/u2netp.py",
        sha256="239e7ef52ed6eb53e0fcf191d9c6266d6299d4527b92bf6f384c37850498d8e2",
    ),
}


def rows(family: str, folder: Path, packages: Path | None) -> list[Difference]:
    """Compare the models of a family, a key of `FAMILIES`, which are exported into a folder.

    Args:
        family: which.
        folder: for the exported models.
        packages: a folder with OpenCV 4 or Paddle 2.6, made by `pip install --target`; None: there is none.

    Raises:
        ExportError: the reference is not there.
        ImportError: likewise.
    """
    return FAMILIES[family](folder, packages)


def _find(name: str, **changes: Any) -> ModelCard:
    card = catalog.find(name)
    assert isinstance(card, ModelCard)  # noqa: S101 - they take images
    return msgspec.structs.replace(card, **changes)


def _inputs(card: ModelCard, images: Iterable[Pixels]) -> Pixels:
    """What the network gets: float32 [M, 3, H, W], the card's `normalise` applied."""
    exact = np.stack([apply_exact(card.recipe, Image.fromarray(photo)) for photo in images])
    x = (exact.astype(np.float32) - np.array(card.normalise.mean, np.float32)) / np.array(
        card.normalise.std, np.float32
    )
    x = x[..., ::-1] if card.normalise.channels == "bgr" else x
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))


def _elsewhere(kind: str, packages: Path | None, inputs: Pixels, files: Sequence[Path]) -> tuple[Outputs, str]:
    """Run a network with the packages of a folder; outputs by image, and the version of what ran it."""
    if packages is None:
        wanted = "paddlepaddle==2.6.2" if kind == "paddle" else "opencv-python-headless<5"
        raise ExportError(
            f"needs --packages FOLDER, of `pip install --target FOLDER '{wanted}' 'numpy<2' 'protobuf<4'`"
        )
    with TemporaryDirectory(prefix="zooserve-") as name:
        folder = Path(name)
        np.save(folder / "in.npy", inputs)
        script = Path(__file__).with_name("elsewhere.py")
        command = [sys.executable, str(script), kind, str(folder / "in.npy"), str(folder / "out.npz")]
        ran = subprocess.run(  # noqa: S603 - our own script
            [*command, *map(str, files)], env={"PYTHONPATH": str(packages)}, capture_output=True, text=True, check=False
        )
        if ran.returncode:
            raise ExportError(f"{kind} of {packages} failed: {ran.stderr.strip()[-300:]}")
        with np.load(folder / "out.npz") as found:
            count = max(int(key.split("_")[0]) for key in found if key != "version") + 1
            outputs = [[found[f"{i}_{row}"] for i in range(count)] for row in range(len(inputs))]
            return outputs, str(found["version"])


def _objects(outputs: Sequence[list[Found]], difference: Difference, served: Loaded) -> None:
    least = served.model.card.nms_options.score_threshold  # Paddle's own answers have objects of any score
    waiting = ([one for one in of_photo if one.score >= least] for of_photo in outputs)
    compare_objects(difference, served, lambda _: next(waiting))


def _darknet(folder: Path, packages: Path | None) -> list[Difference]:
    """YOLOv4-tiny as Darknet stretches it, with OpenCV's resampling, as OpenCV's own reader runs it."""
    card = _find("yolov4_tiny")
    stretched = msgspec.structs.replace(card.recipe, resize="stretch", resampling="opencv")
    card = msgspec.structs.replace(card, recipe=stretched, expect=())  # which is about the letterbox of the zoo's card
    files = fetch_all(card.sources)
    inputs = _inputs(card, photos())
    outputs, version = _elsewhere("darknet", packages, inputs, [files["cfg"], files["weights"]])
    usual = Nms()
    objects = [
        _of_darknet(np.concatenate(of_photo), photo, usual) for of_photo, photo in zip(outputs, photos(), strict=True)
    ]
    size = (card.recipe.width, card.recipe.height)
    compare = partial(_objects, objects)
    return compare_modes(card, folder, f"{version}, stretched", compare, lambda photo: cv2.resize(photo, size))


def _of_darknet(rows: Pixels, photo: Pixels, nms: Nms) -> list[Found]:
    """OpenCV's rows: centre and size in 0..1, objectness, and the classes' scores."""
    height, width = photo.shape[:2]
    sizes = rows[:, 2:4]
    boxes = np.concatenate([rows[:, :2] - sizes / 2, rows[:, :2] + sizes / 2], 1) * (width, height, width, height)
    return _suppressed(boxes, rows[:, 5:].max(1), rows[:, 5:].argmax(1), nms, photo)


def _suppressed(boxes: Pixels, scores: Pixels, classes: Pixels, nms: Nms, photo: Pixels) -> list[Found]:
    corners: Any = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1).astype(float)
    values: Any = scores.astype(float)
    ids: Any = classes.astype(int)
    kept = cv2.dnn.NMSBoxesBatched(corners, values, ids, nms.score_threshold, nms.iou_threshold)
    height, width = photo.shape[:2]
    return [
        Found(int(classes[i]), float(scores[i]), tuple(boxes[i].clip(0, (width, height, width, height)).tolist()))
        for i in np.asarray(kept).ravel()[: nms.max_detections]
    ]


def _caffe(folder: Path, packages: Path | None) -> list[Difference]:
    """SqueezeNet; the description that OpenCV wants besides the weights is taken from those."""
    card = _find("squeezenet1_1_caffe")
    weights = fetch_all(card.sources)["weights"]
    net = read_net(weights, None, None)
    described: Any = NetParameter()
    for layer in net.layers:
        described.layer.add().CopyFrom(layer.message)
        described.layer[-1].ClearField("blobs")
    head = f'input: "{net.image}" input_dim: 1 input_dim: 3 input_dim: {card.recipe.height} input_dim: '
    inputs = _inputs(card, photos())
    with TemporaryDirectory(prefix="zooserve-") as name:
        prototxt = Path(name) / "net.prototxt"
        prototxt.write_text(f"{head}{card.recipe.width}\n{text_format.MessageToString(described)}")
        outputs, version = _elsewhere("caffe", packages, inputs, [prototxt, weights])
    return compare_modes(card, folder, version, partial(compare_scores, [_softmax(one[0].ravel()) for one in outputs]))


def _softmax(logits: Pixels) -> Pixels:
    weights = np.exp(logits.astype(np.float64) - logits.max())
    return np.asarray(weights / weights.sum())


def _paddle(folder: Path, packages: Path | None) -> list[Difference]:
    found = []
    for name in ("pplcnetv2_base", "picodet_s_416"):
        card = _find(name)
        files = fetch_all(card.sources)
        outputs, version = _elsewhere(
            "paddle", packages, _inputs(card, photos()), [files["program"], files["parameters"]]
        )
        if card.task == "classify":
            compare = partial(compare_scores, [one[0].ravel() for one in outputs])
        else:
            objects = [_of_paddle(one[0], photo, card) for one, photo in zip(outputs, photos(), strict=True)]
            compare = partial(_objects, objects)
        found += compare_modes(card, folder, version, compare)
    return found


def _of_paddle(rows: Pixels, photo: Pixels, card: ModelCard) -> list[Found]:
    """Paddle's rows after its NMS: class, score, and xyxy in pixels of the input."""
    height, width = photo.shape[:2]
    scale = np.array([width / card.recipe.width, height / card.recipe.height] * 2)
    limit = (width, height, width, height)
    return [Found(int(row[0]), float(row[1]), tuple((row[2:6] * scale).clip(0, limit).tolist())) for row in rows]


def _litert(folder: Path, _: Path | None) -> list[Difference]:
    """DeepLab in the LiteRT interpreter, on photos of the input's size, whose masks need no resizing."""
    litert = importlib.import_module("ai_edge_litert.interpreter")  # an extra

    card = _find("deeplabv3_mobilenet_v2")
    images = squared(card)
    own: Any = litert.Interpreter(str(fetch_all(card.sources)["weights"]))
    own.allocate_tensors()
    classes = []
    for x in _inputs(card, images).transpose(0, 2, 3, 1):
        own.set_tensor(own.get_input_details()[0]["index"], x[None])
        own.invoke()
        classes.append(own.get_tensor(own.get_output_details()[0]["index"])[0].argmax(-1))
    return compare_modes(card, folder, "LiteRT", partial(compare_classes, images, classes))


def _rembg(folder: Path, _: Path | None) -> list[Difference]:
    """U2-Net as rembg prepares it (Lanczos, divided by the brightest value), and its answer stretched to 0..1."""
    card = _find("u2netp")
    weights = str(fetch_all(card.sources)["weights"])
    session = _rembg_session()
    original = session.__new__(session)
    original.inner_session = onnxruntime.InferenceSession(weights, providers=["CPUExecutionProvider"])

    def compare(difference: Difference, served: Loaded) -> None:
        difference.mask = 1.0
        for photo in photos():
            wanted = np.asarray(original.predict(Image.fromarray(photo))[0]) >= OPAQUE
            answers: Any = served.predictor.predict(png(photo), served.model, {"mask": "rle"}).predictions
            height, width = photo.shape[:2]
            found = decode(answers[0].mask, width, height) >= OPAQUE if answers else np.zeros_like(wanted)
            if wanted.any() or found.any():
                difference.mask = min(difference.mask, mask_iou(found, wanted))

    mean, std = np.array(card.normalise.mean), np.array(card.normalise.std)

    def prepared(photo: Pixels) -> Pixels:
        size = (card.recipe.width, card.recipe.height)
        feed = original.normalize(Image.fromarray(photo), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), size)
        return np.asarray(next(iter(feed.values()))[0].transpose(1, 2, 0) * std + mean)

    return compare_modes(card, folder, str(_REMBG["base"].package), compare, prepared)


def _rembg_session() -> Any:
    """Return rembg's class for U2-Net, from two files of its package: all of it would want numba and scikit-image."""
    sys.modules.setdefault("pooch", ModuleType("pooch"))  # by which it would download weights
    sys.modules["rembg_sessions"] = ModuleType("rembg_sessions")
    for name, path in fetch_all(_REMBG).items():
        loader = SourceFileLoader(f"rembg_sessions.{name}", str(path))
        spec = spec_from_loader(loader.name, loader)
        assert spec is not None  # noqa: S101 - a loader was given
        sys.modules[loader.name] = module = module_from_spec(spec)
        loader.exec_module(module)
    return sys.modules["rembg_sessions.u2netp"].U2netpSession


FAMILIES: dict[str, Callable[[Path, Path | None], list[Difference]]] = {
    "darknet": _darknet,
    "caffe": _caffe,
    "paddle": _paddle,
    "tflite": _litert,
    "rembg": _rembg,
}
"""By the name that is given on the command line."""
