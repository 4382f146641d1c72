"""Runs networks in OpenCV 4 or Paddle 2.6, which do not fit beside what this project uses. Called by `runtimes`.

It runs in an interpreter of its own, with a folder of such packages first on its path, and imports nothing from here:

    python elsewhere.py darknet|caffe|paddle IN.npy OUT.npz FILE FILE

IN.npy is float32 [M, 3, H, W], the network's input; the two files are the network's, the description first. OUT.npz
gets `version`, and output i of image m as `i_m`.
"""

import importlib
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

Run = Callable[[Any], list[Any]]


def opencv(kind: str, description: str, weights: str) -> tuple[Run, str]:
    """Return what runs one image, and the version."""
    import cv2  # noqa: PLC0415 - one of them is there

    dnn: Any = cv2.dnn  # OpenCV 5, whose types are here, has neither reader
    read = {"darknet": dnn.readNetFromDarknet, "caffe": dnn.readNetFromCaffe}[kind]
    net = read(description, weights)
    names = net.getUnconnectedOutLayersNames()

    def run(image: Any) -> list[Any]:
        net.setInput(image[None])
        return [np.asarray(value).copy() for value in net.forward(names)]

    return run, f"opencv {cv2.__version__}"


def paddle(description: str, weights: str) -> tuple[Run, str]:
    """Return what runs one image, and the version."""
    paddle, inference = (importlib.import_module(name) for name in ("paddle", "paddle.inference"))

    predictor = inference.create_predictor(inference.Config(description, weights))

    def run(image: Any) -> list[Any]:
        height, width = image.shape[1:]
        extra = {"scale_factor": np.ones((1, 2), np.float32), "im_shape": np.array([[height, width]], np.float32)}
        for name in predictor.get_input_names():
            predictor.get_input_handle(name).copy_from_cpu(extra.get(name, image[None]))
        predictor.run()
        return [predictor.get_output_handle(name).copy_to_cpu() for name in predictor.get_output_names()]

    return run, f"paddle {paddle.__version__}"


def main() -> None:
    """Run every image, and write all outputs."""
    kind, source, target, *files = sys.argv[1:]
    images = np.load(source)
    run, version = paddle(*files) if kind == "paddle" else opencv(kind, *files)
    answers = [run(image) for image in images]
    outputs = {f"{i}_{row}": value for row, values in enumerate(answers) for i, value in enumerate(values)}
    np.savez(target, version=version, **outputs)


if __name__ == "__main__":
    main()
