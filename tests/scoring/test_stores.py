"""A store of fsspec that does not answer is not an empty one, whatever its library raises."""

import json
from typing import ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from pyarrow import fs

from scoring.fetch import UnreadableError
from scoring.plan import FOLDER, Plans
from scoring.source import images_of
from scoring.storage import Folder, StorageError, public_address


class Failing(MemoryFileSystem):
    """A store in memory, whose folders with names in `bad` cannot be asked about."""

    protocol = ("failing",)
    bad: ClassVar[dict[str, Exception]] = {}

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("failing://"))

    def ls(self, path, detail=True, **how):
        for name, error in self.bad.items():
            if name in path:
                raise error
        return super().ls(path, detail, **how)

    def info(self, path, **how):
        for name, error in self.bad.items():
            if name in path:
                raise error
        return super().info(path, **how)


@pytest.fixture
def store(monkeypatch):
    fsspec.register_implementation("failing", Failing, clobber=True)
    for name, empty in (("store", {}), ("pseudo_dirs", [""]), ("bad", {})):
        monkeypatch.setattr(Failing, name, empty)
    return Failing()


ERRORS = [ConnectionResetError(104, "Connection reset by peer"), PermissionError("denied"), RuntimeError("expired")]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_plans_that_cannot_be_listed_are_not_overwritten(store, error):
    out = Folder("failing://bucket/results")
    assert Plans(out).rows == 0
    Plans(out).extend(["a.jpg"], 4)
    before = store.find("/bucket/results", detail=False)
    Failing.bad[FOLDER] = error
    for ask in (lambda: Plans(out), lambda: out.empty(FOLDER)):
        with pytest.raises(StorageError, match=error.args[-1]):
            ask()
    Failing.bad.clear()
    assert store.find("/bucket/results", detail=False) == before
    assert Plans(out).rows == 1
    out.empty(FOLDER)
    assert Plans(out).rows == 0


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("", ["a.png", "below", "other/c.png"]),
        ("/*.png", ["a.png"]),
        ("/*/*.png", ["below", "other/c.png"]),
        ("/**/*.png", ["a.png", "below", "other/c.png"]),
    ],
)
def test_a_folder_that_cannot_be_listed_is_an_address_of_its_own(store, error, source, found):
    for name in ("a.png", "below/b.png", "other/c.png", "other/deep/.d.png", ".hidden/e.png", "notes.txt"):
        store.pipe(f"/bucket/photos/{name}", b"x")
    Failing.bad["below"] = error
    assert list(images_of(f"failing://bucket/photos{source}")) == [f"failing://bucket/photos/{name}" for name in found]
    Failing.bad["photos"] = error
    with pytest.raises(StorageError, match=error.args[-1]):
        list(images_of(f"failing://bucket/photos{source}"))


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("https://user:secret@host:8000/a@b/list.csv?sig=se/cr@et#c", "https://host:8000/a@b/list.csv"),
        ("http://host?secret", "http://host"),
        ("s3://key:secret@bucket/a?b#c@d", "s3://bucket/a?b#c@d"),
        ("gs://anonymous@bucket/a", "gs://anonymous@bucket/a"),
        ("/photos/me@home?/a.jpg", "/photos/me@home?/a.jpg"),
        ("file:///photos/me@home", "file:///photos/me@home"),
    ],
)
def test_what_is_shown_of_an_address(address, public):
    assert public_address(address) == public


def test_no_password_or_token_is_shown_or_kept_and_a_renewed_one_continues(store, score, photos, monkeypatch):
    listed = "\n".join(map(str, sorted(photos.rglob("*.png")))).encode()
    monkeypatch.setattr("scoring.source.fetch", lambda *_: listed)
    monkeypatch.setattr("scoring.storage._file_system", lambda *_: fs.PyFileSystem(fs.FSSpecHandler(store)))
    out, source = "s3://key:secret@bucket/results", "https://user:secret@host/list.txt"
    for number, new in ((1, 10), (2, 0)):
        done = score(f"{source}?sig=secret{number}", "--json", out=out)
        assert done.code == 0, done.said
        manifest = json.loads(done.printed.splitlines()[-1])
        assert (manifest["source"], manifest["spec"]["out"]) == ("https://host/list.txt", "s3://bucket/results")
        assert manifest["runs"][-1]["images"] == new
        kept = store.cat("/bucket/results/_manifest.json").decode()
        shown = score(f"{source}?sig=secret{number}", out=out)
        refused = score(photos, out=out)
        assert (shown.code, refused.code) == (0, 1)
        assert "secret" not in done.said + done.printed + kept + shown.said + refused.said


@pytest.mark.parametrize(
    "source",
    [
        "https://u:secret@host/folder?secret",
        "https://u:secret@host/list.txt?secret",
        "s3://k:secret@a b/c",
        "odd://u:secret@a/c",
    ],
)
def test_no_message_has_a_password_or_a_token(monkeypatch, source):
    def refuse(*_):
        raise UnreadableError("the server answers 403")

    monkeypatch.setattr("scoring.source.fetch", refuse)
    with pytest.raises(StorageError) as error:
        list(images_of(source))
    assert "secret" not in str(error.value)
