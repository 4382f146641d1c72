"""What a hub says of a file: asked once, from a server that answers as Hugging Face's does."""

import gzip
import json
import os

import pytest

from zoo.errors import SourceError
from zoo.sources import hub
from zoo.sources.hub import look_up

COMMIT, DIGEST = "c" * 40, "d" * 64


def model(licence: object = "apache-2.0", **changes) -> bytes:
    """The fields that matter here, and two of the many others."""
    siblings = [
        {"rfilename": "README.md", "size": 3, "blobId": "b" * 40},
        {"rfilename": "Net.pt", "size": 7, "lfs": {"sha256": DIGEST, "size": 7, "pointerSize": 132}},
    ]
    answer = {"id": "lab/Net", "private": False, "sha": COMMIT, "cardData": {"license": licence}, "siblings": siblings}
    return json.dumps(answer | changes).encode()


@pytest.fixture
def net(server, cache, monkeypatch):
    """A hub that has the repository lab/Net."""
    monkeypatch.setenv("HF_ENDPOINT", f"{server.url}/")
    server.files["/api/models/lab/Net?blobs=true"] = model()
    return server


def test_a_file_is_pinned_at_its_commit(net):
    found = look_up("lab/Net", "Net.pt")
    assert found.source.url == f"{net.url}/lab/Net/resolve/{COMMIT}/Net.pt"
    assert (found.source.sha256, found.source.size, found.licence) == (DIGEST, 7, "Apache-2.0")


def test_the_first_download_of_a_file_in_git_is_trusted(net):
    found = look_up("lab/Net", "README.md")
    assert found.source.url == f"{net.url}/lab/Net/resolve/{COMMIT}/README.md"
    assert (found.source.sha256, found.source.trust_first, found.source.size) == (None, True, 3)


def test_the_first_answer_is_cached(net):
    first = look_up("lab/Net", "Net.pt")
    net.files["/api/models/lab/Net?blobs=true"] = model(sha="e" * 40)
    assert look_up("lab/Net", "Net.pt") == first
    assert len(net.seen) == 1


@pytest.mark.parametrize(
    ("said", "licence"),
    [
        ("mit", "MIT"),
        ("cc-by-nc-4.0", "CC-BY-NC-4.0"),
        ("agpl-3.0", "AGPL-3.0-only"),
        ("openrail", "LicenseRef-openrail"),
        ("other", "LicenseRef-unknown"),
        (None, "LicenseRef-unknown"),
        (["mit", "other"], "LicenseRef-unknown"),
    ],
)
def test_licences_become_spdx_identifiers(net, said, licence):
    net.files["/api/models/lab/Net?blobs=true"] = model(said)
    assert look_up("lab/Net", "Net.pt").licence == licence


def test_without_a_card_the_licence_is_unknown(net):
    net.files["/api/models/lab/Net?blobs=true"] = model(cardData=None)
    assert look_up("lab/Net", "Net.pt").licence == "LicenseRef-unknown"


@pytest.mark.parametrize(
    ("repository", "filename", "message"),
    [
        ("lab/Net", "Other.pt", r"lab/Net has no file 'Other\.pt'; it has README\.md, Net\.pt"),
        ("lab/None", "Net.pt", r"cannot fetch http.*/api/models/lab/None.*: the server answers 404.* set HF_ENDPOINT"),
        ("lab/Page", "Net.pt", "does not answer as a model hub"),
    ],
)
def test_missing_files_and_invalid_answers_are_errors(net, repository, filename, message):
    net.files["/api/models/lab/Page?blobs=true"] = b"<html>"
    with pytest.raises(SourceError, match=message):
        look_up(repository, filename)


def test_a_hub_s_password_is_in_no_message(net, monkeypatch):
    net.password = "secret"
    monkeypatch.setenv("HF_ENDPOINT", net.url.replace("//", "//me:secret@"))
    with pytest.raises(SourceError, match=r"^http://127.*/lab/Net has no file") as error:
        look_up("lab/Net", "Other.pt")
    assert "secret" not in str(error.value)


def test_an_unreachable_hub_is_an_error(cache, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(SourceError, match=r"cannot fetch http://127\.0\.0\.1:9/api/models/lab/Net.*`file = "):
        look_up("lab/Net", "Net.pt")
    assert not (hub.Cache().root / "hub").exists()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (model() + b" " * 2_000_000, "the answer has more than 1,000,000 bytes"),
        (b'{"x":' + b"[" * 200_000, "does not answer as a model hub"),
        (gzip.compress(bytes(50_000_000), mtime=0), "the answer has more than 1,000,000 bytes"),
    ],
    ids=["long", "nested", "packed"],
)
def test_answers_are_limited(net, monkeypatch, answer, message):
    monkeypatch.setattr("zoo.sources.http._LARGEST_ANSWER", 1_000_000)
    net.files["/api/models/lab/Net?blobs=true"] = answer
    if answer[:2] == b"\x1f\x8b":
        net.headers["Content-Encoding"] = "gzip"
    with pytest.raises(SourceError, match=message):
        look_up("lab/Net", "Net.pt")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kept", [b"{", b"[" * 200_000, None], ids=["cut off", "nested", "a pipe"])
def test_an_unreadable_cached_answer_is_fetched_again(net, kept):
    found = look_up("lab/Net", "Net.pt")
    path = hub.Cache().root / hub._kept("lab/Net", "Net.pt")
    path.unlink()
    path.write_bytes(kept) if kept is not None else os.mkfifo(path)
    assert look_up("lab/Net", "Net.pt") == found
    assert len(net.seen) == 2
