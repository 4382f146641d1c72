"""Writes the graphs of `service.vision.gpu_resize`: `python -m tests.service.vision.resize_graphs`.

Values are centred around the padding, so that where there is no weight the padding remains.
"""

from pathlib import Path

from onnx.parser import parse_model

FOLDER = Path(__file__).parents[3] / "service/vision/graphs"
_GRAPH = """
<ir_version: 8, opset_import: ["": 18]>
resize (uint8[h, w, 3] image, float[w, W] across, float[H, h] down, float[3, 1, 1] pad) => (uint8[H, W, 3] resized)
{{
    low = Constant<value = float {{0.0}}>()
    high = Constant<value = float {{255.0}}>()
    values = Cast<to = 1>(image)
    planes = Transpose<perm = [2, 0, 1]>(values)
    centred = Sub(planes, pad)
    first = MatMul({first})
    first_padded = Add(first, pad)
    {between}
    between_centred = Sub(between, pad)
    second = MatMul({second})
    second_padded = Add(second, pad)
    rounded = Round(second_padded)
    clipped = Clip(rounded, low, high)
    pixels = Transpose<perm = [1, 2, 0]>(clipped)
    resized = Cast<to = 2>(pixels)
}}
"""
_BETWEEN = {
    "": "between = Identity(first_padded)",
    "_rounded": "between_rounded = Round(first_padded) between = Clip(between_rounded, low, high)",
}
_ORDERS = {
    "across_first": ("centred, across", "down, between_centred"),
    "down_first": ("down, centred", "between_centred, across"),
}


def graphs() -> dict[str, bytes]:
    """The graphs, by the names of their files."""
    return {
        f"{order}{rounding}.onnx": parse_model(
            _GRAPH.format(between=between, first=first, second=second)
        ).SerializeToString()
        for order, (first, second) in _ORDERS.items()
        for rounding, between in _BETWEEN.items()
    }


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, graph in graphs().items():
        (FOLDER / name).write_bytes(graph)
