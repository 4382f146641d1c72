"""LoadGen itself, with real senders, against a small server: what it sends, what it measures, what it cannot see."""

import json
import os
import signal
import threading

import psutil
import pytest

from loadtests.client import run
from loadtests.loadgen import bench as benches
from loadtests.loadgen.bench import Setup, bench
from loadtests.loadgen.spec import Spec
from loadtests.loadgen.summary import FILE, read_summary
from loadtests.loadgen.sut import SenderError, SystemUnderTest
from loadtests.loadgen.tables import measured, table, verdict
from loadtests.loadgen.trial import TrialError, conduct
from loadtests.loadgen.wire import Image, Plan
from loadtests.target import Target
from loadtests.transport import outcome_name, transport

ANSWER = json.dumps({"model": "m", "version": "1", "predictions": [{"class_id": 1, "score": 0.5}]}).encode()
OTHER = ANSWER.replace(b"0.5", b"0.6")
IMAGES = [Image("image/jpeg", b"a" * 100), Image("image/png", b"b" * 200_000)]


@pytest.fixture
def service(tiny):
    tiny.body = ANSWER
    return tiny


def plan(service, **changes):
    target = Target("http", service.address.host, service.address.port, task="classify")
    return Plan(**({"target": target, "options": {}, "images": IMAGES, "connections": 64, "timeout": 5.0} | changes))


def trial(service, tmp_path, spec, senders=1, before=lambda: None):
    with SystemUnderTest(plan(service), senders) as sut:
        sut.wait(20)
        before()
        return conduct(spec, sut, len(IMAGES), tmp_path)


@pytest.mark.parametrize("senders", [1, 2])
def test_single_stream(service, tmp_path, senders):
    service.seconds = 0.002
    spec = Spec("SingleStream", 1000.0, seconds=0.5, min_queries=100)
    done = trial(service, tmp_path, spec, senders, before=lambda: setattr(service, "most_at_once", 0))
    assert done.valid
    assert done.outcomes.keys() == {"200"}
    assert done.answered >= 100
    assert service.most_at_once == 1
    assert 2.0 <= done.summary.percentiles["50.00"] < 20
    assert {len(body) for body in service.bodies} == {100, 200_000}
    assert 0 < done.late_ms < 20


def test_multi_stream_sends_the_images_of_a_query_at_once(service, tmp_path):
    service.seconds = 0.002
    spec = Spec("MultiStream", 100.0, seconds=0.3, min_queries=20, images_per_query=5)
    done = trial(service, tmp_path, spec, before=lambda: setattr(service, "most_at_once", 0))
    assert service.most_at_once == 5
    assert done.answered % 5 == 0
    assert done.answered >= 100
    assert done.summary.p99 > 5 * 2
    assert done.summary.rate == pytest.approx(5 / (done.summary.mean / 1000))
    assert not done.valid  # twenty queries are too few for a p99
    assert "it wants 662 at least: --min-queries 662" in verdict(done)


def test_server_sends_at_the_rate_however_long_answers_take(service, tmp_path):
    service.seconds = 0.001
    done = trial(service, tmp_path, Spec("Server", 200.0, bound_ms=500, seconds=3.0, min_queries=100))
    assert done.valid
    assert done.in_bounds
    assert done.summary.rate == pytest.approx(200, rel=0.2)
    assert done.answered == pytest.approx(600, rel=0.2)
    assert done.summary.minimum >= 1.0


def test_server_out_of_bounds(service, tmp_path):
    service.seconds = 0.02
    done = trial(service, tmp_path, Spec("Server", 20.0, bound_ms=10, seconds=1.0, min_queries=20))
    assert not done.errors
    assert not done.in_bounds
    assert not done.valid
    assert "INVALID" in table([done])
    assert "is over the bound of 10 ms: offer less with --qps, or allow more with --bound-ms" in verdict(done)


def test_server_gives_up_on_a_hopeless_queue(service, tmp_path):
    service.seconds = 0.005  # at most 200 per second
    done = trial(service, tmp_path, Spec("Server", 1000.0, bound_ms=50, seconds=20.0, timeout=20))
    assert not done.valid
    assert done.answered < 2000  # of 20,000


def test_an_image_that_cannot_be_read_is_told(tmp_path):
    """Over either protocol, and before anything is sent."""
    for scheme in ("http", "grpc"):
        target = Target(scheme, "127.0.0.1", 1, task="classify", model="m", ip="127.0.0.1")
        requests = Plan(target, {}, [Image("image/jpeg", path=str(tmp_path / "gone.jpg"))], 1, 1.0).requests()

        async def ask(target=target, requests=requests):
            asker = transport(target, requests, 1.0)
            answer = await asker.ask(0)
            await asker.close()
            return answer

        answer = run(ask())
        assert outcome_name(answer.outcome) == "image not readable"
        assert b"gone.jpg" in answer.body


