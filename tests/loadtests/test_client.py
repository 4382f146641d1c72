"""The load client against a small server: counts, limits, timeouts, failures, and when requests go out."""

import socket
from itertools import pairwise
from statistics import mean, stdev

import pytest

from loadtests.client import Limits, Request, arrival_times, closed_loop, fetch, open_loop, run
from loadtests.target import Target


def closed(tiny, *paths, concurrency=1, **limits):
    limits = Limits(**{"seconds": 10.0, "timeout": 5.0} | limits)
    return run(closed_loop(tiny.address, [tiny.get(path) for path in paths], concurrency=concurrency, limits=limits))


def test_encoding():
    data = Request("POST", "/a?b=1", {"X-One": "1"}, b"body").encode(Target.at("127.0.0.1", 81))
    assert data == b"POST /a?b=1 HTTP/1.1\r\nHost: 127.0.0.1:81\r\nX-One: 1\r\nContent-Length: 4\r\n\r\nbody"


def test_encoding_for_a_server_with_a_prefix_and_a_key():
    target = Target("https", "::1", 8443, "/vision", "sesame")
    data = Request("GET", "/v1/models").encode(target)
    assert data.startswith(b"GET /vision/v1/models HTTP/1.1\r\nHost: [::1]:8443\r\nAuthorization: Bearer sesame\r\n")


def test_fetch(tiny):
    response = run(fetch(tiny.address, tiny.get("/ok", b"x" * 200_000)))
    assert (response.status, response.body, response.headers["x-path"]) == (200, b"ok", "/ok")
    assert tiny.bodies == {b"x" * 200_000: 1}
    assert run(fetch(tiny.address, tiny.get("/chunked"))).body == b"abcde"


def test_nobody_listens():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        with pytest.raises(OSError, match="refused"):
            run(fetch(Target.at("127.0.0.1", probe.getsockname()[1]), Request("GET", "/")))


def test_closed_loop_counts_and_reuses_connections(tiny):
    load = closed(tiny, "/ok", "/status/429", "/chunked", concurrency=4, requests=90)
    assert tiny.paths == {"/ok": 30, "/status/429": 30, "/chunked": 30}
    assert [sum(s.which == n for s in load.samples) for n in range(3)] == [30, 30, 30]
    assert all(s.status == (429 if s.which == 1 else 200) and not s.failure and s.latency > 0 for s in load.samples)
    assert tiny.connections == 4


def test_closed_loop_keeps_its_concurrency(tiny):
    closed(tiny, "/wait/0.02", concurrency=5, requests=25)
    assert tiny.most_at_once == 5


def test_closed_loop_ends_in_time(tiny):
    load = closed(tiny, "/wait/0.01", concurrency=2, seconds=0.3)
    assert load.window == 0.3
    assert 20 <= len(load.samples) <= 60
    assert max(s.start for s in load.samples) < 0.3


@pytest.mark.parametrize(
    ("path", "failure"), [("/wait/5", "timeout"), ("/break", "connection"), ("/noise", "connection")]
)
def test_failures(tiny, path, failure):
    load = closed(tiny, path, "/ok", requests=4, timeout=0.1)
    assert [(s.status, s.failure) for s in load.samples] == [(0, failure), (200, ""), (0, failure), (200, "")]
    if failure == "timeout":
        # Far less than the server waits; a busy machine is slow to notice.
        assert all(0.099 <= s.latency < 4 for s in load.samples if s.failure)


def test_a_connection_that_the_server_ends_is_replaced(tiny):
    load = closed(tiny, "/last", requests=5)
    assert [s.failure for s in load.samples] == [""] * 5
    assert tiny.connections == 5


@pytest.mark.parametrize("rate", [0.5, 20, 1000])
def test_arrival_times_are_a_poisson_process(rate):
    times = arrival_times(rate, seconds=4000 / rate, most=10**6, seed=7)
    gaps = [b - a for a, b in pairwise(times)]
    assert abs(len(times) / 4000 - 1) < 0.05
    assert abs(mean(gaps) * rate - 1) < 0.05
    assert abs(stdev(gaps) / mean(gaps) - 1) < 0.05  # an exponential's deviation is its mean
    assert times == sorted(times)
    assert times[-1] < 4000 / rate


def test_arrival_times_are_bounded_and_repeatable():
    assert len(arrival_times(1000, 10, most=50, seed=1)) == 50
    assert arrival_times(100, 1, 10**6, seed=3) == arrival_times(100, 1, 10**6, seed=3)
    assert arrival_times(100, 1, 10**6, seed=3) != arrival_times(100, 1, 10**6, seed=4)
    with pytest.raises(ValueError, match="above 0"):
        arrival_times(0, 1, 1, seed=0)


def test_open_loop_sends_when_it_is_time(tiny):
    load = run(open_loop(tiny.address, [tiny.get("/ok")], rate=200, limits=Limits(1.0), seed=5))
    assert sorted(s.start for s in load.samples) == pytest.approx(arrival_times(200, 1.0, 10**6, 5))
    assert all(s.status == 200 and 0 <= s.late <= s.latency for s in load.samples)
    assert sorted(s.late for s in load.samples)[len(load.samples) // 2] < 0.02
    assert load.window == 1.0
    assert tiny.paths["/ok"] == len(load.samples)


def test_open_loop_does_not_wait_for_answers(tiny):
    load = run(open_loop(tiny.address, [tiny.get("/wait/0.3")], rate=100, limits=Limits(0.5)))
    assert len(load.samples) == len(arrival_times(100, 0.5, 10**6, 0))
    assert tiny.most_at_once > 10
    assert all(0.3 <= s.latency < 1 for s in load.samples)


def test_open_loop_notes_what_it_could_not_send(tiny):
    limits = Limits(0.5, timeout=5)
    load = run(open_loop(tiny.address, [tiny.get("/wait/0.4")], rate=100, limits=limits, connections=3))
    assert tiny.most_at_once == 3
    assert sum(s.failure == "not sent" for s in load.samples) == len(load.samples) - tiny.paths["/wait/0.4"] > 20


def test_open_loop_gives_up_on_answers(tiny):
    load = run(open_loop(tiny.address, [tiny.get("/wait/9")], rate=50, limits=Limits(0.2, timeout=0.1)))
    assert load.samples
    assert all(s.failure == "timeout" and s.latency < 1 for s in load.samples)


def test_open_loop_ends_at_its_number_of_requests(tiny):
    load = run(open_loop(tiny.address, [tiny.get("/ok")], rate=500, limits=Limits(10, requests=20)))
    assert len(load.samples) == tiny.paths["/ok"] == 20
    assert load.window == pytest.approx(max(s.start for s in load.samples))
