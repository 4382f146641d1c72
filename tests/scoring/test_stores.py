"""A store of fsspec that does not answer is not an empty one, whatever its library raises."""

from typing import ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from scoring.plan import FOLDER, Plans
from scoring.source import images_of
from scoring.storage import Folder, StorageError


class Failing(MemoryFileSystem):
    """A store in memory, whose folders with names in `bad` cannot be asked about."""

    protocol = ("failing",)
    bad: ClassVar[dict[str, Exception]] = {}

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
