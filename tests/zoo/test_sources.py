"""Files over HTTP, from the disk and from the cache."""

import errno
import gzip
import hashlib
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import msgspec
import pytest
import requests

from zoo.errors import SourceError
from zoo.model_card import Place, Source
from zoo.sources import address, fetch, fetch_all
from zoo.sources.cache import Cache

BODY = os.urandom(1_000_003)
DIGEST = hashlib.sha256(BODY).hexdigest()
OTHER = "0" * 64


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_a_url_is_fetched_once(server, cache):
    server.files["/net-1.pth"] = BODY
    source = Source(url=f"{server.url}/net-1.pth?raw=1", sha256=DIGEST)
    server.files["/net-1.pth?raw=1"] = BODY
    path = fetch(source)
    assert path == cache / DIGEST / "net-1.pth"
    assert path.read_bytes() == BODY
    assert fetch(source) == path
    assert len(server.seen) == 1
    assert files_in(cache) == [path]


def test_a_prefix_of_the_hash_is_enough(server, cache):
    server.files["/net.pth"] = BODY
    source = Source(url=f"{server.url}/net.pth", sha256_prefix=DIGEST[:8])
    assert fetch(source) == fetch(source) == cache / DIGEST / "net.pth"
    assert len(server.seen) == 1


@pytest.mark.parametrize("expected", [OTHER, "deadbeef"])
def test_another_file_is_refused_and_deleted(server, cache, expected):
    server.files["/net.pth"] = BODY
    known = {"sha256": expected} if len(expected) == 64 else {"sha256_prefix": expected}
    with pytest.raises(SourceError, match=f"its sha256 is {DIGEST}, expected {expected}"):
        fetch(Source(url=f"{server.url}/net.pth", **known))
    assert files_in(cache) == []


def start(wanted: str | None) -> int:
    return int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0


def test_a_broken_connection_is_resumed(server, cache):
    server.files["/net.pth"] = BODY
    server.break_after = [300_000, 1000, 0, 300_000]
    assert fetch(Source(url=f"{server.url}/net.pth", sha256=DIGEST)).read_bytes() == BODY
    starts = [start(wanted) for _, wanted in server.seen]
    assert starts == sorted(starts)
    assert starts[1] > 200_000
    assert starts[4] > 400_000


def test_a_connection_that_stalls_is_resumed(server, cache, monkeypatch):
    monkeypatch.setattr("zoo.sources.http._TIMEOUT", (1, 0.2))
    server.files["/net.pth"] = BODY
    server.stall_after = 300_000
    assert fetch(Source(url=f"{server.url}/net.pth", sha256=DIGEST)).read_bytes() == BODY
    assert start(server.seen[1][1]) > 200_000


def test_a_busy_server_is_retried(server, cache):
    server.files["/net.pth"] = BODY
    server.busy = 2
    assert fetch(Source(url=f"{server.url}/net.pth", sha256=DIGEST)).read_bytes() == BODY
    assert len(server.seen) == 3


def test_a_later_run_resumes_a_partial_download(server, cache):
    server.files["/net.pth"] = BODY
    server.break_after = [400_000, 0, 0, 0]
    source = Source(url=f"{server.url}/net.pth", sha256=DIGEST)
    with pytest.raises(SourceError, match=r"broke off after \d+ bytes.*Try again: it continues from there"):
        fetch(source)
    assert fetch(source).read_bytes() == BODY
    assert start(server.seen[-1][1]) > 300_000


def test_what_has_no_hash_yet_is_fetched_from_its_beginning(server, cache):
    """What is there may be the beginning of an older file, and nobody would see it."""
    server.files["/net.pth"] = BODY
    source = Source(url=f"{server.url}/net.pth", trust_first=True)
    Cache().part(source.url).write_bytes(b"older" * 1000)
    assert fetch(source).read_bytes() == BODY


def test_a_download_that_was_complete_but_not_yet_named_is_kept(server, cache):
    server.files["/net.pth"] = BODY
    source = Source(url=f"{server.url}/net.pth", sha256=DIGEST)
    Cache().part(source.url).write_bytes(BODY)
    assert fetch(source).read_bytes() == BODY


