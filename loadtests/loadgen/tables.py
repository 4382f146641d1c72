"""LoadGen's tests as people read them. Called by `loadtests.loadgen`."""

from collections.abc import Sequence

from loadtests.loadgen.certify import Certificate
from loadtests.loadgen.trial import Trial
from loadtests.report import markdown_table

_PERCENTILES = ("50.00", "90.00", "99.00")
_HEADER = (
    "scenario",
    "offered /s",
    "achieved /s",
    "p50 ms",
    "p90 ms",
    "p99 ms",
    "bound ms",
    "kept",
    "queries",
    "errors",
)


def table(trials: Sequence[Trial]) -> str:
    """One line per test. `kept`: the p99 was in bounds as far as the test went; LoadGen's verdict asks for more."""
    return markdown_table([*_HEADER, "LoadGen"], [_line(trial) for trial in trials])


def verdict(trial: Trial) -> str:
    """LoadGen's verdict on a test, and ours."""
    said = f"LoadGen says {_valid(trial)}"
    if trial.errors:
        wrong = ", ".join(f"{count} x {name}" for name, count in trial.outcomes.items() if name != "200")
        said += f", but it does not look at answers, and of these {trial.errors} were not right: {wrong}"
    missed = [name for name, satisfied in trial.summary.checks.items() if not satisfied]
    if missed:
        said += f"; not satisfied: {', '.join(missed).lower()}. {' '.join(trial.summary.advice)}"
    return said


def certified(found: Certificate) -> str:
    """What a search found, with LoadGen's verdict on the proof."""
    if found.proof is None:
        last = f" The last test: {verdict(found.trials[-1])}" if found.trials else ""
        return f"No rate could be certified: {found.problem}.{last}"
    spec, summary = found.proof.spec, found.proof.summary
    return (
        f"Certified: {spec.target_qps:.1f} queries per second, p99 {summary.p99:.2f} ms <= {spec.bound_ms:g} ms "
        f"over {spec.seconds:g} s. {verdict(found.proof)}"
    )


def _line(trial: Trial) -> list[str]:
    spec, summary = trial.spec, trial.summary
    server = spec.scenario == "Server"
    return [
        spec.scenario,
        f"{spec.target_qps:.1f}" if server else "-",
        f"{summary.rate:.1f}",
        *("-" if spec.scenario == "Offline" else f"{summary.percentiles[name]:.2f}" for name in _PERCENTILES),
        f"{spec.bound_ms:g}" if server else "-",
        ("yes" if trial.in_bounds else "no") if server else "-",
        str(sum(trial.outcomes.values())),
        str(trial.errors),
        _valid(trial),
    ]


def _valid(trial: Trial) -> str:
    return "VALID" if trial.summary.valid else "INVALID"
