"""What hinders a load test from reaching a server, each alone: certificates, keys, prefixes, other hosts."""

import pytest

from loadtests.client import Limits, Request, closed_loop, run
from loadtests.served import served
from loadtests.target import Target, TargetError
from tests.loadtests.reach import KEY


@pytest.mark.parametrize("way", ["url", "direct", "grpc"])
def test_what_the_server_has(far, way):
    found = served(far.target(getattr(far, way)))
    assert sorted(model.name for model in found.models) == ["lenet5", "mobilenet_v2", "yolov4_tiny"]
    assert found.tasks == ("classify", "detect")
    assert not found.problem


@pytest.mark.parametrize("way", ["url", "direct", "grpc"])
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ca_file": None}, "--ca-file"),
        ({"api_key": ""}, "it needs a key: --api-key or ZOOSERVE_API_KEY"),
        ({"api_key": "wrong"}, "it does not take this key: --api-key or ZOOSERVE_API_KEY"),
    ],
)
def test_what_is_missing_is_said(far, way, changes, words):
    with pytest.raises(TargetError) as error:
        served(far.target(getattr(far, way), **changes))
    assert words in str(error.value)
    assert KEY not in str(error.value)


def test_a_wrong_prefix(far):
    with pytest.raises(TargetError, match="prefix"):
        served(far.target(far.url.replace("/vision", "/visions")))


def test_plain_http_to_a_port_with_tls(far):
    with pytest.raises(TargetError, match="https://"):
        served(far.target(far.direct.replace("https", "http")))


def test_another_host_is_to_be_confirmed(far):
    if not far.remote:
        pytest.skip(f"this server is on the loopback: {far.reason}")
    with pytest.raises(TargetError, match="--remote"):
        Target.parse(far.url)


def test_load_goes_through(far):
    target = far.target(far.url)
    load = run(closed_loop(target, [Request("GET", "/v1/models")], concurrency=2, limits=Limits(5, requests=20)))
    assert [sample.status for sample in load.samples] == [200] * 20
