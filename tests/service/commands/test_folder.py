"""`zooserve predict --server`: a folder is answered into lines, whatever happens on the way.

`FOLDER_IMAGES=1000` runs the break in full size.
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

from tests.conftest import serving
from zoo import catalog

IMAGES = int(os.environ.get("FOLDER_IMAGES", "200"))
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
    (folder / "b.jpg").write_bytes(b"not an image")
    (folder / "empty.png").touch()
    return folder


NAMES = ["a/z.png", "b.jpg", "b.png", "c/y/x.png", "empty.png"]


def test_after_a_kill_the_same_command_continues_and_nothing_is_lost_or_done_twice(server, tmp_path):
    folder, out = tmp_path / "photos", tmp_path / "results.jsonl"
    folder.mkdir()
    photo = Image.open(catalog.sample("astronaut")).convert("RGB")
    for number in range(IMAGES):
        left, top = number * 7 % 300, number * 11 % 300
        photo.crop((left, top, left + 200, top + 200)).save(folder / f"{number * 7919 % 10007:05}.jpg")
    names = sorted(path.name for path in folder.iterdir())

    with subprocess.Popen(command(server, folder, out, "-o", "top_k=1")) as first:
        while not out.exists() or out.read_bytes().count(b"\n") < IMAGES // 2:
            assert first.poll() is None
            time.sleep(0.005)
        first.send_signal(signal.SIGKILL)
    before = out.read_bytes()
    done = before.count(b"\n")
    assert IMAGES // 2 <= done < IMAGES
    with out.open("ab") as torn:
        torn.write(b'{"file":"' + names[done].encode() + b'","mod')

    asked = -settled(server)
    second = run(server, folder, out, "-o", "top_k=1")
    asked += requests(server)
    assert second.returncode == 0, second.stderr
    assert f"{IMAGES} images, {IMAGES - done} of them asked now, 0 failed" in second.stderr
    assert asked == IMAGES - done
    lines = read(out)
    assert [line["file"] for line in lines] == names
    assert out.read_bytes().startswith(before[: before.rindex(b"\n") + 1])
    for line in lines[:: IMAGES // 20]:
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
    """How many images the server was asked for."""
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
    assert "5 images, 5 of them asked now, 2 failed (--retry-failed asks again)" in done.stderr
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
    assert "5 images, 2 of them asked now, 1 failed" in again.stderr
    mended = read(out)
    assert [line["file"] for line in mended] == NAMES
    assert mended[1] == lines[2] | {"file": "b.jpg"}
    assert [mended[index] for index in (0, 2, 3, 4)] == [lines[index] for index in (0, 2, 3, 4)]


def test_images_that_come_later_find_their_place(server, album, tmp_path):
    out = tmp_path / "out.jsonl"
    run(server, album, out)
    (album / "a/a.png").write_bytes((album / "b.png").read_bytes())
    (album / "b.png").unlink()
    assert run(server, album, out).returncode == 1
    assert [line["file"] for line in read(out)] == ["a/a.png", *NAMES]  # an answer outlives its image


@pytest.mark.parametrize(
    ("options", "model", "says"),
    [
        ([], "resnet", "The server has no model resnet, but "),
        (["-o", "top_k=0"], "mobilenet_v2", "422 bad_option: `top_k=0`"),
        (["-o", "model=x"], "mobilenet_v2", "--option model is not an option of a task"),
        (["--annotate", "x.png"], "mobilenet_v2", "are not for --server"),
        (["--annotate", "x.xyz"], "mobilenet_v2", "x.xyz: expected a name that ends in .png"),
        (["-o", "task=x"], "mobilenet_v2", "422 bad_option: There is no option `task`"),
        (["--server", "localhost:3000"], "mobilenet_v2", "--server: url=localhost:3000: expected http://"),
        (["--deadline", "0"], "mobilenet_v2", "--deadline"),
    ],
)
def test_what_concerns_every_image_ends_the_command(server, album, tmp_path, options, model, says):
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
    assert "the same command continues" in gone.stderr
    settings = {"ZOOSERVE_MODELS": str(models), "ZOOSERVE_LOAD": "lenet5", "ZOOSERVE_API_KEYS": "sesame"}
    with serving(tmp_path / "log", **settings) as locked:
        locked.wait(200)
        assert "401 unauthorised" in run(locked, album, out, model="lenet5").stderr
        known = run(locked, album, out, "--api-key", "sesame", model="lenet5")
    assert "5 images, 5 of them asked now, 2 failed" in known.stderr


def test_one_writer_at_a_time(server, album, tmp_path):
    out = tmp_path / "out.jsonl"
    from filelock import FileLock

    with FileLock(tmp_path / ".out.jsonl.lock"):
        assert "is being written by another" in run(server, album, out).stderr
