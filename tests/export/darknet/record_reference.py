"""Records in `reference.npz` what Darknet itself answers to the networks of `conftest.py`.

Build Darknet (github.com/AlexeyAB/darknet; the committed file comes from commit 59596d78) with `make LIBSO=1`, then
`python tests/export/darknet/record_reference.py path/to/libdarknet.so`.
"""

import ctypes
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from conftest import NAMES, SIDE, write_network


class Box(ctypes.Structure):
    """Darknet's `box`: centre and size, relative to the input."""

    _fields_ = [(name, ctypes.c_float) for name in ("x", "y", "w", "h")]


class Detection(ctypes.Structure):
    """Darknet's `detection`, as `include/darknet.h` has it."""

    _fields_ = [
        ("bbox", Box),
        ("classes", ctypes.c_int),
        ("best_class_idx", ctypes.c_int),
        ("prob", ctypes.POINTER(ctypes.c_float)),
        ("mask", ctypes.POINTER(ctypes.c_float)),
        ("objectness", ctypes.c_float),
        ("sort_class", ctypes.c_int),
        ("uc", ctypes.POINTER(ctypes.c_float)),
        ("points", ctypes.c_int),
        ("embeddings", ctypes.POINTER(ctypes.c_float)),
        ("embedding_size", ctypes.c_int),
        ("sim", ctypes.c_float),
        ("track_id", ctypes.c_int),
    ]


def answer(library: ctypes.CDLL, cfg: Path, weights: Path, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All candidates of one image: boxes, xyxy in input pixels, and scores."""
    floats, integers = ctypes.POINTER(ctypes.c_float), ctypes.POINTER(ctypes.c_int)
    library.load_network_custom.restype = ctypes.c_void_p
    library.get_network_boxes.restype = ctypes.POINTER(Detection)
    network = ctypes.c_void_p(library.load_network_custom(str(cfg).encode(), str(weights).encode(), 0, 1))
    library.network_predict_ptr(network, image.ctypes.data_as(floats))
    count, below_all = ctypes.c_int(), ctypes.c_float(-1)
    found = library.get_network_boxes(network, SIDE, SIDE, below_all, below_all, integers(), 1, ctypes.byref(count), 0)
    boxes = np.array([(d.bbox.x, d.bbox.y, d.bbox.w, d.bbox.h) for d in found[: count.value]]) * SIDE
    centres, sizes = boxes[:, :2], boxes[:, 2:]
    scores = np.array([d.prob[: d.classes] for d in found[: count.value]], np.float32)
    return np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1).astype(np.float32), scores


def main() -> None:
    arrays = {}
    library = ctypes.CDLL(sys.argv[1])
    with TemporaryDirectory() as folder:
        for name in NAMES:
            boxes, scores = answer(library, *write_network(name, Path(folder)))
            arrays |= {f"{name}/boxes": boxes, f"{name}/scores": scores}
            print(
                name, boxes.shape, "boxes", boxes.min(), "to", boxes.max(), "scores", scores.min(), "to", scores.max()
            )
    np.savez_compressed(Path(__file__).with_name("reference.npz"), **arrays)


if __name__ == "__main__":
    main()
