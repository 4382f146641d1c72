"""The client's README: its examples run as they stand."""

import contextlib
import io
import json
import re
from pathlib import Path

import numpy as np

README = (Path(__file__).parents[2] / "client/README.md").read_text()


def test_the_examples_run(server, photo, tmp_path, monkeypatch):
    code = "".join(re.findall("```python\n(.*?)```", README, re.DOTALL)).replace("http://localhost:3000", server.url)
    (tmp_path / "photos").mkdir()
    for name in ("street.jpg", "me.jpg", "photos/a.png"):
        (tmp_path / name).write_bytes(photo("coffee"))
    (tmp_path / "photos/b.png").touch()
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, names)
    assert names["found"].labels[0] == "cup"
    assert (names["person"].shape, names["person"].dtype) == ((400, 600), np.bool_)
    first, second, third = printed.getvalue().splitlines()
    assert first == "photos/a.png espresso"
    assert second.startswith("photos/b.png failed: 400 undecodable: ")
    assert third == "2 images, 1 failed"
    assert [json.loads(line)["file"] for line in (tmp_path / "results.jsonl").open()] == ["a.png", "b.png"]
