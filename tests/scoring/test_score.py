"""`zooserve score` on this machine: the answers of `/v1`, a row for every image, and resuming."""

import functools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock

from loadtests.scoring.score import each_once, make_images
from scoring.local import DeviceError, score_here
from scoring.plan import Plans
from scoring.scorer import Scorer
from scoring.source import images_of
from scoring.spec import Part, Spec
from scoring.storage import Folder
from service.engine.device_errors import BrokenDeviceError
from tests.scoring.conftest import LENET
from zoo.store import Store


def ask(server, model, task, data, **options):
    response = server.client.post(f"/v1/{task}", params={"model": model, **options}, content=data)
    return response.json()


def scorer_of(out, models, photos):
    """A scorer of lenet5, with a plan of the photos in parts of four."""
    sha256 = Store(models).latest(LENET).card.sha256
    spec = Spec(str(out), LENET, "1", sha256, str(models), "classify", {}, "fast")
    Plans(Folder(spec.out)).extend(images_of(str(photos)), 4)
    return Scorer(spec)


@pytest.mark.parametrize(
    ("model", "task", "options"),
    [
        ("lenet5", "classify", {"top_k": "3"}),
        ("mobilenet_v2", "classify", {"localize": "true"}),
        ("mobilenet_v2", "embed", {}),
        ("yolov4_tiny", "detect", {"score_threshold": "0.1"}),
        ("yolov4_tiny", "detect", {"tiles": "160x160"}),
        ("u2netp", "segment", {"mask": "png"}),
        ("deeplabv3_mobilenet_v2", "segment", {}),
    ],
)
def test_rows_are_the_answers_of_the_server(server, score, results, tmp_path, model, task, options):
    make_images(tmp_path / "images", 6, broken_every=5)
    (tmp_path / "images" / "empty.jpg").write_bytes(b"")
    (tmp_path / "images" / "text.jpg").write_bytes(b"<html>")
    given = [f"-o{name}={value}" for name, value in options.items()]
    done = score(tmp_path / "images", "--task", task, *given, model=model)
    assert done.code == 0, done.said
    rows = results()
    assert len(rows) == 8
    for address, row in rows.items():
        said = ask(server, model, task, Path(address).read_bytes(), **options)
        if "predictions" in said:
            assert (row["predictions"], row["image"]) == (said["predictions"], said["image"])
        else:
            assert row["error"] == {name: said[name] for name in ("status", "reason", "detail")}
    assert done.manifest["failed"] == sum("error" in row for row in rows.values()) == 4


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="only Linux has this policy")
def test_no_thread_interrupts_a_run(models, photos, tmp_path):
    before, others = os.sched_getscheduler(0), set(threading.enumerate())
    scorer = scorer_of(tmp_path / "out", models, photos)
    started = set(threading.enumerate()) - others
    policies = {thread.name.split("-")[0]: os.sched_getscheduler(thread.native_id) for thread in started}
    assert {policies[name] for name in ("worker", "fetch", "scorer")} == {os.SCHED_BATCH}
    assert os.sched_getscheduler(0) == before
    del scorer


def test_images_in_tiles_wait_for_memory(score, results, photos, monkeypatch):
    monkeypatch.setenv("ZOOSERVE_MAX_PIXELS_MB", "1")  # an image has 0.7 MB
    done = score(photos, "-o", "tiles=160x160", model="yolov4_tiny")
    assert (done.code, done.manifest["images"], done.manifest["failed"]) == (0, 10, 0), results()


def test_a_plan_without_a_manifest_is_of_nothing(score, results, photos, tmp_path):
    """As a run leaves it that was killed before its first image; the next may have another source."""
    Plans(Folder(str(tmp_path / "out"))).extend([f"{tmp_path}/elsewhere.jpg"], 4)
    assert score(photos).manifest["planned"] == 10
    assert results().keys() == {str(path) for path in photos.rglob("*.png")}


