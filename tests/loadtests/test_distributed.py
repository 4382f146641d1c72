"""A closed loop from several processes."""

import socket

import pytest

from loadtests.client import Limits
from loadtests.distributed import distributed_load
from loadtests.target import Target


def test_clients_are_spread_over_processes(tiny):
    load = distributed_load(
        tiny.address, [tiny.get("/wait/0.02")], concurrency=5, limits=Limits(0.5, timeout=5), processes=2
    )
    assert tiny.most_at_once == tiny.connections == 5
    assert len(load.samples) == tiny.paths["/wait/0.02"] >= 50
    assert all(s.status == 200 for s in load.samples)
    assert load.window == 0.5


def test_not_more_processes_than_clients(tiny):
    load = distributed_load(
        tiny.address, [tiny.get("/ok")], concurrency=1, limits=Limits(5, requests=10, timeout=5), processes=4
    )
    assert len(load.samples) == tiny.paths["/ok"] == 10


def test_nobody_listens():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = Target.at("127.0.0.1", probe.getsockname()[1])
        with pytest.raises(OSError, match="refused"):
            distributed_load(address, [], concurrency=2, limits=Limits(0.1), processes=2)
