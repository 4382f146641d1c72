"""What Locust's users are told to ask, and how many there are. Locust itself changes the process that imports it."""

from argparse import Namespace

import pytest

from loadtests.album import jpeg
from loadtests.target import TASKS, TargetError
from loadtests.users.plan import plan, think_time
from loadtests.users.shapes import SHAPES
from loadtests.users.wrong import wrong

OPTIONS = {"remote": False, "api_key": "", "ca_file": "", "model": "", "images": "", "think_time": "0"}
OPTIONS |= {"rubbish": 0.05, "timeout": 30.0}


def plan_of(tiny, **options):
    return plan(f"http://127.0.0.1:{tiny.address.port}", Namespace(**OPTIONS | options))


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", (0, 0)), ("1", (1, 1)), ("0.2-2", (0.2, 2)), (" .5-1. ", (0.5, 1)), ("2-2", (2, 2))]
)
def test_think_time(text, seconds):
    assert think_time(text) == seconds


@pytest.mark.parametrize("text", ["", "-1", "2-1", "1-2-3", "1s", "nan", "inf", "1,5"])
def test_no_think_time(text):
    with pytest.raises(ValueError, match="--think-time"):
        think_time(text)


def test_the_tasks_of_the_server(tiny):
    assert list(plan_of(tiny).asked) == ["classify"]
    tiny.models = (
        b'{"models": [{"name": "a", "task": "segment", "state": "ready"}, {"name": "b", "task": "detect", "state": '
        b'"ready"}, {"name": "c", "task": "classify", "state": "failed"}, {"name": "d", "task": "detect", "state": '
        b'"ready", "default": true}]}'
    )
    found = plan_of(tiny)
    assert {task: target.model for task, target in found.asked.items()} == {"detect": "d", "segment": "a"}
    assert {kind.request.path.split("?")[0] for kind in found.rubbish} == {"/v1/detect", "/v1/segment"}
    assert list(plan_of(tiny, model="b").asked) == ["detect"]


def test_images_of_a_folder(tiny, tmp_path):
    (tmp_path / "mine.jpg").write_bytes(jpeg("coffee").data)
    assert [photo.name for photo in plan_of(tiny, images=str(tmp_path)).photos] == ["mine.jpg"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rubbish": 1.5}, "--rubbish 1.5"),
        ({"rubbish": float("nan")}, "--rubbish nan"),
        ({"timeout": 0.0}, "--timeout"),
        ({"think_time": "long"}, "--think-time long"),
        ({"model": "other"}, "no model other"),
        ({"images": "{folder}"}, "holds no"),
        ({"images": "no-such-folder"}, "no-such-folder"),
        ({"ca_file": "no-such-file", "model": ""}, "no-such-file"),
    ],
)
def test_wrong_options(tiny, tmp_path, options, words):
    options = {
        key: value.format(folder=tmp_path) if isinstance(value, str) else value for key, value in options.items()
    }
    url = f"http://127.0.0.1:{tiny.address.port}"
    url = url.replace("http:", "https:") if "ca_file" in options else url
    with pytest.raises((ValueError, OSError), match=words):
        plan(url, Namespace(**OPTIONS | options))


@pytest.mark.parametrize(
    ("host", "words"),
    [
        (None, "--host is missing"),
        ("", "--host is missing"),
        ("127.0.0.1:3000", "http://HOST:PORT"),
        ("grpc://127.0.0.1", "Locust speaks http"),
        ("http://192.0.2.7", "--remote"),
    ],
)
def test_wrong_hosts(host, words):
    with pytest.raises(TargetError, match=words):
        plan(host, Namespace(**OPTIONS))


def test_tasks_weigh_as_often_as_they_are_asked(tiny):
    tiny.models = b'{"models": [%s]}' % b",".join(
        b'{"name": "%s", "task": "%s", "state": "ready"}' % (task.encode(), task.encode()) for task in TASKS
    )
    assert plan_of(tiny).weights == {"classify": 95, "detect": 57, "segment": 38, "rubbish": 10}
    assert plan_of(tiny, rubbish=0.0).weights == {"classify": 5, "detect": 3, "segment": 2, "rubbish": 0}
    assert plan_of(tiny, rubbish=0.004).weights == {"classify": 1245, "detect": 747, "segment": 498, "rubbish": 10}
    assert plan_of(tiny, rubbish=1.0).weights == {"classify": 0, "detect": 0, "segment": 0, "rubbish": 10}


@pytest.mark.parametrize(
    ("task", "body", "words"),
    [
        ("classify", {"predictions": [{}]}, ""),
        ("classify", {"predictions": []}, "0 classes"),
        ("classify", {"predictions": [{}] * 6}, "6 classes"),
        ("detect", {"predictions": []}, ""),
        ("detect", {"image": {"width": 10, "height": 10}, "predictions": [{"box": [0, 0, 10, 10]}]}, ""),
        ("detect", {"image": {"width": 10, "height": 10}, "predictions": [{"box": [0, 0, 10, 11]}]}, "beyond"),
        ("segment", {"predictions": [{"mask": {"counts": ""}}]}, ""),
        ("segment", {"predictions": [{"label": "cat"}]}, "without a mask"),
    ],
)
def test_answers_are_looked_into(task, body, words):
    found = wrong(task, body | {"task": task})
    assert (words in found) if words else not found
    assert "answer of other" in wrong(task, body | {"task": "other"})


@pytest.mark.parametrize(
    ("name", "users"),
    [
        ("ramp", [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]),
        ("spike", [10, 10, 10, 10, 100, 100, 10, 10, 10, 10]),
    ],
)
def test_shapes(name, users):
    at = SHAPES[name]
    assert [at(tenth / 10 + 0.05, 100) for tenth in range(10)] == users
    assert at(0.0, 1) == at(0.99, 1) == 1