def test_the_manifest_says_what_was_run(score, photos):
    done = score(photos, "-o", "top_k=2", "--part-size", "4")
    manifest = done.manifest
    assert (manifest["images"], manifest["failed"], manifest["planned"], manifest["state"]) == (10, 0, 10, "complete")
    assert (manifest["source"], manifest["spec"]["options"]) == (str(photos), {"top_k": "2"})
    assert len(manifest["spec"]["sha256"]) == 64
    assert [run["images"] for run in manifest["runs"]] == [10]


def test_jsonl(score, photos, tmp_path):
    assert score(photos, "--format", "jsonl", "--part-size", "4").code == 0
    lines = [line for path in (tmp_path / "out").glob("*.jsonl") for line in path.read_text().splitlines()]
    assert {json.loads(line)["address"] for line in lines} == {str(path) for path in photos.rglob("*.png")}


def test_a_source_that_has_grown(score, results, photos, photo):
    assert score(photos).manifest["runs"][-1]["images"] == 10
    assert score(photos).manifest["runs"][-1]["images"] == 0
    (photos / "new.png").write_bytes(photo("rocket"))
    done = score(photos)
    assert (done.manifest["runs"][-1]["images"], done.manifest["images"]) == (1, 11)
    assert len(results()) == 11


def test_a_missing_part_is_done_again_and_no_other(score, results, photos, tmp_path):
    score(photos, "--part-size", "3")
    parts = sorted((tmp_path / "out").glob("part-*"))
    assert len(parts) == 4
    stamps = {path.name: path.stat().st_mtime_ns for path in parts}
    parts[1].unlink()
    assert score(photos, "--part-size", "3").manifest["runs"][-1]["images"] == 3
    again = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("part-*")}
    assert [name for name in stamps if again[name] != stamps[name]] == [parts[1].name]
    assert len(results()) == 10


def test_retry_failed(score, results, photos, photo):
    (photos / "a.png").write_bytes(b"not yet")
    assert score(photos, "--part-size", "4").manifest["failed"] == 1
    (photos / "a.png").write_bytes(photo("coffee"))
    assert score(photos).manifest["failed"] == 1
    assert score(photos, "--retry-failed").manifest["failed"] == 0
    assert len(results()) == 11