@pytest.mark.parametrize("stale", [b"older" * 1000, b"longer" * 1_000_000], ids=["shorter", "longer"])
def test_a_partial_download_of_another_file_is_deleted(server, cache, stale):
    server.files["/net.pth"] = BODY
    source = Source(url=f"{server.url}/net.pth", sha256=DIGEST)
    Cache().part(source.url).write_bytes(stale)
    assert fetch(source).read_bytes() == BODY


def test_a_server_without_ranges_starts_again(server, cache):
    server.files["/net.pth"] = BODY
    server.ranges = False
    server.break_after = [300_000]
    assert fetch(Source(url=f"{server.url}/net.pth", sha256=DIGEST)).read_bytes() == BODY


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:9/net.pth", "Connection refused"),
        ("http://user:secret@host.invalid/net.pth", "host.invalid/net.pth"),
    ],
)
def test_an_unreachable_server_is_an_error_with_alternatives(cache, url, reason):
    with pytest.raises(SourceError, match=reason) as error:
        fetch(Source(url=url, sha256=DIGEST))
    message = str(error.value)
    assert all(word in message for word in ("`file =", "`package`", "ZOOSERVE_MIRROR"))
    assert "secret" not in message


def test_a_missing_file_is_an_error_with_the_servers_status(server, cache):
    with pytest.raises(SourceError, match=r"/gone\.pth: the server answers 404"):
        fetch(Source(url=f"{server.url}/gone.pth", sha256=DIGEST))


def test_a_corrupted_cache_entry_is_fetched_again(server, cache):
    server.files["/net.pth"] = BODY
    source = Source(url=f"{server.url}/net.pth", sha256=DIGEST)
    path = fetch(source)
    path.write_bytes(BODY[:-1] + bytes([BODY[-1] ^ 1]))
    assert fetch(source).read_bytes() == BODY
    assert len(server.seen) == 2


def test_two_processes_download_once(server, cache):
    server.files["/net.pth"] = BODY
    code = (
        "from zoo.model_card import Source; from zoo.sources import fetch;"
        f"print(fetch(Source(url='{server.url}/net.pth', sha256='{DIGEST}')))"
    )
    runs = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert {run.communicate()[0].strip() for run in runs} == {str(cache / DIGEST / "net.pth")}
    assert len(server.seen) == 1


def test_a_local_file_stays_where_it_is(tmp_path, cache):
    path = tmp_path / "own.pt"
    path.write_bytes(BODY)
    assert fetch(Source(file=str(path), sha256=DIGEST)) == path
    assert not cache.exists() or files_in(cache) == []
    with pytest.raises(SourceError, match=f"own.pt is not the file that the card names: its sha256 is {DIGEST}"):
        fetch(Source(file=str(path), sha256=OTHER))
    with pytest.raises(SourceError, match=r"there is no file .*gone\.pt"):
        fetch(Source(file=str(tmp_path / "gone.pt"), sha256=DIGEST))


def test_several_files_are_returned_by_name(server, tmp_path, cache):
    server.files |= {"/a.cfg": b"a", "/b.weights": b"b"}
    (tmp_path / "c").write_bytes(b"c")
    sources = {
        "c": Source(file=str(tmp_path / "c"), sha256=hashlib.sha256(b"c").hexdigest()),
        "a": Source(url=f"{server.url}/a.cfg", sha256=hashlib.sha256(b"a").hexdigest()),
        "b": Source(url=f"{server.url}/b.weights", sha256=hashlib.sha256(b"b").hexdigest()),
    }
    found = fetch_all(sources)
    assert list(found) == ["c", "a", "b"]
    assert {name: path.read_bytes() for name, path in found.items()} == {"a": b"a", "b": b"b", "c": b"c"}


