"""The commands that install missing libraries, for error messages."""

import importlib.util
import shlex
from pathlib import Path

from zoo.errors import MissingError

_EXTRAS = (
    {"onnxruntime": "cpu", "libreyolo": "libreyolo", "timm": "timm", "ultralytics": "ultralytics"}
    | {"transformers": "transformers", "yolox": "yolox"}
    | dict.fromkeys(("torch", "torchvision", "onnx", "onnxscript", "tflite", "ai_edge_litert", "google"), "export")
    | dict.fromkeys(("grpc", "grpc_health", "grpc_reflection"), "grpc")
    | dict.fromkeys(("locust", "matplotlib", "mlperf_loadgen"), "loadtests")
    | {"atheris": "fuzz", "opentelemetry": "tracing", "pyarrow": "score", "fsspec": "score", "ray": "ray"}
    | {"nvidia": "gpu-jpeg"}
)
_NOTES = {  # the dependencies of the last two include another OpenCV
    "cpu": ", or [gpu] for an NVIDIA GPU",
    "libreyolo": ", then pip install --no-deps 'libreyolo>=1.6'",
    "yolox": ", then pip install --no-deps 'pixeltable-yolox>=0.4.3'",
}


def extra_of(module: str) -> str | None:
    """Return the extra that installs `module` (`torch`, `tflite.Model`), or None if no extra does."""
    return _EXTRAS.get(module.partition(".")[0])


def install(extra: str) -> str:
    """Return the command that installs an extra of zooserve; in a checkout, from its sources."""
    root = Path(__file__).parent.parent
    if not (root / "pyproject.toml").is_file():
        return f"pip install {shlex.quote(f'zooserve[{extra}]')}{_NOTES.get(extra, '')}"
    here = "." if root == Path.cwd() else root
    return f"pip install -e {shlex.quote(f'{here}[{extra}]')}{_NOTES.get(extra, '')}"


def missing(error: ModuleNotFoundError) -> str | None:
    """Return the message for a module that is not installed; None if no extra installs it, which is a bug."""
    extra = extra_of(error.name or "")
    return extra and f"this needs {error.name}, which is not installed: {install(extra)}"


def installed(module: str) -> bool:
    """Return whether a module is installed, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its package is not installed
        return False


def require(*modules: str) -> None:
    """Check that modules are installed, without importing them. Called before long work that will need them.

    Raises:
        MissingError: one is not installed.
    """
    for module in modules:
        if not installed(module):
            error = ModuleNotFoundError(f"No module named {module!r}", name=module)
            raise MissingError(missing(error) or str(error))
