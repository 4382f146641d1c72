"""Why a test does not count: which rule failed, with its figures, and which option helps. `tables` prints it."""

from collections.abc import Callable, Iterator

from msgspec import Struct

from loadtests.loadgen.trial import Trial

_LATE_SHARE = 0.1  # of the bound that the senders may be late by, before they are named as a reason
_LATE_MS = 10.0  # the same where there is no bound
_LATE_LEAST = 1.0  # ms that are never named
_BUSY = ("429", "503", "RESOURCE_EXHAUSTED")


class Reason(Struct, frozen=True):
    """A rule that a test did not keep.

    Attributes:
        rule: its name: `answers`, `bound`, `confidence`, `duration`, `queries` or `late`.
        words: what happened, with figures.
        helps: which option to change, and how.
    """

    rule: str
    words: str
    helps: str

    def __str__(self) -> str:
        return f"{self.words}: {self.helps}"


def reasons(trial: Trial) -> list[Reason]:
    """Return why a test does not count, the most important reason first; empty where it does."""
    found = [*_answers(trial)]
    for check, kept in trial.summary.checks.items():
        if not kept:
            explain = _CHECKS.get(check)
            unknown = Reason("other", f"LoadGen's rule `{check}` was not kept", "see its summary (--logs)")
            found.append(explain(trial) if explain else unknown)
    if found and (late := _late(trial)):
        found.append(late)
    if any(reason.rule == "bound" for reason in found):  # more queries do not help where the bound is broken
        found = [reason for reason in found if reason.rule != "confidence"]
    return found


def _answers(trial: Trial) -> Iterator[Reason]:
    for name, count in trial.outcomes.items():
        if name == "200":
            continue
        words = f"{count} of {sum(trial.outcomes.values())} images were not answered rightly: {name}"
        if name == "no answer in time":
            helps = f"allow more than {trial.spec.timeout:g} s with --timeout, or offer less with --qps"
        elif name == "wrong answer":
            helps = "the server answers otherwise under load than alone; compare with `zooserve predict`"
        elif name in _BUSY:
            helps = "the server refuses what it cannot do in time; offer less with --qps"
        else:
            helps = "the server's log says why"
        yield Reason("answers", words, helps)


def _bound(trial: Trial) -> Reason:
    spec = trial.spec
    quantile = f"p{100 * spec.percentile:g}"
    value = trial.summary.percentiles.get(f"{100 * spec.percentile:.2f}", trial.summary.p99)
    words = f"the {quantile}, {value:.1f} ms, is over the bound of {spec.bound_ms:g} ms"
    return Reason("bound", words, "offer less with --qps, or allow more with --bound-ms")


def _confidence(trial: Trial) -> Reason:
    spec, summary = trial.spec, trial.summary
    processed = summary.processed or sum(trial.outcomes.values())
    wanted = processed + summary.more_needed
    kept = f"the p{100 * spec.percentile:g} is in bounds, but " if spec.scenario == "Server" else ""
    words = (
        f"{kept}LoadGen (early stopping) is not 99 % sure of the percentile after {processed} queries; it wants "
        f"{wanted} at least"
    )
    return Reason("confidence", words, f"--min-queries {wanted}, or a longer test with --seconds")


def _duration(trial: Trial) -> Reason:
    words = f"the test was over before its {trial.spec.seconds:g} s: the server is faster than was expected"
    helps = "say --qps, higher than now" if trial.spec.scenario in ("Server", "Offline") else "run it again"
    return Reason("duration", words, helps)


def _queries(trial: Trial) -> Reason:
    images = trial.spec.images_per_query if trial.spec.scenario == "MultiStream" else 1
    words = f"only {sum(trial.outcomes.values()) // images} of {trial.spec.min_queries} queries were sent"
    if trial.spec.scenario == "Server":
        words += ", since LoadGen ends a test when too many wait"
    return Reason("queries", words, "offer less with --qps, or ask for fewer with --min-queries")


def _late(trial: Trial) -> Reason | None:
    limit = max(_LATE_LEAST, _LATE_SHARE * trial.spec.bound_ms) if trial.spec.scenario == "Server" else _LATE_MS
    if trial.late_ms <= limit or trial.spec.scenario == "Offline":
        return None
    words = f"the sender itself was late (p99 {trial.late_ms:.1f} ms), which the latencies contain"
    return Reason("late", words, "--senders 2, --connections, or run it on another machine than the server")


_CHECKS: dict[str, Callable[[Trial], Reason]] = {
    "Performance constraints": _bound,
    "Early stopping": _confidence,
    "Min duration": _duration,
    "Min queries": _queries,
}
