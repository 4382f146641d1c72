"""What a server has, and what is said where it cannot be tested."""

import json
import socket

import pytest

from loadtests.served import Served, ServedModel, served
from loadtests.target import Target, TargetError

MODELS = (
    ServedModel("big", "classify"),
    ServedModel("small", "classify", default=True),
    ServedModel("boxes", "detect"),
    ServedModel("slow", "segment", state="loading"),
    ServedModel("rows", "tensors"),
)


def target(**changes):
    return Target("http", "127.0.0.1", 3000, **changes)


@pytest.mark.parametrize(
    ("wanted", "task", "model"),
    [
        ({}, "classify", "small"),
        ({"task": "detect"}, "detect", "boxes"),
        ({"model": "boxes"}, "detect", "boxes"),
        ({"task": "classify", "model": "big"}, "classify", "big"),
    ],
)
def test_choose(wanted, task, model):
    chosen = Served(MODELS).choose(target(**wanted))
    assert (chosen.task, chosen.model) == (task, model)
    assert Served(MODELS).tasks == ("classify", "detect")


@pytest.mark.parametrize(
    ("models", "wanted", "words"),
    [
        (MODELS, {"task": "segment"}, "cannot segment: it has ready models for classify, detect (slow is loading)"),
        (MODELS, {"model": "slow"}, "slow is loading"),
        (MODELS, {"model": "no"}, "has no model no; it has big, boxes, rows, small"),
        (MODELS, {"model": "big", "task": "detect"}, "leave --task out"),
        (MODELS[3:4], {}, "no model that is ready (slow is loading)"),
        ((ServedModel("a", "detect"), ServedModel("b", "detect")), {}, "--model: a, b"),
    ],
)
def test_nothing_to_choose(models, wanted, words):
    with pytest.raises(TargetError) as error:
        Served(models, "slow is loading").choose(target(**wanted))
    assert words in str(error.value)


def test_the_service(server):
    found = served(Target.parse(server.url))
    assert found.tasks == ("classify", "detect", "segment")
    assert found.choose(target()).model == "mobilenet_v2"
    assert not found.problem


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/status/401", "it needs a key: --api-key or ZOOSERVE_API_KEY"),
        ("/status/404", "prefix"),
        ("/status/500", "answers 500"),
        ("/status/308", "sends elsewhere"),
        ("/break", "https://?"),
        ("/ok", "is not this service"),
        ("/wait/3", "no answer within 0.5 s"),
    ],
)
def test_what_is_not_the_service(tiny, path, words):
    """The path is the prefix here."""
    with pytest.raises(TargetError) as error:
        served(Target("http", "127.0.0.1", tiny.address.port, path), timeout=0.5)
    assert words in str(error.value)


def test_a_wrong_key(tiny):
    with pytest.raises(TargetError, match="does not take this key"):
        served(Target("http", "127.0.0.1", tiny.address.port, "/status/401", api_key="x"))


def test_not_reachable():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        with pytest.raises(TargetError, match="is not reachable"):
            served(Target("http", "127.0.0.1", probe.getsockname()[1]))


def test_tls_where_there_is_none(server):
    with pytest.raises(TargetError, match="does not speak TLS"):
        served(Target.parse(server.url.replace("http", "https")))


def test_what_is_not_ready_is_said(tiny):
    tiny.models = json.dumps({"models": [{"name": "m", "task": "classify", "state": "loading"}]}).encode()
    tiny.status = "503"
    tiny.body = json.dumps({"ready": False, "models": {"m": {"state": "loading"}}}).encode()
    found = served(Target("http", "127.0.0.1", tiny.address.port))
    assert found.problem == "m is loading"
