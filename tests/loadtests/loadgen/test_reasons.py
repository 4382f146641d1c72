"""Every rule that a test can break has a sentence of its own, with figures and an option that helps."""

import pytest
from msgspec import structs

from loadtests.diff import changes
from loadtests.disturbance import Disturbance, Limits
from loadtests.judge import Condition
from loadtests.loadgen.capacity import Capacity
from loadtests.loadgen.reasons import reasons
from loadtests.loadgen.spec import Spec
from loadtests.loadgen.summary import FILE, read_summary
from loadtests.loadgen.tables import found_capacity, measured, table
from loadtests.loadgen.trial import Trial

# As LoadGen 6 writes it.
TEXT = """\
================================================
MLPerf Results Summary
================================================
SUT name : PyFastSUT
Scenario : Server
Mode     : PerformanceOnly
Completed samples per second    : 66.50
Result is : INVALID
  Performance constraints satisfied : {bound}
  Min duration satisfied : {duration}
  Min queries satisfied : {queries}
  Early stopping satisfied: {early}
Recommendations:
 * Reduce target QPS to improve latency.
Early Stopping Result:
 * Run unsuccessful.
 * Processed 670 queries.
 * Would need to run at least 402 more queries,
 with the run being successful if every additional
 query were under latency.

================================================
Additional Stats
================================================
Scheduled samples per second : 66.70
Min latency (ns)                : 5000000
Max latency (ns)                : 132000000
Mean latency (ns)               : 21000000
50.00 percentile latency (ns)   : 20000000
90.00 percentile latency (ns)   : 40000000
95.00 percentile latency (ns)   : 55000000
97.00 percentile latency (ns)   : 60000000
99.00 percentile latency (ns)   : 72000000
99.90 percentile latency (ns)   : 120000000
"""


@pytest.fixture
def trial(tmp_path):
    def make(outcomes=None, late_ms=0.1, spec=None, **no):
        checks = {name: "NO" if name in no else "Yes" for name in ("bound", "duration", "queries", "early")}
        (tmp_path / FILE).write_text(TEXT.format(**checks))
        outcomes = outcomes or {"200": 670}
        spec = spec or Spec("Server", 66.7, bound_ms=100, min_queries=1000)
        errors = sum(count for name, count in outcomes.items() if name != "200")
        return Trial(spec, read_summary(tmp_path / FILE), outcomes, errors, late_ms, Disturbance(0.02, 0.0, 0.01))

    return make


@pytest.mark.parametrize(
    ("broken", "rules", "words"),
    [
        (
            {"early": 1},
            ["confidence"],
            "not 99 % sure of the percentile after 670 queries; it wants 1072 at least: --min-queries 1072",
        ),
        (
            {"bound": 1, "early": 1, "spec": Spec("Server", 66.7, bound_ms=60)},
            ["bound"],
            "the p99, 72.0 ms, is over the bound of 60 ms: offer less with --qps, or allow more with --bound-ms",
        ),
        (
            {"queries": 1},
            ["queries"],
            "only 670 of 1000 queries were sent, since LoadGen ends a test when too many wait: offer less with --qps",
        ),
        ({"duration": 1}, ["duration"], "the test was over before its 10 s: the server is faster than was expected"),
        (
            {"outcomes": {"200": 668, "no answer in time": 2}},
            ["answers"],
            "2 of 670 images were not answered rightly: no answer in time: allow more than 30 s with --timeout",
        ),
        ({"outcomes": {"200": 600, "429": 70}}, ["answers"], "70 of 670 images were not answered rightly: 429: "),
        ({"outcomes": {"200": 1, "wrong answer": 9}}, ["answers"], "otherwise under load than alone"),
        ({"outcomes": {"RESOURCE_EXHAUSTED": 9}}, ["answers"], "offer less with --qps"),
        ({"late_ms": 35.5, "early": 1}, ["confidence", "late"], "the sender itself was late (p99 35.5 ms)"),
        ({"late_ms": 35.5}, [], ""),
        ({}, [], ""),
    ],
)
def test_reasons(trial, broken, rules, words):
    found = reasons(trial(**broken))
    assert [reason.rule for reason in found] == rules
    assert words in "\n".join(map(str, found))
    assert all(reason.helps for reason in found)
    assert ", ".join(rules) in table([trial(**broken)]).splitlines()[-1]


def test_loadgen_s_sentences_are_read_to_their_end(trial):
    advice = trial(early=1).summary.advice
    assert advice[-1].endswith(
        "402 more queries, with the run being successful if every additional query were under latency."
    )
    assert (trial().summary.processed, trial().summary.more_needed) == (670, 402)


def test_a_capacity_in_words(trial):
    one = trial()
    text = found_capacity(Capacity(66.7, [one, one], 70.0, [one, one]), Limits())
    assert "Capacity: 66.7 queries per second." in text
    assert "the p99 was 72.0 ms in 2 tests of 10 s (bound 100 ms)" in text
    assert "At 70.0 per second it was not kept." in text
    assert "not quiet" not in text
    loud = structs.replace(one, disturbance=Disturbance(0.8, 0.0, 0.3))
    text = found_capacity(Capacity(66.7, [one, loud], None, [one, loud], "the time was over (--minutes)"), Limits())
    assert "did not come to its end: the time was over (--minutes); a higher rate may be kept as well." in text
    signs = "other processes kept 0.80 cores busy; the processor was 30% slower"
    assert f"The machine was not quiet in 1 of 2 tests ({signs}): repeat it when it is." in text
    text = found_capacity(Capacity(None, [], None, [trial(early=1)], "no rate was kept"), Limits())
    assert text.startswith("No capacity was found: no rate was kept.\nThe last test: LoadGen says INVALID.")
    assert "not quiet" in found_capacity(Capacity(None, [], None, [loud], "no rate was kept"), Limits())
    assert "--min-queries 1072" in text


def test_measurement(trial):
    found = measured("capacity", [trial(), trial(outcomes={"200": 660, "429": 8, "no answer in time": 2})])
    assert (found.requests, found.errors) == (1340, 10)
    assert (found.statuses, found.failures) == ({"200": 1330, "429": 8}, {"no answer in time": 2})
    assert (found.p50_ms, found.p99_ms, found.max_ms) == (None, None, None)  # refusals are quick
    assert (found.windows[0].p99_ms, found.windows[1].p99_ms) == (72.0, None)
    assert found.offered_per_s == 66.7
    assert len(found.windows) == 2
    right = measured("server", [trial(), trial()])
    assert (right.p50_ms, right.p99_ms, right.mean_ms, right.max_ms) == (20.0, 72.0, 21.0, 132.0)


def test_offline_has_no_latencies(trial):
    found = measured("offline", [trial(spec=Spec("Offline", 66.7))])
    assert (found.p50_ms, found.mean_ms, found.max_ms) == (None, None, None)


def test_another_capacity_is_a_change(trial):
    one = trial()
    half = structs.replace(one, summary=structs.replace(one.summary, rate=one.summary.rate / 2))
    before, after = (measured("capacity", [each, each], searched=True) for each in (one, half))
    assert {change.figure: change.word for change in changes([before], [after])}["rate"] == "slower"
    assert Condition.parse("rate<-5%", relative=True).problem(after, before)
