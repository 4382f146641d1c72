"""The soak's clients against a small server: what counts as right, wrong, refused, hung up."""

import asyncio
import dataclasses
import os

import pytest

from loadtests.client import run
from loadtests.soak.load import Clients, Mix, RightAnswers
from loadtests.soak.run import measurement
from loadtests.soak.watch import Record, Watch
from loadtests.target import TASKS, Target

ANSWER = b'{"predictions": [{"class_id": 1, "score": 0.5}]}'


@pytest.fixture
def service(tiny):
    tiny.body = ANSWER
    return tiny


def clients_of(service, mix=Mix(0.0, 0.0), tasks=TASKS):  # noqa: B008 - a tuple
    target = Target.parse(f"http://127.0.0.1:{service.address.port}")
    return Clients([dataclasses.replace(target, task=task, model="m") for task in tasks], mix, timeout=1.0)


def soak(service, mix=Mix(0.0, 0.0), seconds=0.5, then=lambda: None, tasks=TASKS):  # noqa: B008
    clients = clients_of(service, mix, tasks)

    async def both():
        await clients.learn()
        then()
        await clients.run(clients=4, seconds=seconds)

    run(both())
    return clients


@pytest.mark.parametrize("tasks", [TASKS, ("detect",), ("classify", "detect")])
def test_the_tasks_that_there_are_are_asked(service, tasks):
    clients = soak(service, tasks=tasks)
    assert not clients.errors
    assert len(clients.answered) > 50
    paths = {f"/v1/{task}?model=m" for task in tasks}
    assert set(service.paths) == paths | ({"/v1/segment?model=m&mask=none"} if "segment" in tasks else set())
    assert all(0 < one.latency < 1 and one.at <= 1.5 for one in clients.answered)


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
    clients = soak(service, then=lambda: setattr(service, attribute, value))
    assert not clients.answered
    assert clients.errors
    assert all(words in what for what in clients.errors)


def test_rubbish_that_is_accepted_is_an_error(service):
    clients = soak(service, Mix(rubbish=1.0, hang_ups=0.0))
    assert clients.refused == 0
    assert all("rubbish" in what and "200 where" in what for what in clients.errors)
    assert len(clients.errors) == 7


def test_hang_ups(service):
    service.seconds = 0.1
    clients = clients_of(service, Mix(rubbish=0.0, hang_ups=1.0))
    run(clients.run(clients=4, seconds=0.5))
    assert clients.hung_up >= 8
    assert (len(clients.answered), clients.errors.total()) == (0, 0)
    assert service.connections >= clients.hung_up


def test_a_service_that_is_gone_ends_the_soak(service):
    def close(closing=service.close):
        service.close = lambda: None  # once is enough
        closing()

    clients = soak(service, seconds=60.0, then=close)
    assert clients.gone
    assert clients.errors.total() >= 200


def test_questions_must_be_answered_at_first(service):
    service.status = "503"
    with pytest.raises(ValueError, match="503"):
        soak(service)


def test_a_rate_is_of_the_whole_time(service):
    """Of a service that stopped to answer, the time without answers counts, too."""
    clients = clients_of(service)
    for second in range(30):
        clients.answered.append(second, 0.1)
    silent = Record(60.0, 0.0, None, None, 0, 0, 0, None, 0, None, {})
    found = measurement([silent], clients, 1)
    assert (found.seconds, found.rate_per_s) == (60.0, 0.5)


def test_records(service):
    found = []
    clients = clients_of(service)

    async def both():
        await clients.learn()
        service.body = b"other"
        watching = asyncio.create_task(Watch(clients, service.address, os.getpid(), 0.5, found.append).run())
        await clients.run(clients=2, seconds=1.3)
        watching.cancel()

    run(both())
    assert [record.end for record in found] == [0.5, 1.0]
    assert sum(record.errors for record in found) > 20
    assert all(record.rate == 0 and record.p99 is None for record in found)
    assert all(record.resident_mb > 20 and record.processes >= 1 for record in found)
    assert found[0].queue_depth is None  # its /metrics says nothing of it


def test_memory_of_another_machine_is_what_its_metrics_say(service):
    service.body = b"process_resident_memory_bytes 5e8\nzooserve_processes 3\n"
    found = []
    clients = clients_of(service)

    async def both():
        watching = asyncio.create_task(Watch(clients, service.address, None, 0.3, found.append).run())
        await asyncio.sleep(0.5)
        watching.cancel()

    run(both())
    assert (found[0].resident_mb, found[0].processes) == (500.0, 3)


def test_answers_are_kept_small_and_in_order():
    answers = RightAnswers()
    for n in range(5):
        answers.append(n, n / 10)
    assert [one.at for one in answers] == [0, 1, 2, 3, 4]
    assert answers[3:] == [(3.0, 0.3), (4.0, 0.4)]
    assert answers[-1] == (4.0, 0.4)
