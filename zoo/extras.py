"""Which extra of zooserve brings a module that the base installation lacks: for messages that say what to install."""

_EXTRAS = (
    {"onnxruntime": "cpu` or `gpu", "libreyolo": "libreyolo`, then run `pip install --no-deps libreyolo"}
    | {library: library for library in ("timm", "ultralytics")}
    | dict.fromkeys(("onnx", "onnxscript", "tflite", "torch", "torchvision"), "export")
)


def extra_of(module: str) -> str | None:
    """Return the extra that brings `module` (`torch`, `tflite.Model`), or None where no extra does."""
    return _EXTRAS.get(module.partition(".")[0])
