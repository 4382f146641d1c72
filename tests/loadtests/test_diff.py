"""Two results side by side: what counts as a change, what may not be compared, and the command."""

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from loadtests.diff import changes, differences, main, versions_changed
from loadtests.report import Machine, Measurement, Report, TestedServer, Window, write_json

MACHINE = Machine("a processor", 2, 8.0, "Linux 6", "3.11", 0.1)
SERVER = TestedServer("http://127.0.0.1:3000", "http", "classify", "mobilenet_v2", "1")


def measured(name="8 clients", rates=(100, 100, 100), p99s=(50, 50, 50), **given):
    windows = [Window(1.0, rate, 0, rate, 10.0, 20.0, p99) for rate, p99 in zip(rates, p99s, strict=True)]
    usual = {"seconds": 3.0, "requests": sum(rates), "errors": 0, "rate_per_s": sum(rates) / 3, "p50_ms": 10.0}
    usual |= {"p90_ms": 20.0, "p99_ms": sum(p99 or 0 for p99 in p99s) / 3, "windows": windows, "stable": True}
    return Measurement(name=name, **usual | given)


def result(*measurements, **given):
    usual = {"tool": "measure", "date": "2026-01-01", "command": "measure", "machine": MACHINE, "target": SERVER}
    usual |= {"versions": {"onnxruntime": "1"}, "settings": {"seconds": 1.0, "json": "a"}}
    return Report(schema_version=2, measurements=list(measurements or [measured()]), **usual | given)


def words(before, after, **given):
    return {change.figure: change.word for change in changes([before], [after], **given)}


@pytest.mark.parametrize(
    ("before", "after", "figure", "word"),
    [
        ({}, {}, "rate", "within noise"),
        ({}, {"rates": (104, 104, 104)}, "rate", "within noise"),
        ({}, {"rates": (106, 106, 106)}, "rate", "faster"),
        ({}, {"rates": (94, 94, 94)}, "rate", "slower"),
        ({"rates": (90, 100, 110)}, {"rates": (106, 106, 106)}, "rate", "within noise"),  # its own windows: ±10 %
        ({"rates": (90, 100, 110)}, {"rates": (112, 112, 112)}, "rate", "faster"),
        ({}, {"p99s": (53, 53, 53)}, "p99", "slower"),
        ({}, {"p99s": (47, 47, 47)}, "p99", "faster"),
        ({}, {"p99s": (40, 50, 60)}, "p99", "within noise"),
        ({}, {"p99s": (60, 70, 80)}, "p99", "slower"),
        ({}, {"rates": (50, 50, 50), "stable": False}, "rate", "too noisy to judge"),
        ({"stable": False}, {"rates": (50, 50, 50)}, "rate", "too noisy to judge"),
        ({"stable": None}, {"rates": (50, 50, 50)}, "rate", "slower"),
        ({}, {"p99_ms": None}, "p99", "not known"),
        ({"p99_ms": None}, {}, "p99", "not known"),
        (
            {"p99s": (50, None, 50), "p99_ms": 50},
            {"p99s": (90, 90, 90)},
            "p99",
            "too noisy to judge",
        ),  # one had no answer
        ({}, {"rates": (0, 0, 0)}, "rate", "slower"),
        ({}, {"rates": (0, 0, 0), "stable": False}, "rate", "slower"),
        ({"rates": (0, 0, 0)}, {}, "rate", "not known"),
    ],
)
def test_what_counts_as_a_change(before, after, figure, word):
    assert words(measured(**before), measured(**after))[figure] == word


def test_open_loops_at_other_rates_are_not_alike():
    slow, alike, quick = (result(measured(offered_per_s=rate)) for rate in (20.0, 20.5, 40.0))
    assert differences(slow, alike) == []
    assert differences(slow, quick) == ["8 clients, offered per second: 20.0 and 40.0"]


def test_in_open_loops_the_answered_share_takes_the_place_of_the_rate():
    def opened(rates, errors=0):
        windows = [Window(1.0, rate, errors, rate - errors, 10.0, 20.0, 50.0) for rate in rates]
        return measured(rates=rates, errors=3 * errors, offered_per_s=100.0, windows=windows)

    by_chance = words(opened((90, 100, 110)), opened((120, 120, 120)))
    assert by_chance == {
        "answered": "within noise",
        "p50": "within noise",
        "p90": "within noise",
        "p99": "within noise",
    }
    assert words(opened((100, 100, 100)), opened((100, 100, 100), errors=20))["answered"] == "slower"