def test_progress_goes_to_standard_error(server, cache, capsys):
    server.files["/net.pth"] = BODY
    fetch(Source(url=f"{server.url}/net.pth", sha256=DIGEST))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "fetching net.pth (1.0 MB)" in captured.err
    server.files["/quiet.pth"] = b"quiet"
    fetch(Source(url=f"{server.url}/quiet.pth", sha256=hashlib.sha256(b"quiet").hexdigest()), progress=False)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (Source(url="https://user:pw@host/a.pth", sha256=OTHER), "https://host/a.pth"),
        (Source(package="A_b==1.0", member="m/x.pt", sha256=OTHER), "pkg:pypi/a-b@1.0#m/x.pt"),
        (Source(package="npm:@s/n@1.0", member="x.onnx", sha256=OTHER), "pkg:npm/%40s/n@1.0#x.onnx"),
        (Source(file="/somewhere/own.pt", sha256=OTHER), "file:own.pt"),
    ],
)
def test_address_of_each_kind_of_source(source, expected):
    assert address(source) == expected


@pytest.mark.parametrize("declared", [True, False], ids=["a length", "no length"])
@pytest.mark.parametrize("size", [1000, 700_000])
def test_a_download_stops_at_the_card_s_size(server, cache, monkeypatch, declared, size):
    server.files["/net.pth"] = BODY
    server.declares = declared
    written = 0
    chunks = requests.Response.iter_content

    def counted(response, chunk):
        nonlocal written
        for data in chunks(response, chunk):
            written += len(data)
            yield data

    monkeypatch.setattr(requests.Response, "iter_content", counted)
    with pytest.raises(SourceError, match=r"/net\.pth is not the expected file: it has .*bytes"):
        fetch(Source(url=f"{server.url}/net.pth", sha256=DIGEST, size=size))
    assert written <= (0 if declared else size + (1 << 16))
    assert files_in(cache) == []


def test_a_partial_download_larger_than_the_file_is_deleted(server, cache):
    server.files["/net.pth"] = BODY
    source = Source(url=f"{server.url}/net.pth", sha256=DIGEST, size=len(BODY))
    Cache().part(source.url).write_bytes(b"?" * (len(BODY) + 1))
    assert fetch(source).read_bytes() == BODY
    assert server.seen == [("/net.pth", None)]


@pytest.mark.timeout(20)
def test_a_partial_download_that_is_a_pipe_is_not_opened(server, cache):
    server.files["/net.pth"] = BODY
    source = Source(url=f"{server.url}/net.pth", sha256=DIGEST)
    os.mkfifo(Cache().part(source.url))
    (cache / DIGEST).mkdir()
    os.mkfifo(cache / DIGEST / "net.pth")
    with pytest.raises(SourceError, match="there is no file"):
        fetch(Source(file=str(cache / DIGEST / "net.pth"), sha256=DIGEST))
    assert fetch(source).read_bytes() == BODY


def test_a_download_of_unknown_size_is_limited(server, cache, monkeypatch):
    server.files["/net.pth"] = BODY
    monkeypatch.setattr("zoo.sources.http.LARGEST_FILE", 1000)
    with pytest.raises(SourceError, match="may have 1,000"):
        fetch(Source(url=f"{server.url}/net.pth", sha256=DIGEST))
    assert files_in(cache) == []


def test_a_compressed_answer_is_limited(server, cache):
    server.files["/net.pth"] = gzip.compress(bytes(100_000_000))
    server.headers["Content-Encoding"] = "gzip"
    with pytest.raises(SourceError, match="it has more than 1,000,000 bytes"):
        fetch(Source(url=f"{server.url}/net.pth", sha256=DIGEST, size=1_000_000))
    assert files_in(cache) == []


@pytest.mark.timeout(20)
@pytest.mark.parametrize("after", ["86400", "Fri, 31 Dec 9999 23:59:59 GMT", "soon", "-1", "\xb2"])
def test_the_wait_for_a_busy_server_is_limited(server, cache, monkeypatch, after):
    monkeypatch.setattr("zoo.sources.http._LONGEST_WAIT", 0.01)
    server.files["/net.pth"] = BODY
    server.busy = 2
    server.headers["Retry-After"] = after
    assert fetch(Source(url=f"{server.url}/net.pth", sha256=DIGEST)).read_bytes() == BODY


