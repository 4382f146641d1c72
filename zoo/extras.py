"""What to install where a library is missing: the exact command, for every message that says so."""

import importlib.util
import shlex
from pathlib import Path

from zoo.errors import MissingError

_EXTRAS = (
    {"onnxruntime": "cpu", "libreyolo": "libreyolo", "timm": "timm", "ultralytics": "ultralytics"}
    | dict.fromkeys(("torch", "torchvision", "onnx", "onnxscript", "tflite", "ai_edge_litert", "google"), "export")
    | dict.fromkeys(("grpc", "grpc_health", "grpc_reflection"), "grpc")
    | dict.fromkeys(("locust", "matplotlib", "mlperf_loadgen"), "loadtests")
    | {"atheris": "fuzz", "opentelemetry": "tracing"}
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
    """What to say where a module could not be imported; None where no extra brings it, which is a bug."""
    extra = extra_of(error.name or "")
    return extra and f"this needs {error.name}, which is not installed: {install(extra)}"


def installed(module: str) -> bool:
    """Whether a module is installed; it is not imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # nor is its package
        return False


def require(*modules: str) -> None:
    """Check that modules are installed, without importing them: before long work that needs them at its end.

    Raises:
        MissingError: one is not, with the command that installs it.
    """
    for module in modules:
        if not installed(module):
            error = ModuleNotFoundError(f"No module named {module!r}", name=module)
            raise MissingError(missing(error) or str(error))
