"""What to install where a library is missing: the exact command, for every message that says so."""

import shlex
from pathlib import Path

_EXTRAS = (
    {"onnxruntime": "cpu", "libreyolo": "libreyolo", "timm": "timm", "ultralytics": "ultralytics"}
    | dict.fromkeys(("torch", "torchvision", "onnx", "onnxscript", "tflite", "ai_edge_litert", "google"), "export")
    | dict.fromkeys(("grpc", "grpc_health", "grpc_reflection"), "grpc")
    | {"opentelemetry": "tracing"}
)
_NOTES = {
    "cpu": ", or [gpu] for an NVIDIA GPU",
    "libreyolo": ", then pip install --no-deps 'libreyolo>=1.6'",  # which would bring an OpenCV of its own
}


def extra_of(module: str) -> str | None:
    """Return the extra that brings `module` (`torch`, `tflite.Model`), or None where no extra does."""
    return _EXTRAS.get(module.partition(".")[0])


def install(extra: str) -> str:
    """The command that installs an extra of zooserve: of these sources, where it runs from a checkout of them."""
    root = Path(__file__).parent.parent
    if not (root / "pyproject.toml").is_file():
        return f"pip install {shlex.quote(f'zooserve[{extra}]')}{_NOTES.get(extra, '')}"
    here = "." if root == Path.cwd() else root
    return f"pip install -e {shlex.quote(f'{here}[{extra}]')}{_NOTES.get(extra, '')}"


def missing(error: ModuleNotFoundError) -> str | None:
    """What to say where a module could not be imported; None where no extra brings it, which is a fault of ours."""
    extra = extra_of(error.name or "")
    return extra and f"this needs {error.name}, which is not installed: {install(extra)}"
