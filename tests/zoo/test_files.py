"""Files and names that others chose."""

import os

import pytest

from zoo.files import open_regular, read_regular, sha256_of, shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("net-1.0 ä 日本", "net-1.0 ä 日本"),
        ("a\nb\r\x1b[31m\x00\x7f", r"a\nb\r\x1b[31m\x00\x7f"),
        ("\u202eexe\u2028\x9b", r"\u202eexe\u2028\x9b"),
        ("\udcff", r"\udcff"),
        ("x" * 300, "x" * 197 + "..."),
        ("\n" * 300, None),
    ],
)
def test_names_are_shown_in_one_line(text, expected):
    line = shown(text)
    assert line.isprintable()
    assert len(line) <= 200
    assert expected is None or line == expected


@pytest.mark.timeout(10)
@pytest.mark.parametrize("read", [open_regular, read_regular, sha256_of])
def test_pipes_folders_and_devices_are_not_opened(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, tmp_path.__class__("/dev/zero")):
        with pytest.raises(OSError, match=r"not a regular file|Is a directory"):
            read(path)


def test_reading_is_limited(tmp_path):
    (tmp_path / "card").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("card")
    assert read_regular(tmp_path / "link", 5) == b"12345"
    with pytest.raises(OSError, match="more than the 4 bytes"):
        read_regular(tmp_path / "card", 4)
