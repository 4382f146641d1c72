"""What the table of faults counts."""

import pytest
from click.testing import CliRunner

from loadtests.faults.__main__ import main, table
from loadtests.faults.load import Clients
from loadtests.target import Target
from tests.conftest import ROOT


@pytest.fixture
def clients():
    clients = Clients(Target.at("127.0.0.1", 1), [])
    clients.answers = [(0.0, 0.1, 200), (0.9, 0.3, 200), (2.0, 0.5, 200), (2.1, 0.1, 503), (5.0, 0.25, 200)]
    return clients


def test_what_came_after_the_fault_counts(clients):
    clients.lost, clients.turned_away, clients.not_ready = [1.5], [0.5, 1.5, 1.6], [0.2, 2.0, 3.5]
    outcome = clients.outcome("a fault", 1.0)
    assert (outcome.answered, outcome.refused, outcome.lost, outcome.turned_away) == (2, {"503": 1}, 1, 2)
    assert outcome.silence_s == pytest.approx(2.75)  # from the answer at 2.5 s to the one at 5.25 s
    assert outcome.ready_s == pytest.approx(2.5)
    assert outcome.p99_ms == pytest.approx((300, 500))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--only", "no such fault"], "there are: SIGTERM at full load; "),
        (["--models", "deploy"], "deploy holds no mobilenet_v2: run `zooserve export mobilenet_v2`"),
    ],
)
def test_what_is_wrong_is_said(arguments, words, monkeypatch):
    monkeypatch.chdir(ROOT)
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert words in " ".join(done.output.split())


def test_nothing_happened(clients):
    outcome = clients.outcome("none", 6.0)
    assert (outcome.answered, outcome.refused, outcome.lost, outcome.silence_s, outcome.ready_s) == (0, {}, 0, 0, 0)
    assert table([outcome]).splitlines()[-1].split("|")[1].strip() == "none"
