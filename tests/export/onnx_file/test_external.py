"""Weights in files beside an ONNX file: joined from wherever in it they are named, and nothing else is read."""

import os
import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from export.onnx_file.external import data_files, find_data_files, join, load
from export.onnx_file.reading import open_session, read
from export.tensor_graph import read_graph
from tests.service.hostile_models import KINDS_OF_REFERENCE, SIDE, with_external_data
from zoo.errors import ExportError


@pytest.fixture
def write(tmp_path):
    """Write a graph whose weights, ones, are said to be at `location`, and the file `w.bin` that holds them."""

    def make(location="w.bin", kind="initializer", **entries):
        model = onnx.load_from_string(with_external_data(kind, location))
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                entry.value = str(entries.get(entry.key, entry.value))
        folder = tmp_path / "folder"
        folder.mkdir()
        (folder / "w.bin").write_bytes(np.ones(SIDE, np.float32).tobytes())
        path = folder / "net.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    return make


@pytest.mark.parametrize("kind", KINDS_OF_REFERENCE)
def test_weights_are_joined_from_wherever_they_are_named(write, kind):
    path = write(kind=kind)
    (path.parent / "w.bin").write_bytes(np.full(SIDE, 3, np.float32).tobytes())
    found = find_data_files(path)
    assert found == {"data": path.parent / "w.bin"}
    model = load(path)
    assert join(model, path, found.values())
    (path.parent / "w.bin").unlink()
    session = open_session(model.SerializeToString())
    feeds = {session.get_inputs()[0].name: np.ones((1, SIDE), np.float32)}
    assert session.run(None, feeds)[0].tolist() == [[3.0] * SIDE]


def outside(path):
    (path.parent.parent / "w.bin").write_bytes(b"1" * 100)
    (path.parent / "sub").mkdir()
    (path.parent / "sub" / "w.bin").write_bytes(b"1" * 100)


def replaced(make):
    def change(path):
        (path.parent / "w.bin").unlink()
        make(path.parent / "w.bin")

    return change


@pytest.mark.parametrize(
    ("location", "change", "says"),
    [
        ("../w.bin", outside, "is not a file beside it"),
        ("sub/w.bin", outside, "is not a file beside it"),
        ("sub\\w.bin", outside, "is not a file beside it"),
        ("/etc/hostname", None, "is not a file beside it"),
        ("", None, "is not a file beside it"),
        ("..", None, "is not a file beside it"),
        ("w\0.bin", None, "is not a file beside it"),
        ("v.bin", None, "'v.bin', which cannot be read: No such file"),
        ("w.bin", replaced(lambda path: path.symlink_to("/etc/hostname")), "is a link"),
        ("w.bin", replaced(lambda path: path.symlink_to("net.onnx")), "is a link"),
        ("w.bin", replaced(os.mkfifo), "is not a regular file"),
        ("w.bin", replaced(lambda path: path.mkdir()), "is not a regular file"),
    ],
)
def test_only_regular_files_beside_it_are_read(write, location, change, says):
    path = write(location)
    if change is not None:
        change(path)
    with pytest.raises(ExportError, match=r"net\.onnx: keeps weights in .*" + re.escape(says)):
        find_data_files(path)


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({"offset": -4}, "not of one export"),
        ({"offset": 4}, "has 16 bytes from 4 on in 'w.bin', which has 16"),
        ({"length": 17}, "not of one export"),
        ({"length": -1}, "not of one export"),
        ({"offset": 1 << 70}, "not of one export"),
        ({"offset": "x"}, "cannot be read"),
        ({"length": 3}, "not an ONNX file that can be run"),  # ONNX Runtime counts them
    ],
)
def test_places_that_are_not_in_the_file_are_refused(write, entries, says):
    path = write(**entries)
    with pytest.raises(ExportError, match=says):
        read(path, find_data_files(path).values())


def test_more_than_one_file_can_hold_is_refused_before_it_is_read(write):
    """The file is sparse: it takes no room, and reading it would take 2 GB of memory."""
    path = write(length=(1 << 31) - 1)
    os.truncate(path.parent / "w.bin", 1 << 31)
    with pytest.raises(ExportError, match=r"with its weights it has 2\.1 GB.* half precision"):
        read(path, find_data_files(path).values())


def test_a_hundred_files_and_no_more(tmp_path):
    tensors = []
    for number in range(101):
        tensor = TensorProto(name=f"w{number}", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value=f"w{number}")
        (tmp_path / f"w{number}").write_bytes(b"\0" * 4)
        tensors.append(tensor)
    graph = helper.make_graph([], "net", [], [], tensors[:100])
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph), path)
    found = find_data_files(path)
    assert len(found) == len(data_files(found | {"weights": path, "sample": path})) == 100
    graph.initializer.append(tensors[100])
    onnx.save(helper.make_model(graph), path)
    with pytest.raises(ExportError, match=r"in 101 other files.*save it as one file"):
        find_data_files(path)


def test_a_file_that_the_card_does_not_name_is_not_read(write):
    path = write()
    for reader in (read, read_graph):
        with pytest.raises(ExportError, match=r"in another file, 'w\.bin', which the card does not name"):
            reader(path)
