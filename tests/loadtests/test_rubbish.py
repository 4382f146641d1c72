"""The running service refuses every kind of rubbish with the status that the load tests take for right."""

import json

import pytest

from loadtests.album import Photo, jpeg
from loadtests.client import fetch, run
from loadtests.rubbish import rubbish
from loadtests.served import served
from loadtests.target import TASKS, Target


@pytest.mark.parametrize("tasks", [TASKS, ("detect",), ("segment",)])
def test_rubbish(server, tasks):
    photo = jpeg("coffee")
    target = Target.parse(server.url)
    asked = [one for one in served(target).choose_each(target) if one.task in tasks]
    for kind in rubbish([photo], asked):
        assert kind.request.path.split("?")[0].removeprefix("/v1/") in tasks
        response = run(fetch(target, kind.request))
        assert response.status == kind.status, kind.name
        assert json.loads(response.body)["detail"], kind.name


@pytest.mark.parametrize("status", [400, 404, 413, 415, 422])
def test_every_refusal_is_there(status):
    target = Target("http", "127.0.0.1", 80, task="detect")
    assert status in {kind.status for kind in rubbish([Photo("a", "image/jpeg", b"photo")], [target])}
