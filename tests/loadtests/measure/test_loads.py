"""How many windows a load gets, and which of them its figures are about."""

import pytest
from click.testing import CliRunner

from loadtests.client import Load, Sample
from loadtests.disturbance import Disturbance
from loadtests.measure import __main__ as command
from loadtests.measure import loads
from loadtests.measure.loads import ChosenLoad, Plan, measure
from loadtests.measure.tables import notes, table
from loadtests.report import read_json
from loadtests.target import Target

PLAN = Plan(seconds=1.0, windows=6, stability=0.05, warm_up=0.5, timeout=9.0)


@pytest.fixture
def answering(monkeypatch):
    """Makes loads of so many answers a second in turn (the last goes on); returns what was asked for."""

    def script(*rates, status=200, late=0.0):
        asked = []

        def send(self, target, requests, limits, seed):
            asked.append((limits.seconds, seed))
            rate = rates[min(max(seed, 0), len(rates) - 1)]
            samples = [Sample(0, n / rate, 1 / rate, status, "", late) for n in range(int(rate * limits.seconds))]
            return Load(samples, limits.seconds)

        monkeypatch.setattr(loads.ChosenLoad, "send", send)
        return asked

    return script


def measured(load=None, plan=PLAN):
    said = []
    return measure(load or ChosenLoad(clients=8), Target("http", "127.0.0.1", 3000), [], plan, said.append), said


@pytest.mark.parametrize(
    ("rates", "windows", "rate", "stable"),
    [
        ((100,), 3, 100, True),
        ((50, 100), 4, 100, True),
        ((50, 60, 100, 102, 98), 5, 100, True),
        ((10, 20, 40, 80, 160, 320), 6, (80 + 160 + 320) / 3, False),
    ],
)
def test_windows_go_on_until_three_agree(answering, rates, windows, rate, stable):
    asked = answering(*rates)
    found, said = measured()
    assert asked == [(0.5, -1), *((1.0, n) for n in range(windows))]
    assert len(said) == windows
    assert (found.stable, len(found.windows)) == (stable, 3)
    assert found.rate_per_s == pytest.approx(rate, rel=0.01)
    assert said[0].startswith(f"8 clients, window 1: {rates[0]}.0/s, p50 {1000 / rates[0]:.2f} ms")


def test_loads_before_a_server_dies_count(tiny, tmp_path, monkeypatch):
    close, tiny.close = tiny.close, lambda: None  # once is enough
    tiny.body = b'{"model": "m", "version": "1"}'

    def measured_once(load, *rest):
        if load.clients == 2:
            close()
        return measure(load, *rest)

    monkeypatch.setattr(command, "measure", measured_once)
    url, out = f"http://127.0.0.1:{tiny.address.port}", tmp_path / "out.json"
    arguments = ["--url", url, "--clients", "1,2,3", "--seconds", "0.1", "--warm-up", "0", "--json", str(out)]
    done = CliRunner().invoke(command.main, arguments)
    assert done.exit_code == 1
    assert f"{url} is not reachable" in done.output
    assert "after 1 of 3 loads" in done.output
    assert [one.name for one in read_json(out).measurements] == ["1 client"]


def test_fewer_than_three_windows_are_not_judged(answering):
    answering(100)
    found, _ = measured(plan=Plan(1.0, 1, 0.05, 0.0, 9.0))
    assert (found.stable, len(found.windows)) == (None, 1)
    assert "| 8 clients |      100.0 |  10.00 |  10.00 |  10.00 |      0 |      - |" in table([found])


@pytest.mark.parametrize(
    ("load", "given", "words"),
    [
        (ChosenLoad(clients=8), {}, []),
        (ChosenLoad(offered_per_s=100.0), {}, []),
        (
            ChosenLoad(clients=8),
            {"status": 503},
            ["600 of 600 requests were not answered with 200: 600 x 503", "not stable within 5% (a window without"],
        ),
        (ChosenLoad(clients=8), {"late": 0.002}, ["the client was up to 2.0 ms late itself (p99)"]),
    ],
)
def test_notes(answering, load, given, words):
    answering(200, **given)
    found, _ = measured(load)
    said = notes([found], {}, PLAN)
    assert len(said) == len(words)
    for sentence, expected in zip(said, words, strict=True):
        assert sentence.startswith(f"{found.name}: ")
        assert expected in sentence


def test_a_server_that_does_not_keep_up_is_named(monkeypatch):
    slow = [Sample(0, n / 100, 5.0 + n / 100, 200) for n in range(100)]  # a second's requests take seven
    monkeypatch.setattr(loads.ChosenLoad, "send", lambda *_: Load(slow, 1.0))
    found, _ = measured(ChosenLoad(offered_per_s=100.0))
    assert notes([found], {}, PLAN) == [
        "100 per second: the server did not keep up; latencies grow with the length of the load."
    ]


def test_a_machine_that_was_not_quiet_is_named(answering):
    answering(200)
    found, _ = measured()
    assert notes([found], {found.name: Disturbance(0.1, 0.0, 0.0)}, PLAN) == []
    assert notes([found], {found.name: Disturbance(0.9, 0.0, 0.0)}, PLAN) == [
        "8 clients: this machine was not quiet: other processes kept 0.90 cores busy."
    ]


@pytest.mark.parametrize(
    ("load", "name"),
    [
        (ChosenLoad(clients=1), "1 client"),
        (ChosenLoad(clients=8), "8 clients"),
        (ChosenLoad(offered_per_s=50.0), "50 per second"),
        (ChosenLoad(offered_per_s=0.5), "0.5 per second"),
    ],
)
def test_names(load, name):
    assert load.name == name


@pytest.mark.parametrize("load", [ChosenLoad(clients=2), ChosenLoad(offered_per_s=50.0)])
def test_loads_are_sent(tiny, load):
    target = Target("http", "127.0.0.1", tiny.address.port)
    sent = load.send(target, [tiny.get("/wait/0.05", b"1"), tiny.get("/ok", b"2")], loads.Limits(0.5), 0)
    assert {sample.status for sample in sent.samples} == {200}
    assert sum(tiny.paths.values()) == len(sent.samples) >= 5
    assert len(tiny.bodies) == 2
