"""The fixtures of the importer's tests."""

import pytest

from tests.export.importer.conftest import make_model_fixture, make_onnx, make_table, names, run

__all__ = ["make_model_fixture", "make_onnx", "make_table", "names", "run"]


@pytest.fixture(scope="session", autouse=True)
def _converted_once(conversions):
    """These commands convert what tests of the exporter convert, too."""
