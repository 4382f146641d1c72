"""The running service refuses every kind of rubbish with the status that the load tests take for right."""

import json

import pytest

from loadtests.album import jpeg
from loadtests.client import fetch, run
from loadtests.rubbish import rubbish
from loadtests.target import Target


def test_rubbish(server):
    photo = jpeg("coffee")
    address = Target.parse(server.url)
    for kind in rubbish(photo.data):
        response = run(fetch(address, kind.request))
        assert response.status == kind.status, kind.name
        assert json.loads(response.body)["detail"], kind.name


@pytest.mark.parametrize("status", [400, 404, 413, 415, 422])
def test_every_refusal_is_there(status):
    assert status in {kind.status for kind in rubbish(b"photo")}
