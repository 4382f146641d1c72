"""Runs `zooserve score` on folders of photos, and reads its results as Python values; a Ray cluster of two nodes."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from loadtests.scoring.nodes import Nodes, cluster
from loadtests.scoring.score import rows_of
from zoo.cli import main

LENET = "lenet5"


@pytest.fixture
def score(models, monkeypatch, tmp_path):
    """`score(source, ...)`: the exit code, what was printed, and the manifest of `tmp_path/out`."""
    monkeypatch.setenv("ZOOSERVE_MODELS", str(models))

    def run(source, *options, model=LENET, out=None):
        folder = out or tmp_path / "out"
        result = CliRunner().invoke(main, ["score", model, str(source), "--out", str(folder), *options])
        written = folder / "_manifest.json" if isinstance(folder, Path) else None
        manifest = json.loads(written.read_text()) if written and written.exists() else None
        return SimpleNamespace(code=result.exit_code, said=result.stderr, printed=result.stdout, manifest=manifest)

    return run


@pytest.fixture
def results(tmp_path):
    """The rows of `tmp_path/out` by address."""

    def read(out=None):
        found = rows_of(out or tmp_path / "out")
        rows = {row["address"]: row for row in found}
        assert len(rows) == len(found), "an address has two rows"
        return rows

    return read


@pytest.fixture
def photos(tmp_path, photo):
    """A folder with ten photos, three of them in a folder below."""
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    for number in range(10):
        place = folder / "below" if number > 6 else folder
        (place / f"{number}.png").write_bytes(photo("coffee") + b"%d" % number)
    return folder


@pytest.fixture
def nodes(ray, models, monkeypatch) -> Iterator[Nodes]:
    """A running cluster of two nodes with a core each."""
    monkeypatch.setenv("ZOOSERVE_MODELS", str(models))
    with cluster() as running:
        yield running
