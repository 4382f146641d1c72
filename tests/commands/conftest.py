"""The fixtures of the importer's tests."""

from tests.export.importer.conftest import make_model_fixture, make_onnx, make_table, names, run

__all__ = ["make_model_fixture", "make_onnx", "make_table", "names", "run"]
