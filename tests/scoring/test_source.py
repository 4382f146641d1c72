"""Folders, globs and lists: every image once, nothing else, and what is wrong in one sentence."""

import json
import os
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from scoring.source import images_of
from scoring.storage import StorageError


@pytest.fixture
def tree(tmp_path):
    names = [
        "b.jpg",
        "a.PNG",
        "sub/c.webp",
        "sub/deep/d.tif",
        "notes.txt.bak",
        ".hidden.jpg",
        ".git/e.jpg",
        "f.jpg.part",
    ]
    for name in names:
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path / "tree"


def relative(found, folder):
    return [address.removeprefix(f"{folder}/") for address in found]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", ["a.PNG", "b.jpg", "sub/c.webp", "sub/deep/d.tif"]),
        ("/*.jpg", ["b.jpg"]),
        ("/**/*.tif", ["sub/deep/d.tif"]),
        ("/[ab].*", ["a.PNG", "b.jpg"]),
        ("/*", ["a.PNG", "b.jpg"]),
        ("/**", ["a.PNG", "b.jpg", "sub/c.webp", "sub/deep/d.tif"]),
        ("/**/*", ["a.PNG", "b.jpg", "sub/c.webp", "sub/deep/d.tif"]),
        ("/s*/**/*.[tw]*", ["sub/c.webp", "sub/deep/d.tif"]),
        ("/b.jpg", ["b.jpg"]),
    ],
)
def test_folders_globs_and_images(tree, pattern, expected):
    assert sorted(relative(images_of(f"{tree}{pattern}"), tree)) == expected


@pytest.mark.parametrize("pattern", ["", "/**/*.jpg"])
def test_links_in_circles_are_not_followed(tree, pattern):
    for name in ("one", "other"):
        (tree / "sub" / name).symlink_to(tree)
    assert "b.jpg" in relative(images_of(f"{tree}{pattern}"), tree)
    assert len(list(images_of(f"{tree}{pattern}"))) < 5


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("mark.txt", "\ufeffa.jpg\nb.jpg\n"),
        ("mark.csv", "\ufeffpath,n\na.jpg,1\nb.jpg,2\n"),
        ("mark.jsonl", '\ufeff{"path": "a.jpg"}\n{"path": "b.jpg"}\n'),
        ("captions.csv", 'path,caption\na.jpg,"two\nlines"\n' + 'b.jpg,"a ""quoted""\nline"\n'),
        ("blank.csv", "\n\npath,n\na.jpg,1\nb.jpg,2\n"),
        ("latin.csv", b"path,place\na.jpg,caf\xe9\nb.jpg,caf\xe9\n"),
        ("numbers.csv", "path,n\n" + "a.jpg,1\n" * 200_000 + "b.jpg,none\n"),
    ],
)
def test_lists_as_other_programs_write_them(tmp_path, name, content):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert dict.fromkeys(images_of(str(tmp_path / name))) == {f"{tmp_path}/a.jpg": None, f"{tmp_path}/b.jpg": None}


@pytest.mark.parametrize("suffix", ["txt", "csv", "jsonl", "parquet"])
def test_lists(tmp_path, suffix):
    addresses = ["one.jpg", "/elsewhere/two.jpg", "https://host/three.jpg", "s3://bucket/four five.jpg"]
    table = pa.table({"n": [1, 2, 3, 4], "path": addresses})
    path = tmp_path / f"list.{suffix}"
    if suffix == "txt":
        path.write_text("\n".join(["", *addresses]) + "\n\n")
    elif suffix == "csv":
        csv.write_csv(table, path)
    elif suffix == "parquet":
        parquet.write_table(table, path)
    else:
        path.write_text("\n".join(json.dumps({"n": 1, "path": address}) for address in addresses))
    assert list(images_of(str(path))) == [f"{tmp_path}/one.jpg", *addresses[1:]]


def test_a_folder_may_be_named_as_a_list(tmp_path):
    (tmp_path / "x.csv").mkdir()
    (tmp_path / "x.csv" / "a.jpg").write_bytes(b"x")
    for source in (f"{tmp_path}/x.csv", f"{tmp_path}/x.csv/"):
        assert list(images_of(source)) == [f"{tmp_path}/x.csv/a.jpg"]


