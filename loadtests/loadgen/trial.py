"""One test of LoadGen's, and what came of it: its own verdict, and whether every answer was right."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Literal

import mlperf_loadgen as lg
from msgspec import Struct

from loadtests.loadgen.summary import FILE, Summary, read_summary
from loadtests.loadgen.sut import SystemUnderTest
from loadtests.loadgen.wire import NAMES

Scenario = Literal["SingleStream", "Server", "Offline"]
_SPARE = 30.0  # seconds beyond what a test may take, before it is given up
_BOUND_KEPT = "Performance constraints"
# The seeds of MLPerf's own mlperf.conf: arrivals and photos are the same in every test.
_SEEDS = {
    "qsl_rng_seed": 2085463073848966840,
    "sample_index_rng_seed": 2747215439041700203,
    "schedule_rng_seed": 16159082839903944936,
}


class Spec(Struct, frozen=True):
    """What LoadGen is to do.

    Attributes:
        scenario: SingleStream (one query after the other), Server (Poisson arrivals), Offline (all at once).
        target_qps: rate of arrivals (Server); what is expected, so that enough queries are made (the others).
        bound_ms: of the latency that `percentile` of Server's queries may not exceed.
        percentile: of Server, in 0..1.
        seconds: that the test takes at least.
        min_queries: that are sent at least.
        timeout: seconds after which an answer is no longer waited for.
    """

    scenario: Scenario
    target_qps: float
    bound_ms: float = 100.0
    percentile: float = 0.99
    seconds: float = 10.0
    min_queries: int = 100
    timeout: float = 30.0

    @property
    def longest(self) -> float:
        """Seconds that the test may take, with as much time again as it should need."""
        return 2 * self._expected + 2 * self.timeout

    @property
    def _expected(self) -> float:
        return max(self.seconds, self.min_queries / self.target_qps)

    def settings(self) -> "lg.TestSettings":
        """Return this as LoadGen has it."""
        settings = lg.TestSettings()
        settings.scenario = getattr(lg.TestScenario, self.scenario)
        settings.mode = lg.TestMode.PerformanceOnly
        settings.min_duration_ms = round(1000 * self.seconds)
        settings.max_duration_ms = round(1000 * self.longest)
        settings.min_query_count = self.min_queries
        settings.single_stream_expected_latency_ns = round(1e9 / self.target_qps)
        settings.offline_expected_qps = self.target_qps
        settings.server_target_qps = self.target_qps
        settings.server_target_latency_ns = round(1e6 * self.bound_ms)
        settings.server_target_latency_percentile = self.percentile
        # With so many waiting, too many are too late already for the bound to be kept: LoadGen ends the test.
        hopeless = self.bound_ms / 1000 + 2 * (1 - self.percentile) * self._expected
        settings.server_max_async_queries = max(100, round(self.target_qps * hopeless))
        for name, seed in _SEEDS.items():
            setattr(settings, name, seed)
        return settings


class Trial(Struct, frozen=True):
    """What came of a test.

    Attributes:
        spec: what LoadGen was to do.
        summary: LoadGen's verdict and figures.
        outcomes: how many queries ended in which way: by HTTP status, or why there was none.
        errors: how many were not answered rightly. LoadGen does not look at answers: for it these are complete.
    """

    spec: Spec
    summary: Summary
    outcomes: dict[str, int]
    errors: int

    @property
    def valid(self) -> bool:
        """Whether LoadGen wrote VALID and every answer was right."""
        return self.summary.valid and not self.errors

    @property
    def in_bounds(self) -> bool:
        """Whether the latency was in bounds as far as this test went, and every answer was right."""
        return self.summary.checks[_BOUND_KEPT] and not self.errors

    @property
    def answered(self) -> int:
        """How many queries were answered rightly."""
        return self.outcomes.get("200", 0)


class TrialError(Exception):
    """A test that LoadGen did not bring to an end."""


def conduct(
    spec: Spec, sut: SystemUnderTest, photos: int, logs: Path, on_second: Callable[[float, int], None]
) -> Trial:
    """Let LoadGen test.

    Args:
        spec: what it is to do.
        sut: ready; it answers `photos` different photos.
        photos: how many.
        logs: a folder for what LoadGen writes; made where it is missing.
        on_second: called about once a second with the seconds since the start and the number of answers.

    Raises:
        TrialError: a sender ended, or the test did not end.
    """
    logs.mkdir(parents=True, exist_ok=True)
    output = lg.LogSettings()
    output.log_output.outdir = str(logs)
    output.enable_trace = False
    library = lg.ConstructQSL(photos, photos, _nothing, _nothing)  # the senders hold them in memory
    sut.start_counting()
    # LoadGen would not let Ctrl+C through: it runs in a thread, and this one stays awake.
    test = threading.Thread(
        target=lg.StartTestWithLogSettings, args=(sut.handle, library, spec.settings(), output), daemon=True
    )
    begin = monotonic()
    test.start()
    try:
        while test.is_alive():
            test.join(1.0)
            passed = monotonic() - begin
            sut.check()
            if passed > spec.longest + _SPARE and not sut.problem:
                sut.abandon(f"the test did not end within {passed:.0f} s")
            on_second(passed, sut.outcomes.total())
    except KeyboardInterrupt:
        os._exit(130)  # a test cannot be ended from outside; the senders end when their pipes do
    lg.DestroyQSL(library)
    if sut.problem:
        raise TrialError(sut.problem)
    outcomes = {NAMES.get(outcome, str(outcome)): count for outcome, count in sorted(sut.outcomes.items())}
    return Trial(spec, read_summary(logs / FILE), outcomes, sut.outcomes.total() - sut.outcomes[200])


def _nothing(_: list[int]) -> None:
    """Photos need neither loading nor unloading."""