def test_senders_get_time_for_every_image(service, monkeypatch):
    """Each learns the right answer to each image: that takes long where there are many."""
    monkeypatch.setattr(benches, "_PATIENCE", 0.0)
    service.seconds = 0.2
    target = Target("http", service.address.host, service.address.port, task="classify", model="m", ip="127.0.0.1")
    with bench(target, Setup(IMAGES * 3, timeout=5.0), lambda _: None) as at:
        assert at.target.model == "m"


def test_offline(service, tmp_path):
    done = trial(service, tmp_path, Spec("Offline", 500.0, seconds=1.0, min_queries=300), 2)
    assert done.answered >= 550  # LoadGen asks for a tenth more than fits the time
    assert done.summary.rate > 100
    assert done.summary.scenario == "Offline"
    figures = measured("offline", [done])
    assert (figures.requests, figures.errors, figures.statuses) == (done.answered, 0, {"200": done.answered})
    assert figures.rate_per_s == pytest.approx(done.summary.rate)


def test_the_same_arrivals_again_and_others(service, tmp_path):
    counts = []
    for number, arrivals in enumerate((0, 0, 1)):
        spec = Spec("Server", 300.0, bound_ms=500, seconds=0.5, min_queries=50, arrivals=arrivals)
        counts.append(trial(service, tmp_path / str(number), spec).answered)
    assert counts[0] == counts[1] != counts[2]


@pytest.mark.parametrize(
    ("attribute", "value", "name"),
    [("status", "429", "429"), ("body", OTHER, "wrong answer"), ("body", b"", "wrong answer")],
)
def test_what_loadgen_cannot_see(service, tmp_path, attribute, value, name):
    service.seconds = 0.001
    done = trial(
        service,
        tmp_path,
        Spec("SingleStream", 2000.0, seconds=0.2, min_queries=100),
        before=lambda: setattr(service, attribute, value),
    )
    assert done.summary.valid
    assert not done.valid
    assert done.outcomes == {name: done.errors}
    assert f"{done.errors} of {done.errors} images were not answered rightly: {name}" in verdict(done)


def test_answers_that_do_not_come(service, tmp_path):
    def stall():
        service.seconds = 30.0

    with SystemUnderTest(plan(service, timeout=0.2), 1) as sut:
        sut.wait(20)
        stall()
        done = conduct(Spec("Server", 50.0, seconds=0.3, min_queries=10), sut, len(IMAGES), tmp_path)
    assert set(done.outcomes) == {"no answer in time"}


@pytest.mark.parametrize(("status", "body"), [("500", ANSWER), ("200", b"<html>")])
def test_a_service_that_does_not_answer_rightly_at_first(service, status, body, capfd):
    service.status, service.body = status, body
    with SystemUnderTest(plan(service), 1) as sut, pytest.raises(SenderError, match="a sender ended"):
        sut.wait(20)


def test_a_sender_that_dies_ends_the_test(service, tmp_path):
    service.seconds = 0.001
    with SystemUnderTest(plan(service), 1) as sut:
        sut.wait(20)
        running = (p for p in psutil.Process().children() if p.status() != psutil.STATUS_ZOMBIE)  # of tests before
        (sender,) = (p for p in running if "loadtests.loadgen.sender" in p.cmdline())
        threading.Timer(0.5, os.kill, (sender.pid, signal.SIGKILL)).start()
        with pytest.raises(TrialError, match="sender"):
            conduct(Spec("Server", 100.0, seconds=2.0), sut, len(IMAGES), tmp_path)


def test_several_tests_one_after_the_other(service, tmp_path):
    with SystemUnderTest(plan(service), 2) as sut:
        sut.wait(20)
        for number in range(3):
            spec = Spec("Server", 300.0, seconds=0.3, min_queries=50)
            done = conduct(spec, sut, len(IMAGES), tmp_path / str(number))
            assert done.outcomes == {"200": done.answered}
            assert (tmp_path / str(number) / FILE).is_file()


def test_no_summary(tmp_path):
    (tmp_path / FILE).write_text("MLPerf Results Summary\nScenario : Server\n")
    with pytest.raises(ValueError, match="not a whole summary"):
        read_summary(tmp_path / FILE)
