"""The phases that a dashboard should tell apart: what they send, and that a service answers them."""

from click.testing import CliRunner

from loadtests.phases import main, phases
from loadtests.target import TASKS, Target
from tests.loadtests.reach import KEY

ASKED = [Target("http", "127.0.0.1", 80, task=task, model="m") for task in TASKS]


def test_phases_differ_in_what_they_ask_for():
    light, large, flood, again = phases(ASKED, 10.0, 200.0)
    assert light is again
    assert max(len(r.body) for r in large.requests) > 5 * max(len(r.body) for r in light.requests)
    assert large.rate < light.rate < flood.rate
    assert {r.headers["X-Request-Timeout-Ms"] for r in flood.requests} == {"2000"}
    assert not any("X-Request-Timeout-Ms" in r.headers for r in light.requests)


def test_a_service_answers_them(server):
    arguments = ["--url", server.url, "--minutes", "0.05", "--rate", "4", "--flood", "8"]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert [line.split(":")[0] for line in lines] == ["light load", "large images", "too much load", "light load"]
    assert all("x 200" in line for line in lines)


def test_the_tasks_that_there_are_are_asked(far):
    arguments = ["--url", far.url, *far.options, "--minutes", "0.05", "--rate", "4", "--flood", "4"]
    result = CliRunner().invoke(main, arguments, env={"ZOOSERVE_API_KEY": KEY}, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "x 404" not in result.output
    assert result.output.count("x 200") == 4
    paths = [request.path for request in phases(ASKED[:2], 1.0, 2.0)[0].requests]
    assert {path: paths.count(path) for path in paths} == {"/v1/classify?model=m": 19, "/v1/detect?model=m": 9}


def test_a_service_that_is_not_there_is_named():
    result = CliRunner().invoke(main, ["--url", "http://127.0.0.1:9", "--minutes", "0.05"])
    assert result.exit_code == 1
    assert "loadtests.phases" in result.output
