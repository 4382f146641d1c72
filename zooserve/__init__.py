"""One line in a notebook: a model of the zoo as a function.

    from zooserve import load

    model = load("yolov4_tiny")
    result = model("photo.jpg")
    result.boxes, result.labels, result.plot()

It is `zooserve` and not `zooserve_client`, which needs no models, no ONNX Runtime and no OpenCV, and stays that small.
"""

from zooserve.models import Answer, LocalModel, Model, RemoteModel, load

__all__ = ["Answer", "LocalModel", "Model", "RemoteModel", "load"]
