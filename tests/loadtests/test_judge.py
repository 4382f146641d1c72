"""`--fail-if`: its grammar, and every kind of condition on both sides of its bound."""

import click
import pytest
from click.testing import CliRunner

from loadtests.judge import EXIT_CODE, Condition, exit_if_failed, fail_if_option, judge
from loadtests.report import Measurement


def measured(name="8 clients", **given):
    usual = {"seconds": 3.0, "requests": 1000, "errors": 0, "rate_per_s": 100.0, "p50_ms": 10.0, "p90_ms": 20.0}
    usual |= {"p99_ms": 50.0, "mean_ms": 12.0, "max_ms": 2500.0, "stable": True}
    return Measurement(name=name, **usual | given)


@pytest.mark.parametrize(
    ("text", "given", "problem"),
    [
        ("p99>50ms", {}, ""),
        ("p99>=50ms", {}, "8 clients: p99 50 ms (fails if p99>=50ms)"),
        ("p99>50ms", {"p99_ms": 50.1}, "8 clients: p99 50.10 ms (fails if p99>50ms)"),
        ("p99 > 0.05 s", {"p99_ms": 51.0}, "8 clients: p99 0.05 s (fails if p99 > 0.05 s)"),
        ("p50>9999us", {}, "8 clients: p50 10000 us (fails if p50>9999us)"),
        ("p90>.02s", {}, ""),
        ("mean<12.5ms", {}, "8 clients: mean 12 ms (fails if mean<12.5ms)"),
        ("max>2s", {}, "8 clients: max 2.50 s (fails if max>2s)"),
        ("rate<100/s", {}, ""),
        ("rate<=100/s", {}, "8 clients: rate 100/s (fails if rate<=100/s)"),
        ("errors>0", {}, ""),
        ("errors>0", {"errors": 1}, "8 clients: errors 1 (fails if errors>0)"),
        ("errors>1%", {"errors": 10}, ""),
        ("errors>1%", {"errors": 11}, "8 clients: errors 1.10% (fails if errors>1%)"),
        ("errors>1%", {"requests": 0}, "8 clients: errors is not known: nothing was answered"),
        ("requests<1001", {}, "8 clients: requests 1000 (fails if requests<1001)"),
        ("unstable", {}, ""),
        ("unstable", {"stable": False}, "8 clients: not stable"),
        ("unstable", {"stable": None}, "8 clients: not stable"),
        ("p99>50ms", {"p99_ms": None, "errors": 1000}, "8 clients: p99 is not known: nothing was answered"),
        ("p99<50ms", {"p99_ms": None, "errors": 1000}, "8 clients: p99 is not known: nothing was answered"),
        ("p99>50ms", {"p99_ms": None, "errors": 1}, "8 clients: p99 is not known: not every answer was right"),
        ("p99>50ms", {"p99_ms": None}, "8 clients: p99 is not known: this load has none"),
    ],
)
def test_conditions(text, given, problem):
    assert Condition.parse(text).problem(measured(**given)) == problem


@pytest.mark.parametrize(
    ("text", "given", "fails"),
    [
        ("p99>+10%", {"p99_ms": 55.0}, False),
        ("p99>+10%", {"p99_ms": 55.1}, True),
        ("rate<-5%", {"rate_per_s": 95.0}, False),
        ("rate<-5%", {"rate_per_s": 94.9}, True),
        ("errors>+0%", {"errors": 0}, False),
        ("errors>+0%", {"errors": 1}, True),
        ("p99>+10%", {"p99_ms": None}, True),
        ("p99>52ms", {"p99_ms": 55.0}, True),
    ],
)
def test_changes(text, given, fails):
    condition = Condition.parse(text, relative=True)
    assert bool(condition.problem(measured(**given), measured())) == fails


@pytest.mark.parametrize(
    ("requests", "errors", "fails"), [(2000, 200, False), (2000, 221, True), (500, 60, True), (0, 0, True)]
)
def test_of_errors_the_share_changes(requests, errors, fails):
    condition = Condition.parse("errors>+10%", relative=True)
    after = measured(requests=requests, errors=errors)
    assert bool(condition.problem(after, measured(errors=100))) == fails


def test_the_rate_of_an_open_loop_changes_by_chance_and_the_answered_share_counts():
    condition = Condition.parse("rate<-5%", relative=True)
    before = measured(offered_per_s=100.0)
    assert not condition.problem(measured(offered_per_s=100.0, rate_per_s=80.0, requests=800), before)
    assert condition.problem(measured(offered_per_s=100.0, errors=60), before)


def test_a_change_against_nothing_has_failed():
    assert judge([Condition.parse("p99>+10%", relative=True)], [measured()], {}) == [
        "8 clients: the change of p99 is not known"
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected a figure"),
        ("p99", "such as 'p99>50ms'"),
        ("p99>", "such as 'p99>50ms'"),
        ("p99=50ms", "expected a figure"),
        ("p99>50", "us or ms or s, such as 'p99>50ms'"),
        ("p99>50%", "us or ms or s"),
        ("p99>fast", "such as 'p99>50ms'"),
        ("p95>50ms", "there is no figure p95; expected p50, p90"),
        ("rate<100", "expected a value in /s, such as 'rate<100/s'"),
        ("errors>1ms", "no unit or %, such as 'errors>0'"),
        ("unstable>0", "stands alone"),
        ("p99>+10%", "needs two results"),
        ("p99>50ms>3", "such as 'p99>50ms'"),
    ],
)
def test_what_is_no_condition(text, words):
    with pytest.raises(ValueError, match=words.replace("?", r"\?")):
        Condition.parse(text)


def test_a_change_is_in_per_cent():
    with pytest.raises(ValueError, match=r"such as 'p99>\+10%'"):
        Condition.parse("p99>+10ms", relative=True)


@pytest.mark.parametrize(
    ("text", "failed"),
    [
        ("p99>40ms", ["1 client", "8 clients", "32 clients"]),
        ("8 clients:p99>40ms", ["8 clients"]),
        ("* clients: p99>40ms", ["8 clients", "32 clients"]),
    ],
)
def test_a_name_chooses_measurements(text, failed):
    found = [measured(name) for name in ("1 client", "8 clients", "32 clients")]
    problems = judge([Condition.parse(text)], found)
    assert [problem.partition(":")[0] for problem in problems] == failed


def test_a_name_that_no_measurement_has_fails():
    (problem,) = judge([Condition.parse("9 clients:errors>0")], [measured()])
    assert problem.endswith("no measurement is called so; there are: 8 clients")


@click.command()
@fail_if_option()
def command(fail_if):
    exit_if_failed(judge(fail_if, [measured()]))
    click.echo("passed")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 0, "passed"),
        (["--fail-if", "p99>50ms", "--fail-if", "errors>0"], 0, "passed"),
        (["--fail-if", "p99>49ms", "--fail-if", "errors>0"], EXIT_CODE, "failed: 8 clients: p99 50 ms"),
        (["--fail-if", "p99>49"], 2, "such as 'p99>50ms'"),
    ],
)
def test_the_option(arguments, code, words):
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == code
    assert words in done.output
