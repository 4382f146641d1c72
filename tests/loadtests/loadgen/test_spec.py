"""LoadGen's settings: of options, and of configuration files, which LoadGen reads itself."""

import pytest

from loadtests.loadgen.conf import ConfError, check
from loadtests.loadgen.library import loadgen
from loadtests.loadgen.spec import Spec, configured


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            Spec("Server", 50.0, bound_ms=20, percentile=0.9, seconds=3, min_queries=7),
            {
                "server_target_qps": 50.0,
                "server_target_latency_ns": 20_000_000,
                "server_target_latency_percentile": 0.9,
                "min_duration_ms": 3000,
                "min_query_count": 7,
                "max_duration_ms": 66_000,
            },
        ),
        (Spec("SingleStream", 100.0), {"single_stream_expected_latency_ns": 10_000_000}),
        (
            Spec("MultiStream", 10.0, images_per_query=4),
            {"multi_stream_expected_latency_ns": 100_000_000, "multi_stream_samples_per_query": 4},
        ),
        (Spec("Offline", 70.0), {"offline_expected_qps": 70.0}),
    ],
)
def test_settings(spec, expected):
    settings = spec.settings()
    assert {name: getattr(settings, name) for name in expected} == expected
    assert settings.scenario == getattr(loadgen().TestScenario, spec.scenario)
    assert settings.mode == loadgen().TestMode.PerformanceOnly


def test_accuracy_and_arrivals():
    assert Spec("Offline", 1.0, accuracy=True).settings().mode == loadgen().TestMode.AccuracyOnly
    seeds = [Spec("Server", 1.0, arrivals=n).settings().schedule_rng_seed for n in (0, 0, 1)]
    assert seeds[0] == seeds[1] != seeds[2]


CONF = """
# a comment
*.Server.target_latency = 50
lenet5.Server.target_qps = 40.5
*.*.min_duration = 2000
*.Server.target_latency_percentile = 95
*.SingleStream.target_latency = 4
*.Offline.target_qps = 300
*.MultiStream.samples_per_query = 3
*.Server.max_async_queries = 17
*.*.performance_issue_same = 1
"""


@pytest.fixture
def conf(tmp_path):
    (tmp_path / "user.conf").write_text(CONF)
    return (str(tmp_path / "user.conf"),)


@pytest.mark.parametrize(
    ("scenario", "model", "expected"),
    [
        ("Server", "lenet5", {"target_qps": 40.5, "bound_ms": 50.0, "percentile": 0.95, "seconds": 2.0}),
        ("Server", "other", {"target_qps": 0.0, "bound_ms": 50.0}),
        ("SingleStream", "other", {"target_qps": 250.0, "seconds": 2.0, "min_queries": 100}),
        ("Offline", "other", {"target_qps": 300.0}),
        ("MultiStream", "other", {"images_per_query": 3, "target_qps": 0.0}),
    ],
)
def test_configuration_files(conf, scenario, model, expected):
    spec = configured(Spec(scenario, 0.0, conf=conf, conf_model=model), frozenset())
    assert {name: getattr(spec, name) for name in expected} == pytest.approx(expected)


def test_options_go_before_files_and_the_other_keys_count(conf):
    given = Spec("Server", 9.0, bound_ms=30, conf=conf, conf_model="lenet5")
    spec = configured(given, frozenset({"target_qps", "bound_ms"}))
    assert (spec.target_qps, spec.bound_ms, spec.seconds) == (9.0, 30, 2.0)
    settings = spec.settings()
    assert (settings.server_target_qps, settings.min_duration_ms) == (9.0, 2000)
    assert (settings.server_max_async_queries, settings.performance_issue_same) == (17, True)


def test_a_later_file_goes_before_an_earlier_one(conf, tmp_path):
    later = tmp_path / "later.conf"
    later.write_text("lenet5.Server.target_qps = 7\n")
    spec = Spec("Server", 0.0, conf=(*conf, str(later)), conf_model="lenet5")
    assert configured(spec, frozenset()).target_qps == 7


def test_the_rules_of_mlperf_s_rounds_are_not_brought_along(tmp_path):
    """LoadGen has ten minutes for every test compiled in; nothing but the file counts."""
    (tmp_path / "empty.conf").write_text("")
    spec = configured(Spec("Server", 0.0, seconds=1, conf=(str(tmp_path / "empty.conf"),)), frozenset())
    assert (spec.seconds, spec.bound_ms, spec.target_qps) == (1.0, 100.0, 0.0)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("*.Server.target_qsp = 1", "knows no key target_qsp"),
        ("*.Servers.target_qps = 1", "no scenario Servers"),
        ("*.Server.target_qps=1", "expected `model.scenario.key = value`"),
        ("*.Server.target_qps = 1 # comment", "and no more"),
        ("#without a blank", "`# ` begins a comment"),
        ("*.Server.target_qps = many", "expected a number"),
        ("target_qps = 1", "expected `model.scenario.key = value`"),
    ],
)
def test_lines_that_loadgen_would_ignore_are_refused(line, words, tmp_path):
    path = tmp_path / "user.conf"
    path.write_text(f"# first\n{line}\n")
    with pytest.raises(ConfError) as error:
        check(path)
    assert words in str(error.value)
    assert "line 2" in str(error.value)


def test_good_files(conf, tmp_path):
    check(tmp_path / "user.conf")
    with pytest.raises(ConfError, match="cannot be read"):
        check(tmp_path / "none.conf")