@pytest.mark.parametrize("query", ["", "?token=a/b.c", "#part"])
def test_an_address_with_a_token_is_a_list_or_an_image(monkeypatch, query):
    monkeypatch.setattr("scoring.source.fetch", lambda *_: b"path\nnear/a.jpg\nhttps://elsewhere/b.jpg?c\n")
    found = list(images_of(f"https://host/lists/list.csv{query}"))
    assert found == ["https://host/lists/near/a.jpg", "https://elsewhere/b.jpg?c"]
    assert list(images_of(f"https://host/a.jpg{query}")) == [f"https://host/a.jpg{query}"]
    with pytest.raises(StorageError, match="cannot be listed over https"):
        list(images_of(f"https://host/folder{query}"))


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("gone", None, "no such folder, list or image"),
        ("gone/*.jpg", None, "gone/: No such file or directory"),
        ("gone.txt", None, "^/[^:]*/gone.txt: No such file or directory$"),
        ("list.tsv", "path\ta.jpg\n", "neither that of an image .* nor a list .*.csv"),
        ("list.jsonl.gz", "", "neither that of an image"),
        ("a.csv", "n,file\n1,a.jpg\n", "no column `path` .there are n, file"),
        ("a.csv", "n,file\n1,a.jpg\n", "--column"),
        ("a.jsonl", '{"file": "a"}\n', "--column"),
        ("a.jsonl", "{", "truncated"),
        ("a.jsonl", '{"path": "a.jpg"}\n{"path": 3}\n', "row 2 has 3 in `path`"),
        ("a.csv", "", "no column `path`"),
        ("a.csv", '"' + "x" * 200_000, "first line cannot be read"),
        ("a.parquet", "no", "Parquet"),
        ("**.jpg", None, "entire path component"),
    ],
)
def test_what_cannot_be_listed_is_said(tmp_path, name, content, complaint):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(StorageError, match=complaint):
        list(images_of(str(tmp_path / name)))


def test_what_is_no_address_is_said():
    with pytest.raises(StorageError, match="Invalid IPv6"):
        list(images_of("file://[x"))


def test_a_long_list_is_whole(tmp_path):
    """Two readers of one file took some of each other's bytes, in about every second list of this length."""
    caption, count = "word " * 60, 36_000
    with (tmp_path / "long.csv").open("w") as file:
        file.write("path,caption\n")
        file.writelines(f'/photos/{number}.jpg,"{caption}"\n' for number in range(count))
    for _ in range(8):
        found = list(images_of(str(tmp_path / "long.csv")))
        assert found == [f"/photos/{number}.jpg" for number in range(count)]


def test_a_link_to_nothing_that_a_glob_finds_is_an_address(tree):
    (tree / "c.jpg").symlink_to(tree / "gone.jpg")
    (tree / "folder.jpg").mkdir()
    assert sorted(relative(images_of(f"{tree}/*.jpg"), tree)) == ["b.jpg", "c.jpg"]


@pytest.mark.parametrize("target", ["c.jpg", "gone.jpg", "closed/a.jpg"])
def test_a_bad_link_is_an_address_and_its_neighbours_are_too(tree, target, monkeypatch):
    """To itself, to nothing, and into a folder that may not be entered."""
    stat = os.stat
    monkeypatch.setattr(os, "stat", lambda path, **how: _closed(path) if "c.jpg" in str(path) else stat(path, **how))
    for folder in (tree, tree / "sub"):
        (folder / "c.jpg").symlink_to(folder / target)
    found = relative(images_of(str(tree)), tree)
    assert found == ["a.PNG", "b.jpg", "c.jpg", "sub/c.jpg", "sub/c.webp", "sub/deep/d.tif"]


def _closed(path):
    raise PermissionError(13, "Permission denied", path)


@pytest.mark.parametrize(("pattern", "expected"), [("/*/*.webp", ["sub"]), ("/*/*/*.tif", ["sub", "sub/deep/d.tif"])])
def test_an_unreadable_folder_that_a_glob_finds_is_an_address_of_its_own(tree, monkeypatch, pattern, expected):
    (tree / "sub/c.webp").unlink()
    monkeypatch.setattr(os, "access", lambda path, _: not path.endswith("/sub/"))
    assert relative(images_of(f"{tree}{pattern}"), tree) == expected


def test_an_unreadable_folder_below_is_an_address_of_its_own(tree, monkeypatch):
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("/sub"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert relative(images_of(str(tree)), tree) == ["a.PNG", "b.jpg", "sub"]


@pytest.mark.parametrize(
    ("name", "source"), [(b"\xff.jpg", b""), (b"\xff/50% #1?.jpg", b""), (b"\xff/50% #1?.jpg", b"\xff/list.txt")]
)
def test_a_name_that_is_not_utf8_has_an_address(tmp_path, name, source):
    from scoring.fetch import fetch

    path, given = (Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + each)) for each in (name, source))
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"data")
    if source:
        given.write_text(f"{path.name}\n")
    (address,) = images_of(str(given))
    assert address.startswith("file://")
    assert fetch(address, 100, 1.0) == b"data"
