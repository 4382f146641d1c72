"""What to install is said as the command that does it, wherever zooserve runs from."""

import pytest

from zoo import extras
from zoo.errors import MissingError


@pytest.mark.parametrize(
    ("extra", "command"),
    [
        ("export", "pip install 'zooserve[export]'"),
        ("cpu", "pip install 'zooserve[cpu]', or [gpu] for an NVIDIA GPU"),
        ("libreyolo", "pip install 'zooserve[libreyolo]', then pip install --no-deps 'libreyolo>=1.6'"),
        ("yolox", "pip install 'zooserve[yolox]', then pip install --no-deps 'pixeltable-yolox>=0.4.3'"),
    ],
)
def test_the_command_for_an_installed_package(monkeypatch, tmp_path, extra, command):
    monkeypatch.setattr(extras, "__file__", str(tmp_path / "site-packages" / "zoo" / "extras.py"))
    assert extras.install(extra) == command


def test_the_command_in_a_checkout(monkeypatch, tmp_path):
    checkout = tmp_path / "my sources"
    checkout.mkdir()
    (checkout / "pyproject.toml").write_text("")
    monkeypatch.setattr(extras, "__file__", str(checkout / "zoo" / "extras.py"))
    monkeypatch.chdir(checkout)
    assert extras.install("export") == "pip install -e '.[export]'"
    monkeypatch.chdir(tmp_path)
    assert extras.install("export") == f"pip install -e '{checkout}[export]'"


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        ("torch", "export"),
        ("torch.nn", "export"),
        ("google.protobuf", "export"),
        ("onnxruntime", "cpu"),
        ("opentelemetry.sdk", "tracing"),
        ("grpc_health", "grpc"),
        ("timm.models", "timm"),
        ("matplotlib.pyplot", "loadtests"),
        ("mlperf_loadgen", "loadtests"),
        ("locust", "loadtests"),
        ("atheris", "fuzz"),
        ("pyarrow.parquet", "score"),
        ("ray.data", "ray"),
        ("nvidia.nvimgcodec", "gpu-jpeg"),
        ("json", None),
        ("", None),
    ],
)
def test_the_extra_of_a_module_is_found(module, extra):
    assert extras.extra_of(module) == extra
    said = extras.missing(ModuleNotFoundError("No module", name=module))
    assert said is None if extra is None else said.endswith(extras.install(extra))
    assert said is None or said.startswith(f"this needs {module}, which is not installed: pip install -e ")


def test_required_modules_are_not_imported(monkeypatch):
    monkeypatch.setitem(extras._EXTRAS, "no_such_library", "loadtests")
    extras.require("json", "xml.dom")
    with pytest.raises(MissingError) as error:
        extras.require("json", "no_such_library", "neither_this")
    assert str(error.value) == f"this needs no_such_library, which is not installed: {extras.install('loadtests')}"
    with pytest.raises(MissingError, match="neither_this"):
        extras.require("neither_this")