def test_the_least_noise_is_an_option():
    assert words(measured(), measured(rates=(106, 106, 106)), noise=0.1)["rate"] == "within noise"
    assert words(measured(), measured(rates=(103, 103, 103)), noise=0.01)["rate"] == "faster"


def test_measurements_without_windows_have_the_least_noise():
    assert words(measured(windows=[]), measured(windows=[], p99_ms=53.0))["p99"] == "slower"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, []),
        ({"settings": {"seconds": 1.0, "json": "b"}}, []),
        ({"versions": {"onnxruntime": "2"}}, []),
        ({"target": replace(SERVER, version="2", url="http://other")}, []),
        ({"settings": {"seconds": 2.0}}, ["setting seconds: 1.0 and 2.0"]),
        ({"settings": {"seconds": 1.0, "rate": 3}}, ["setting rate: - and 3"]),
        ({"tool": "soak"}, ["tool: measure and soak"]),
        ({"machine": replace(MACHINE, cores=4, load=9.0)}, ["machine, cores: 2 and 4"]),
        ({"target": replace(SERVER, model="resnet50")}, ["target, model: mobilenet_v2 and resnet50"]),
        ({"target": None}, ["target: only one of the two results names its server"]),
        (
            {"measurements": [measured("8 clients"), *(measured(str(n)) for n in range(5))]},
            ["measurements only after: 0; 1; 2 and 2 more"],
        ),
        (
            {"measurements": [measured("1 client")]},
            ["measurements only before: 8 clients", "measurements only after: 1 client"],
        ),
    ],
)
def test_what_makes_results_incomparable(given, said):
    assert differences(result(), replace(result(), **given)) == said


def test_versions_are_named():
    after = result(versions={"onnxruntime": "2", "uvloop": "1"}, target=replace(SERVER, version="2"))
    assert versions_changed(result(), after) == [
        "model mobilenet_v2: 1 and 2",
        "onnxruntime: 1 and 2",
        "uvloop: - and 1",
    ]


@pytest.mark.parametrize(
    ("after", "arguments", "code", "said"),
    [
        (result(), [], 0, "within noise"),
        (
            result(measured(rates=(50, 50, 50))),
            [],
            0,
            "| 8 clients   |   rate | 100.00/s |  50.00/s | 0.500 |   ±5% |       slower |",
        ),
        (result(measured(rates=(50, 50, 50))), ["--fail-if", "rate<-10%"], 3, "failed: 8 clients: rate -50.0%"),
        (result(measured(rates=(95, 95, 95))), ["--fail-if", "rate<-10%"], 0, "within noise"),
        (result(measured(p99s=(90, 90, 90))), ["--fail-if", "p99>80ms"], 3, "failed: 8 clients: p99 90 ms"),
        (result(measured(errors=3)), [], 0, "Errors: 8 clients 0 of 300, then 3 of 300"),
        (
            result(machine=replace(MACHINE, load=1.4)),
            [],
            0,
            "Something else was running at the start (after: load average 1.4",
        ),
        (result(measured(stable=False)), [], 0, "±5% | too noisy to judge |"),
        (
            result(settings={"seconds": 2.0}),
            [],
            1,
            "cannot be compared (--anyway does):\n  setting seconds: 1.0 and 2.0",
        ),
        (result(settings={"seconds": 2.0}), ["--anyway"], 0, "These differ, and figures with them:\n  setting seconds"),
        (result(measured("other")), ["--anyway"], 1, "no measurement in common"),
        (result(), ["--fail-if", "p99>fast"], 2, "such as 'p99>50ms'"),
        (result(versions={"onnxruntime": "2"}), [], 0, "Versions that changed: onnxruntime: 1 and 2"),
    ],
)
def test_the_command(tmp_path, after, arguments, code, said):
    write_json(tmp_path / "before.json", result())
    write_json(tmp_path / "after.json", after)
    done = CliRunner().invoke(main, [str(tmp_path / "before.json"), str(tmp_path / "after.json"), *arguments])
    assert done.exit_code == code, done.output
    assert said in done.output
