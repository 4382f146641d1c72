"""The load tests reach a server on another host: TLS with a private authority, a path prefix, a key, fewer tasks."""

import dataclasses

import pytest

from loadtests.served import served
from loadtests.target import Target, TargetError


def test_what_it_serves(remote_server):
    target = Target.parse(remote_server.url, remote=True, api_key=remote_server.api_key, ca_file=remote_server.ca_file)
    assert served(target).tasks == ("classify", "detect")
    grpc = Target.parse(
        remote_server.grpc_url, remote=True, api_key=remote_server.api_key, ca_file=remote_server.ca_file
    )
    assert {model.name for model in served(grpc).models} == {"mobilenet_v2", "lenet5", "yolov4_tiny"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"api_key": ""}, "needs a key"),
        ({"api_key": "another"}, "does not take this key"),
        ({"ca_file": None}, "is not trusted"),
        ({"prefix": ""}, "path prefix"),
    ],
)
def test_what_is_missing_is_named(remote_server, change, words):
    target = Target.parse(remote_server.url, remote=True, api_key=remote_server.api_key, ca_file=remote_server.ca_file)
    with pytest.raises(TargetError, match=words):
        served(dataclasses.replace(target, **change))


def test_it_is_not_this_machine(remote_server):
    with pytest.raises(TargetError, match="--remote"):
        Target.parse(remote_server.url)