def test_every_kind_of_bad_image_is_a_row(score, results, photos, tmp_path):
    (tmp_path / "list.txt").write_text(
        f"{photos}/0.png\n{photos}/gone.png\n{photos}/below\nhttp://127.0.0.1:9/a.jpg\nnosuch://x/a.jpg\n{photos}/0.png\n"
    )
    done = score(tmp_path / "list.txt", "--json")
    assert done.code == 0, done.said
    assert (done.manifest["images"], done.manifest["failed"]) == (5, 4)
    errors = [row["error"] for row in results().values() if "error" in row]
    assert {(error["status"], error["reason"]) for error in errors} == {(0, "unreadable")}
    last = json.loads(done.printed.splitlines()[-1])
    assert last["state"] == "complete"
    assert json.loads(done.printed.splitlines()[0]) == {
        "images": 5, "done": 0, "failed": 0, "rate_per_s": 0.0, "left_s": None
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["-o", "top_k=0"], "top_k=0"),
        (["-o", "colour"], "NAME=VALUE"),
        (["--task", "detect"], "cannot detect"),
        (["--workers", "2"], "go with --ray"),
        (["--part-size", "0"], "part-size"),
        (["-o", "top_k=\udcff"], "expected UTF-8"),
        (["--out", ""], "cannot hold results"),
        (["--out", "https://localhost/x"], "cannot hold results"),
        (["--out", "\udcff"], "expected UTF-8"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_done(score, photos, tmp_path, arguments, complaint):
    done = score(photos, *arguments)
    assert done.code in (1, 2)
    assert complaint in done.said
    assert not (tmp_path / "out").exists()


def test_results_of_something_else_are_not_mixed(score, photos, tmp_path):
    score(photos)
    for options, complaint in ((["-o", "top_k=2"], "options"), (["--format", "jsonl"], "form")):
        done = score(photos, *options)
        assert done.code == 1
        assert f"holds results of {complaint}" in done.said
        assert "another folder" in done.said
    (tmp_path / "two.csv").write_text(f"path,thumb\n{photos}/0.png,{photos}/1.png\n")
    assert score(tmp_path / "two.csv", out=tmp_path / "columns").code == 0
    again = score(tmp_path / "two.csv", "--column", "thumb", out=tmp_path / "columns")
    assert "holds results of column 'path', not 'thumb'" in again.said
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine")
    assert "is not empty" in score(photos, out=tmp_path / "other").said


@pytest.mark.parametrize(
    ("name", "content", "advice"),
    [
        ("part-0001-0000000.parquet", b"no", "remove it: the same command makes it again"),
        ("part-0001-0000000.jsonl", b'{"address":', "remove it: the same command makes it again"),
        ("part-0001-0000000.jsonl", b"", "remove it: the same command makes it again"),
        ("_plans/0001.arrow", b"", "name another folder"),
    ],
)
def test_a_damaged_file_is_named(score, photos, tmp_path, name, content, advice):
    form = ["--format", "jsonl"] if name.endswith("jsonl") else []
    score(photos, *form)
    (tmp_path / "out" / "_plans" / "mine.arrow").write_bytes(b"of somebody else")
    (tmp_path / "out" / name).write_bytes(content)
    done = score(photos, *form)
    assert done.code == 1
    assert f"{name} cannot be read" in done.said
    assert advice in done.said


@pytest.mark.parametrize("name", ["part-0001-0000000.parquet", "_plans/0001.arrow"])
def test_damage_anywhere_near_the_end_names_the_file(score, photos, tmp_path, name):
    score(photos)
    whole = (tmp_path / "out" / name).read_bytes()
    for at in range(1, 60):
        (tmp_path / "out" / name).write_bytes(whole[:-at] + bytes([whole[-at] ^ 0xFF]) + whole[len(whole) - at + 1 :])
        done = score(photos)
        assert done.code == 0 or f"{name} cannot be read" in done.said, done.said


def test_a_scheduling_policy_that_was_chosen_stays(models, photos, tmp_path):
    command = [str(Path(sys.executable).with_name("zooserve")), "score", LENET, str(photos), "--models", str(models)]
    done = subprocess.run(["chrt", "--idle", "0", *command, "--out", str(tmp_path / "out")], check=False, timeout=60)
    assert done.returncode == 0


def test_no_event_loop_is_left_when_a_run_is_over(score, photos):
    """A timer of the readers could wake it up while the interpreter ends, and the process would crash."""
    before = threading.enumerate()
    assert score(photos).code == 0
    assert "scorer" not in {thread.name for thread in threading.enumerate() if thread not in before}


def test_names_that_are_not_utf8_in_the_results(score, photos, tmp_path):
    score(photos)
    Path(os.fsdecode(os.fsencode(tmp_path / "out") + b"/\xff")).touch()
    assert "whose name is not UTF-8" in score(photos).said


def test_ctrl_c_ends_a_run_at_once(tmp_path, models):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        (tmp_path / "list.txt").write_text("".join(f"{address}/{number}.jpg\n" for number in range(200)))
        command = [str(Path(sys.executable).with_name("zooserve")), "score", "lenet5", str(tmp_path / "list.txt")]
        options = ["--out", str(tmp_path / "out"), "--models", str(models), "--timeout", "30"]
        silent.settimeout(60)
        # Where the tests run in the background, their own Ctrl-C is ignored, and a process would inherit that.
        listens = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        with subprocess.Popen([*command, *options], stderr=subprocess.PIPE, preexec_fn=listens) as process:  # noqa: PLW1509
            silent.accept()
            process.send_signal(signal.SIGINT)
            assert process.wait(20) != 0
    manifest = json.loads((tmp_path / "out" / "_manifest.json").read_text())
    assert (manifest["state"], manifest["images"]) == ("incomplete", 0)
    assert not list((tmp_path / "out").glob("part-*"))


def test_a_source_without_images_is_refused(score, tmp_path):
    (tmp_path / "empty").mkdir()
    done = score(tmp_path / "empty")
    assert done.code == 1
    assert f"{tmp_path}/empty: no images there" in done.said


def test_a_file_in_the_place_of_the_results_is_refused(score, photos, tmp_path):
    (tmp_path / "out").touch()
    assert f"{tmp_path}/out: File exists. Name another folder for the results." in score(photos).said


def test_a_pipeline_is_refused(score, photos):
    assert "pets is a pipeline" in score(photos, model="pets").said


def test_two_runs_at_once_are_refused(score, photos, tmp_path):
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / "_lock"):
        done = score(photos)
    assert done.code == 1
    assert "is being written by another process" in done.said


