"""`zooserve predict --server`: a folder is answered into lines, whatever happens on the way.

`FOLDER_PICTURES=1000` runs the break in full size.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from service.commands.lines import Lines, LinesError
from tests.conftest import serving
from zoo import catalog

PICTURES = int(os.environ.get("FOLDER_PICTURES", "200"))
ZOOSERVE = str(Path(sys.executable).with_name("zooserve"))


def command(server, folder: Path, out: Path, *options: str, model: str = "mobilenet_v2") -> list[str]:
    url = server if isinstance(server, str) else server.url
    return [ZOOSERVE, "predict", model, str(folder), "--server", url, "--out", str(out), *options]


def run(*arguments, **keywords) -> subprocess.CompletedProcess:
    return subprocess.run(command(*arguments, **keywords), capture_output=True, text=True, timeout=250, check=False)


def read(out: Path) -> list[dict]:
    return [json.loads(line) for line in out.read_text().splitlines()]


@pytest.fixture
def album(tmp_path):
    """A few photos in folders, two of them broken."""
    folder = tmp_path / "album"
    for name, sample in {"b.png": "coffee", "a/z.png": "chelsea", "c/y/x.png": "astronaut"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(catalog.sample(sample).read_bytes())
    (folder / "b.jpg").write_bytes(b"no picture")
    (folder / "empty.png").touch()
    return folder


NAMES = ["a/z.png", "b.jpg", "b.png", "c/y/x.png", "empty.png"]


def test_killed_and_gone_on_with_nothing_is_lost_or_done_twice(server, tmp_path):
    folder, out = tmp_path / "photos", tmp_path / "results.jsonl"
    folder.mkdir()
    photo = Image.open(catalog.sample("astronaut")).convert("RGB")
    for number in range(PICTURES):
        left, top = number * 7 % 300, number * 11 % 300
        photo.crop((left, top, left + 200, top + 200)).save(folder / f"{number * 7919 % 10007:05}.jpg")
    names = sorted(path.name for path in folder.iterdir())

    with subprocess.Popen(command(server, folder, out, "-o", "top_k=1")) as first:
        while not out.exists() or out.read_bytes().count(b"\n") < PICTURES // 2:
            assert first.poll() is None
            time.sleep(0.005)
        first.send_signal(signal.SIGKILL)
    before = out.read_bytes()
    done = before.count(b"\n")
    assert PICTURES // 2 <= done < PICTURES
    with out.open("ab") as torn:
        torn.write(b'{"file":"' + names[done].encode() + b'","mod')

    asked = -settled(server)
    second = run(server, folder, out, "-o", "top_k=1")
    asked += requests(server)
    assert second.returncode == 0, second.stderr
    assert f"{PICTURES} pictures, {PICTURES - done} of them asked now, 0 failed" in second.stderr
    assert asked == PICTURES - done
    lines = read(out)
    assert [line["file"] for line in lines] == names
    assert out.read_bytes().startswith(before[: before.rindex(b"\n") + 1])
    for line in lines[:: PICTURES // 20]:
        alone = server.client.post("/v1/classify", content=(folder / line["file"]).read_bytes(), params={"top_k": 1})
        assert line["predictions"][0]["class_id"] == alone.json()["predictions"][0]["class_id"]

    third = run(server, folder, out, "-o", "top_k=1")
    assert (third.returncode, read(out)) == (0, lines)
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "results.jsonl"}


def settled(server) -> float:
    """`requests`, once those that the killed command had under way are counted too."""
    count = requests(server)
    while True:
        time.sleep(0.5)
        count, before = requests(server), count
        if count == before:
            return count


def requests(server) -> float:
    """How many pictures the server was asked for."""
    counted = server.client.get("/metrics").text.splitlines()
    return sum(
        float(line.split()[1])
        for line in counted
        if line.startswith('zooserve_requests_total{code="200",model="mobilenet_v2"')
    )


def test_failures_are_lines_and_may_be_tried_again(server, album, tmp_path):
    out = tmp_path / "out.jsonl"
    done = run(server, album, out, "-o", "score_threshold=0.5", model="yolov4_tiny")
    assert done.returncode == 1
    assert "5 pictures, 5 of them asked now, 2 failed (--retry-failed asks again)" in done.stderr
    lines = read(out)
    assert [line["file"] for line in lines] == NAMES
    assert [line["model"] for line in lines] == ["yolov4_tiny"] * 5
    raw = server.client.post("/v1/detect", content=(album / "b.png").read_bytes(), params={"score_threshold": 0.5})
    assert lines[2] == {"file": "b.png"} | raw.json()
    assert {k: v for k, v in lines[1]["error"].items() if k != "detail"} == {"status": 415, "reason": "not_an_image"}
    assert lines[4]["error"]["reason"] == "undecodable"

    assert run(server, album, out, model="yolov4_tiny").returncode == 1  # the failures stay, and are not asked again
    assert read(out) == lines
    (album / "b.jpg").write_bytes((album / "b.png").read_bytes())
    again = run(server, album, out, "--retry-failed", "-o", "score_threshold=0.5", model="yolov4_tiny")
    assert "5 pictures, 2 of them asked now, 1 failed" in again.stderr
    mended = read(out)
    assert [line["file"] for line in mended] == NAMES
    assert mended[1] == lines[2] | {"file": "b.jpg"}
    assert [mended[index] for index in (0, 2, 3, 4)] == [lines[index] for index in (0, 2, 3, 4)]


def test_pictures_that_come_later_find_their_place(server, album, tmp_path):
    out = tmp_path / "out.jsonl"
    run(server, album, out)
    (album / "a/a.png").write_bytes((album / "b.png").read_bytes())
    (album / "b.png").unlink()
    assert run(server, album, out).returncode == 1
    assert [line["file"] for line in read(out)] == ["a/a.png", *NAMES]  # an answer outlives its picture


@pytest.mark.parametrize(
    ("options", "model", "says"),
    [
        ([], "resnet", "The server has no model resnet, but "),
        (["-o", "top_k=0"], "mobilenet_v2", "422 bad_option: `top_k=0`"),
        (["-o", "model=x"], "mobilenet_v2", "--option model is no option of a task"),
        (["--annotate", "x.png"], "mobilenet_v2", "are not for --server"),
        (["-o", "task=x"], "mobilenet_v2", "422 bad_option: There is no option `task`"),
        (["--server", "localhost:3000"], "mobilenet_v2", "--server: url=localhost:3000: expected http://"),
        (["--deadline", "0"], "mobilenet_v2", "--deadline"),
    ],
)
def test_what_no_picture_is_to_blame_for_ends_the_command(server, album, tmp_path, options, model, says):
    out = tmp_path / "out.jsonl"
    done = run(server, album, out, *options, model=model)
    assert done.returncode in (1, 2)
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not out.exists() or not out.read_bytes()
    assert not list(tmp_path.glob(".*"))


def test_no_server_and_no_key(models, album, tmp_path):
    out = tmp_path / "out.jsonl"
    gone = run("http://127.0.0.1:1", album, out, "--deadline", "1")
    assert gone.returncode == 1
    assert "http://127.0.0.1:1: " in gone.stderr
    assert "the same command goes on" in gone.stderr
    settings = {"ZOOSERVE_MODELS": str(models), "ZOOSERVE_LOAD": "lenet5", "ZOOSERVE_API_KEYS": "sesame"}
    with serving(tmp_path / "log", **settings) as locked:
        locked.wait(200)
        assert "401 unauthorised" in run(locked, album, out, model="lenet5").stderr
        known = run(locked, album, out, "--api-key", "sesame", model="lenet5")
    assert "5 pictures, 5 of them asked now, 2 failed" in known.stderr


def test_one_writer_at_a_time(server, album, tmp_path):
    out = tmp_path / "out.jsonl"
    from filelock import FileLock

    with FileLock(tmp_path / ".out.jsonl.lock"):
        assert "is being written by another" in run(server, album, out).stderr


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"my diary, without a line's end", "line 1: JSON is malformed"),
        (b'{"file":"a","model":"m"}\n{"id": 5}\n', "line 2: Object missing required field `file`"),
        (b'{"file":"a","model":"other"}\n', "line 1: answered by other, not m"),
        (b'{"file":"a","model":"m"}\n{"file":"a","model":"m"}\n', "line 2: a has a line already"),
        (b"\0\0\0\n", "line 1: JSON is malformed"),
    ],
)
def test_a_file_of_something_else_is_left_alone(tmp_path, content, says):
    path = tmp_path / "out.jsonl"
    path.write_bytes(content)
    with pytest.raises(LinesError, match=says):
        Lines(path, "m")
    assert path.read_bytes() == content


@pytest.mark.parametrize("cut", range(1, 40))
def test_a_line_torn_anywhere_is_mended(tmp_path, cut):
    path = tmp_path / "out.jsonl"
    with Lines(path, "m") as lines:
        lines.add("a", {"predictions": []})
        lines.add("b", {"predictions": []})
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    with Lines(path, "m") as lines:
        assert list(lines) == ["a"]
        lines.add("b", {"predictions": []})
    assert path.read_bytes() == whole


def test_lines_are_kept_in_any_order(tmp_path):
    path = tmp_path / "out.jsonl"
    with Lines(path, "m") as lines:
        for name in "dbca":
            lines.add(name, {"error": {}} if name == "b" else {"predictions": [name]})
        assert lines.failed() == {"b"}
        lines.keep(["a", "c", "d"])
        lines.add("e", {"predictions": []})
        lines.keep(["e", "a"])
        assert (len(lines), lines.failed()) == (2, set())
    assert [line["file"] for line in read(path)] == ["e", "a"]
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]
