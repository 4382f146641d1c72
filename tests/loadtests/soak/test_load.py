"""The soak's clients against a small server: what counts as right, wrong, refused, hung up."""

import asyncio
import os

import pytest

from loadtests.client import run
from loadtests.soak.load import Crowd, Mix
from loadtests.soak.watch import Watch

ANSWER = b'{"predictions": [{"class_id": 1, "score": 0.5}]}'


@pytest.fixture
def service(tiny):
    tiny.body = ANSWER
    return tiny


def soak(service, mix=Mix(0.0, 0.0), seconds=0.5, then=lambda: None):  # noqa: B008 - a tuple
    crowd = Crowd(service.address, mix, timeout=1.0)

    async def both():
        await crowd.learn()
        then()
        await crowd.run(clients=4, seconds=seconds)

    run(both())
    return crowd


def test_all_questions_are_asked(service):
    crowd = soak(service)
    assert not crowd.errors
    assert len(crowd.asked) > 50
    assert set(service.paths) == {"/v1/classify", "/v1/detect", "/v1/segment", "/v1/segment?mask=none"}
    assert all(0 < asked.latency < 1 and asked.at <= 1.5 for asked in crowd.asked)


@pytest.mark.parametrize(
    ("attribute", "value", "words"),
    [
        ("body", ANSWER.replace(b"0.5", b"0.6"), "another answer"),
        ("body", b"<html>", "another answer"),
        ("status", "500", "500"),
        ("status", "429", "429"),
    ],
)
def test_wrong_answers_are_errors(service, attribute, value, words):
    crowd = soak(service, then=lambda: setattr(service, attribute, value))
    assert not crowd.asked
    assert crowd.errors
    assert all(words in what for what in crowd.errors)


def test_rubbish_that_is_accepted_is_an_error(service):
    crowd = soak(service, Mix(rubbish=1.0, hang_ups=0.0))
    assert crowd.refused == 0
    assert all("rubbish" in what and "200 where" in what for what in crowd.errors)
    assert len(crowd.errors) == 7


def test_hang_ups(service):
    service.seconds = 0.1
    crowd = Crowd(service.address, Mix(rubbish=0.0, hang_ups=1.0), timeout=1.0)
    run(crowd.run(clients=4, seconds=0.5))
    assert crowd.hung_up >= 8
    assert (crowd.asked, crowd.errors.total()) == ([], 0)
    assert service.connections >= crowd.hung_up


def test_a_service_that_is_gone_ends_the_soak(service):
    def close(closing=service.close):
        service.close = lambda: None  # once is enough
        closing()

    crowd = soak(service, seconds=60.0, then=close)
    assert crowd.gone
    assert crowd.errors.total() >= 200


def test_questions_must_be_answered_at_first(service):
    service.status = "503"
    with pytest.raises(ValueError, match="503"):
        soak(service)


def test_records(service):
    found = []
    crowd = Crowd(service.address, Mix(0.0, 0.0), timeout=1.0)

    async def both():
        await crowd.learn()
        service.body = b"other"
        watching = asyncio.create_task(Watch(crowd, service.address, os.getpid(), 0.5, found.append).run())
        await crowd.run(clients=2, seconds=1.3)
        watching.cancel()

    run(both())
    assert [record.end for record in found] == [0.5, 1.0]
    assert sum(record.errors for record in found) > 20
    assert all(record.rate == 0 and record.p99 is None for record in found)
    assert all(record.resident_mb > 20 and record.processes >= 1 for record in found)
    assert found[0].queue_depth is None  # its /metrics says nothing of it
