"""What LoadGen is to do in one test. `trial` conducts it; the commands make it of options and configuration files."""

from typing import Any, Literal

from msgspec import Struct, structs

from loadtests.loadgen import conf
from loadtests.loadgen.library import loadgen

Scenario = Literal["SingleStream", "MultiStream", "Server", "Offline"]
_MS, _NS = 1e3, 1e9  # in a second
# The seeds of MLPerf's own mlperf.conf: arrivals and images are the same in every test.
_SEEDS = {
    "qsl_rng_seed": 2085463073848966840,
    "sample_index_rng_seed": 2747215439041700203,
    "schedule_rng_seed": 16159082839903944936,
}


class Spec(Struct, frozen=True):
    """What LoadGen is to do.

    Attributes:
        scenario: SingleStream (one query after the other), MultiStream (the same, of several images each), Server
            (Poisson arrivals), Offline (all at once).
        target_qps: rate of arrivals (Server); what is expected, so that enough queries are made (the others).
        bound_ms: of the latency that `percentile` of Server's queries may not exceed.
        percentile: of Server, in 0..1.
        seconds: that the test takes at least.
        min_queries: that are sent at least.
        timeout: seconds after which an answer is no longer waited for.
        images_per_query: of MultiStream.
        accuracy: whether every image is asked once and its answer logged, instead of measuring.
        arrivals: which of the series of random arrivals; the same number is the same series.
        conf: configuration files; what the other attributes say goes before them (see `configured`).
        conf_model: the model's name in those files.
    """

    scenario: Scenario
    target_qps: float
    bound_ms: float = 100.0
    percentile: float = 0.99
    seconds: float = 10.0
    min_queries: int = 100
    timeout: float = 30.0
    images_per_query: int = 8
    accuracy: bool = False
    arrivals: int = 0
    conf: tuple[str, ...] = ()
    conf_model: str = "*"

    @property
    def longest(self) -> float:
        """Seconds that the test may take, with as much time again as it should need."""
        return 2 * self._expected + 2 * self.timeout

    @property
    def _expected(self) -> float:
        return max(self.seconds, self.min_queries / self.target_qps)

    def settings(self) -> Any:
        """Return this as LoadGen's `TestSettings`.

        Raises:
            MissingError: LoadGen is not installed.
            ConfError: it cannot read one of the configuration files.
        """
        lg = loadgen()
        settings = lg.TestSettings()
        settings.scenario = getattr(lg.TestScenario, self.scenario)
        conf.apply(settings, self.conf, self.conf_model, self.scenario)
        self._own(settings)
        settings.mode = lg.TestMode.AccuracyOnly if self.accuracy else lg.TestMode.PerformanceOnly
        settings.single_stream_expected_latency_ns = round(_NS / self.target_qps)
        settings.multi_stream_expected_latency_ns = round(_NS / self.target_qps)
        settings.max_duration_ms = settings.max_duration_ms or round(_MS * self.longest)
        # With so many waiting, too many are too late already for the bound to be kept: LoadGen ends the test.
        hopeless = self.bound_ms / _MS + 2 * (1 - self.percentile) * self._expected
        most = max(100, round(self.target_qps * hopeless))
        settings.server_max_async_queries = settings.server_max_async_queries or most
        for name, seed in _SEEDS.items():
            setattr(settings, name, seed)
        settings.schedule_rng_seed += self.arrivals
        return settings

    def _own(self, settings: Any) -> None:
        """Write what configuration files may say as well."""
        settings.min_duration_ms = round(_MS * self.seconds)
        settings.min_query_count = self.min_queries
        settings.multi_stream_samples_per_query = self.images_per_query
        settings.offline_expected_qps = self.target_qps
        settings.server_target_qps = self.target_qps
        settings.server_target_latency_ns = round(_NS / _MS * self.bound_ms)
        settings.server_target_latency_percentile = self.percentile


def configured(spec: Spec, given: frozenset[str]) -> Spec:
    """Return a spec with what its configuration files say, but for the attributes that the user gave as options.

    Its `target_qps` may be 0: not known yet; and it is where neither says it.

    Raises:
        MissingError: LoadGen is not installed.
        ConfError: a configuration file cannot be read.
    """
    settings = loadgen().TestSettings()
    spec._own(settings)
    settings.single_stream_expected_latency_ns = settings.multi_stream_expected_latency_ns = 0
    conf.apply(settings, spec.conf, spec.conf_model, spec.scenario)
    expected = {
        "SingleStream": settings.single_stream_expected_latency_ns,
        "MultiStream": settings.multi_stream_expected_latency_ns,
        "Server": settings.server_target_qps and _NS / settings.server_target_qps,
        "Offline": settings.offline_expected_qps and _NS / settings.offline_expected_qps,
    }[spec.scenario]
    said = {
        "target_qps": _NS / expected if expected else 0.0,
        "bound_ms": settings.server_target_latency_ns / _NS * _MS,
        "percentile": settings.server_target_latency_percentile,
        "seconds": settings.min_duration_ms / _MS,
        "min_queries": settings.min_query_count,
        "images_per_query": settings.multi_stream_samples_per_query,
    }
    return structs.replace(spec, **{name: value for name, value in said.items() if name not in given})