def test_a_killed_run_is_continued(score, results, tmp_path, models):
    make_images(tmp_path / "images", 400)
    arguments = ["score", "lenet5", str(tmp_path / "images"), "--out", str(tmp_path / "out"), "--part-size", "8"]
    process = subprocess.Popen([str(Path(sys.executable).with_name("zooserve")), *arguments, "--models", str(models)])
    end = time.monotonic() + 60
    while len(list((tmp_path / "out").glob("part-*"))) < 3:
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = len(list((tmp_path / "out").glob("part-*")))
    assert left < 50
    done = score(tmp_path / "images", "--part-size", "8")
    assert done.manifest["runs"][-1]["images"] == 400 - 8 * left
    assert [run["state"] for run in done.manifest["runs"]] == ["running", "complete"]
    assert each_once(tmp_path / "out", 400)


def test_a_full_disk_ends_the_run_and_the_rest_follows(score, results, photos, tmp_path, monkeypatch):
    import scoring.scorer

    write = scoring.scorer.write_rows

    def full(file, rows, *rest):
        if len(rows) < 4:
            raise OSError(28, "No space left on device")
        write(file, rows, *rest)

    monkeypatch.setattr(scoring.scorer, "write_rows", full)
    done = score(photos, "--part-size", "4")
    assert done.code == 1
    part = f"{tmp_path}/out/part-0001-0000002.parquet"
    assert f"{part} cannot be written: No space left on device. When it can be, the same command" in done.said
    assert (done.manifest["state"], done.manifest["images"]) == ("incomplete", 8)
    monkeypatch.undo()
    assert len(results()) == 8


def test_a_lost_gpu_is_told_apart_from_other_errors(models, photos, tmp_path, monkeypatch):
    """On a cluster, the actor ends then, and another one does the part."""
    scorer = scorer_of(tmp_path / "out", models, photos)

    def broken(*_):
        raise BrokenDeviceError("CUDA failure 700")

    monkeypatch.setattr(scorer._predictor, "submit", broken)
    with pytest.raises(BrokenDeviceError):
        scorer.score(Part(1, 0))
    monkeypatch.setattr("scoring.local.Scorer", lambda _: scorer)
    with pytest.raises(DeviceError, match=r"GPU can no longer be used.*700"):
        list(score_here(scorer._spec, [Part(1, 0)]))


@pytest.mark.parametrize("pattern", ["", "/*.png"])
def test_images_and_results_of_another_file_system(score, photo, pattern):
    import fsspec

    system = fsspec.filesystem("memory")
    system.store.clear()
    for name in ("a.png", "b.png", "notes.txt"):
        system.pipe(f"/photos/{name}", photo("coffee") + name.encode())
    for count in (2, 0):
        done = score(f"memory://photos{pattern}", "--part-size", "1", "--json", out="memory://results")
        assert done.code == 0, done.said
        manifest = json.loads(done.printed.splitlines()[-1])
        assert (manifest["images"], manifest["failed"], manifest["runs"][-1]["images"]) == (2, 0, count)
    assert [name for name in sorted(system.store) if "/part-" in name] == [
        f"/results/part-0001-000000{number}.parquet" for number in range(2)
    ]