@pytest.mark.parametrize("length", ["\xb2", "1e3", "-1", "99999999999999999999"])
def test_an_invalid_content_length_raises_at_most_a_source_error(server, cache, length):
    server.files["/net.pth"] = BODY
    server.declares = False
    server.headers["Content-Length"] = length
    try:
        fetch(Source(url=f"{server.url}/net.pth", sha256=DIGEST))
    except SourceError:
        assert files_in(cache) == [] or length == "99999999999999999999"


@pytest.mark.parametrize(
    ("sent", "size", "expected"),
    [(BODY[:-1], len(BODY), "1,000,003"), (BODY[:1000], len(BODY), "1,0"), (b"", None, "mo")],
)
def test_without_a_hash_a_file_that_lacks_its_end_is_refused(server, cache, sent, size, expected):
    server.files["/net.pth"] = sent
    server.declares = False
    source = Source(url=f"{server.url}/net.pth", trust_first=True, size=size)
    with pytest.raises(SourceError, match=f"it has {len(sent):,} bytes, expected {expected}"):
        fetch(source)
    assert files_in(cache) == []
    server.files["/net.pth"] = BODY
    assert fetch(source).read_bytes() == BODY


def test_a_cache_that_cannot_be_written_is_named_with_a_remedy(server, cache, tmp_path, monkeypatch):
    server.files["/net.pth"] = BODY
    (tmp_path / "own.pth").write_bytes(BODY)
    source = Source(url=f"{server.url}/net.pth", sha256=DIGEST)
    with monkeypatch.context() as full:
        full.setattr("pathlib.Path.open", lambda _, mode: open("/dev/full", mode.replace("x", "w")))  # noqa: PTH123, SIM115
        with pytest.raises(
            SourceError, match=f"No space left on device: what is fetched is kept in {cache}.*ZOOSERVE_CA"
        ):
            fetch(source)
    (tmp_path / "file").touch()
    monkeypatch.setenv("ZOOSERVE_CACHE", str(tmp_path / "file"))
    with pytest.raises(
        SourceError, match=r"file/partial: Not a directory: what is fetched .* folder with ZOOSERVE_CACHE"
    ):
        fetch(source)
    with pytest.raises(SourceError, match=r"what is fetched is kept in .*file.*ZOOSERVE_CACHE"):
        Cache().keep("hub/lab/net.json", b"{}")
    own = Place(file=str(tmp_path / "own.pth"))
    assert fetch(msgspec.structs.replace(source, mirrors=(own,))).read_bytes() == BODY


def test_what_another_user_keeps_for_himself_is_fetched_again(server, cache, monkeypatch):
    server.files["/net.pth"] = BODY
    source = Source(url=f"{server.url}/net.pth", sha256=DIGEST)
    kept = fetch(source)
    opened = os.open

    def refuse(path, *rest, **more):
        if path == kept and len(server.seen) == 1:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(path, *rest, **more)

    monkeypatch.setattr("zoo.files.os.open", refuse)
    assert fetch(source).read_bytes() == BODY
    assert len(server.seen) == 2


def test_passwords_are_in_no_message(cache):
    with pytest.raises(SourceError, match="Failed to parse: http://127") as error:
        fetch(Source(url="http://me:secret@127.0.0.1:99999/net.pth", sha256=DIGEST))
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("name", [f"{'模' * 90}.pth", f"{'x' * 300}.pth"])
def test_a_name_that_is_too_long_keeps_its_end(server, cache, name):
    server.files[f"/{quote(name)}"] = BODY
    path = fetch(Source(url=f"{server.url}/{quote(name)}", sha256=DIGEST))
    assert path.read_bytes() == BODY
    assert path.suffix == ".pth"


def test_certificates_that_are_missing_are_not_blamed_on_the_cache(cache, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")
    with pytest.raises(SourceError, match=r"cannot fetch https://127.*TLS CA certificate bundle.*/nowhere/ca\.pem"):
        fetch(Source(url="https://127.0.0.1:9/net.pth", sha256=DIGEST))


def test_a_proxy_that_does_not_answer_is_named(cache, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://me:secret@127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(
        SourceError, match=r"fetch https://host\.example/net\.pth through the proxy .*: Connection refused"
    ):
        fetch(Source(url="https://host.example/net.pth", sha256=DIGEST))
