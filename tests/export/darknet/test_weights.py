from pathlib import Path

import numpy as np
import pytest

from export.darknet.weights import Header, WeightsReader
from zoo.errors import ExportError


def header(major: int, minor: int, seen: int) -> bytes:
    wide = major * 10 + minor >= 2
    return np.array([major, minor, 5], "<i4").tobytes() + np.array([seen], "<i8" if wide else "<i4").tobytes()


def write(folder: Path, *pieces: bytes) -> Path:
    path = folder / "net.weights"
    path.write_bytes(b"".join(pieces))
    return path


@pytest.mark.parametrize(("major", "minor", "seen"), [(0, 1, 32_013), (0, 2, 2**40), (1, 0, 7), (0, 0, 0)])
def test_header_versions(tmp_path, major, minor, seen):
    values = np.arange(6, dtype="<f4")
    reader = WeightsReader(write(tmp_path, header(major, minor, seen), values.tobytes()))
    assert reader.header == Header(major, minor, 5, seen)
    assert reader.total == 6
    np.testing.assert_array_equal(reader.take((2, 3), "kernel", "[convolutional]"), values.reshape(2, 3))
    reader.finish("[convolutional]")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "does not begin with the version numbers"),
        (header(0, 2, 1)[:17], "does not begin with the version numbers"),
        (b"PK\x03\x04" + bytes(60), "does not begin with the version numbers"),
        (b"\x80\x02\x8a\x0a" + b"\xff" * 60, "does not begin with the version numbers"),
        (header(0, 2, 1) + bytes(10), "10 bytes after the header are no whole number of 4-byte floats"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    with pytest.raises(ExportError, match=message):
        WeightsReader(write(tmp_path, content))


def test_a_missing_file_is_an_export_error(tmp_path):
    with pytest.raises(ExportError, match=r"net\.weights: No such file"):
        WeightsReader(tmp_path / "net.weights")


def test_too_few_left_over_and_not_finite(tmp_path):
    values = np.ones(2000, "<f4")
    values[1200] = np.inf
    reader = WeightsReader(write(tmp_path, header(0, 2, 1), values.tobytes()))
    reader.take((1000,), "kernel", "[convolutional] at line 7 (layer 0)")
    with pytest.raises(
        ExportError, match=r"1,000 of the file's 2,000 floats are left over after .* line 7 \(layer 0\)"
    ):
        reader.finish("[convolutional] at line 7 (layer 0)")
    with pytest.raises(ExportError, match=r"line 9 needs 1,001 floats for its kernel, but only 1,000 of the"):
        reader.take((7, 11, 13), "kernel", "[convolutional] at line 9")
    with pytest.raises(ExportError, match=r"rolling means of .* line 9 \(floats 1,000 to 1,500\) are not all finite"):
        reader.take((500,), "rolling means", "[convolutional] at line 9")
