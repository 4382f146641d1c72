"""The label files: complete, and in the order of the checkpoints' class ids."""

import os

import pytest
from torchvision.models._meta import _IMAGENET_CATEGORIES

from zoo.errors import CardError
from zoo.labels import read_labels


@pytest.mark.parametrize(
    ("name", "count", "known"),
    [
        ("imagenet1k", 1000, {0: "tench", 285: "Egyptian cat", 967: "espresso", 999: "toilet tissue"}),
        ("imagenet1k_wordnet", 1000, {0: "n01440764", 285: "n02124075", 967: "n07920052", 999: "n15075141"}),
        ("coco80", 80, {0: "person", 15: "cat", 41: "cup", 79: "toothbrush"}),
        ("voc21", 21, {0: "background", 1: "aeroplane", 8: "cat", 20: "tvmonitor"}),
        ("digits", 10, {0: "0", 7: "7"}),
        ("salient", 2, {0: "background", 1: "salient object"}),
    ],
)
def test_labels_are_complete_and_in_order(name, count, known):
    labels = read_labels(name)
    assert len(labels) == count
    assert len(set(labels)) == count
    assert {class_id: labels[class_id] for class_id in known} == known


def test_imagenet_names_are_those_of_torchvision():
    assert read_labels("imagenet1k") == tuple(_IMAGENET_CATEGORIES)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(CardError, match=r"no labels called 'coco81': use one of coco80, digits"):
        read_labels("coco81")


def test_an_empty_line_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "two.txt").write_text("cat\n\ndog\n")
    monkeypatch.setattr("zoo.labels._FOLDER", tmp_path)
    with pytest.raises(CardError, match=r"two\.txt: line 2 is empty"):
        read_labels("two")


def test_your_label_file_is_read(tmp_path):
    path = tmp_path / "birds.txt"
    path.write_text("robin\nwren\n")
    assert read_labels(str(path)) == ("robin", "wren")
    with pytest.raises(CardError, match=r"none\.txt does not exist"):
        read_labels(str(tmp_path / "none.txt"))


def test_label_files_in_other_encodings(tmp_path):
    path = tmp_path / "birds.txt"
    path.write_bytes("\ufeffgrèbe\r\nwren\r\n".encode())
    assert read_labels(str(path)) == ("grèbe", "wren")
    for encoding in ("utf-16", "utf-8-sig", "utf-8"):
        for end in ("\n", "\r\n", "\r"):
            path.write_bytes(f"grèbe{end}杯子\u2028{end}".encode(encoding))
            assert read_labels(str(path)) == ("grèbe", "杯子\u2028")
    path.write_bytes("grèbe\n".encode("latin-1"))
    with pytest.raises(CardError, match=r"birds\.txt is not in UTF-8"):
        read_labels(str(path))


@pytest.mark.timeout(10)
def test_a_pipe_or_a_too_large_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    with (tmp_path / "large.txt").open("wb") as file:
        file.truncate(1 << 40)
    for name, message in (("pipe.txt", "pipe.txt"), ("large.txt", "more than the 4,000,000 bytes")):
        with pytest.raises(CardError, match=message):
            read_labels(str(tmp_path / name))


def test_a_json_list_of_names_is_read(tmp_path):
    path = tmp_path / "birds.json"
    path.write_text('["grèbe", "", "two\\nlines"]', encoding="utf-8")
    assert read_labels(str(path)) == ("grèbe", "", "two\nlines")
    for wrong in ('{"0": "a"}', "[1]", "[", ""):
        path.write_text(wrong)
        with pytest.raises(CardError, match=r"birds\.json: expected a list of class names"):
            read_labels(str(path))
