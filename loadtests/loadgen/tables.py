"""LoadGen's tests as people read them, and as `loadtests.report` has them. Called by `loadtests.loadgen`."""

from collections.abc import Callable, Sequence

from loadtests.disturbance import Disturbance, Limits
from loadtests.loadgen.capacity import Capacity
from loadtests.loadgen.reasons import reasons
from loadtests.loadgen.trial import Trial
from loadtests.report import Measurement, Window, markdown_table

_PERCENTILES = ("50.00", "90.00", "99.00")
_HEADER = (
    "scenario",
    "offered /s",
    "seconds",
    "images /s",
    "p50 ms",
    "p90 ms",
    "p99 ms",
    "bound ms",
    "images",
    "errors",
    "others, cores",
    "LoadGen",
    "not kept",
)


def table(trials: Sequence[Trial]) -> str:
    """One line per test. `not kept` names the rules that failed."""
    return markdown_table(_HEADER, [_line(trial) for trial in trials])


def verdict(trial: Trial) -> str:
    """LoadGen's verdict on a test, and why it does not count where it does not."""
    said = f"LoadGen says {_valid(trial)}."
    if trial.errors:
        said = f"LoadGen says {_valid(trial)}; it does not look at answers, of which {trial.errors} were not right."
    return "\n".join([said, *(f"  - {reason}" for reason in reasons(trial))])


def found_capacity(found: Capacity, limits: Limits) -> str:
    """What a search found, how far its tests were apart, and what disturbed them."""
    if found.rate is None:
        lines = [f"No capacity was found: {found.problem}."]
        if found.trials:
            lines.append(f"The last test: {verdict(found.trials[-1])}")
        return "\n".join([*lines, *not_quiet(found.trials, limits)])
    spec = found.proofs[0].spec
    p99 = [trial.summary.p99 for trial in found.proofs]
    proven = (
        f"At that rate the p99 was {_range(p99)} ms in {len(p99)} tests of {spec.seconds:g} s (bound "
        f"{spec.bound_ms:g} ms), LoadGen says VALID, and every answer was right."
    )
    lines = [f"Capacity: {found.rate:.1f} queries per second.", proven]
    if found.problem:
        lines.append(f"The search did not come to its end: {found.problem}; a higher rate may be kept as well.")
    elif found.above is not None:
        lines.append(f"At {found.above:.1f} per second it was not kept.")
    worst = worst_disturbance(found.proofs)
    if worst is not None:
        lines.append(f"Disturbance during these tests, at most: {worst}.")
    return "\n".join([*lines, *not_quiet(found.proofs, limits)])


def not_quiet(trials: Sequence[Trial], limits: Limits) -> list[str]:
    """Say how many tests were disturbed, and by what; nothing where none was."""
    disturbed = [trial for trial in trials if trial.disturbed(limits)]
    worst = worst_disturbance(disturbed)
    if worst is None:
        return []
    signs = "; ".join(worst.signs(limits))
    return [f"The machine was not quiet in {len(disturbed)} of {len(trials)} tests ({signs}): repeat it when it is."]


def worst_disturbance(trials: Sequence[Trial]) -> Disturbance | None:
    """Return the largest sign of each kind."""
    seen = [trial.disturbance for trial in trials if trial.disturbance is not None]
    if not seen:
        return None
    others = [one.others for one in seen if one.others is not None]
    return Disturbance(max(others, default=None), max(one.stolen for one in seen), max(one.slower for one in seen))


def measured(name: str, trials: Sequence[Trial], *, searched: bool = False) -> Measurement:
    """Return tests at one rate as one measurement, each a window of it.

    Latencies are not known where an answer was not right: LoadGen counts those of refusals, too. Of Offline, where all
    is due at the start, they say nothing.

    Args:
        name: what it is called.
        trials: at least one.
        searched: whether the rate is what was found, as a capacity is, and not what was asked for.
    """
    windows = [_window(trial) for trial in trials]
    seconds = sum(window.seconds for window in windows)
    spec = trials[0].spec
    count = len(trials)
    known = spec.scenario != "Offline" and not any(trial.errors for trial in trials)

    def latency(of: Callable[[Trial], float]) -> float | None:
        return sum(map(of, trials)) / count if known else None

    p50, p90, p99 = (latency(lambda trial, name=name: trial.summary.percentiles[name]) for name in _PERCENTILES)  # type: ignore[misc]
    return Measurement(
        name=name,
        clients={"SingleStream": 1, "MultiStream": 1}.get(spec.scenario),
        offered_per_s=spec.target_qps if spec.scenario == "Server" and not searched else None,
        seconds=seconds,
        requests=sum(window.requests for window in windows),
        errors=sum(trial.errors for trial in trials),
        rate_per_s=sum(window.rate_per_s * window.seconds for window in windows) / seconds,
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        mean_ms=latency(lambda trial: trial.summary.mean),
        max_ms=max(trial.summary.maximum for trial in trials) if known else None,
        late_p99_ms=max(trial.late_ms for trial in trials),
        windows=windows if count > 1 else [],
        failures={
            outcome: sum(trial.outcomes.get(outcome, 0) for trial in trials)
            for outcome in sorted({name for trial in trials for name in trial.outcomes if not name.isdigit()})
        },
        statuses={
            outcome: sum(trial.outcomes.get(outcome, 0) for trial in trials)
            for outcome in sorted({name for trial in trials for name in trial.outcomes if name.isdigit()})
        },
    )


def _window(trial: Trial) -> Window:
    queries = sum(trial.outcomes.values())
    rate = trial.summary.rate or 1.0
    known = trial.spec.scenario != "Offline" and not trial.errors
    return Window(
        queries / rate,
        queries,
        trial.errors,
        rate * (queries - trial.errors) / max(1, queries),
        *(trial.summary.percentiles[name] if known else None for name in _PERCENTILES),
    )


def _line(trial: Trial) -> list[str]:
    spec, summary = trial.spec, trial.summary
    server = spec.scenario == "Server"
    others = trial.disturbance.others if trial.disturbance else None
    return [
        spec.scenario,
        f"{spec.target_qps:.1f}" if server else "-",
        f"{spec.seconds:g}",
        f"{summary.rate:.1f}",
        *("-" if spec.scenario == "Offline" else f"{summary.percentiles[name]:.2f}" for name in _PERCENTILES),
        f"{spec.bound_ms:g}" if server else "-",
        str(sum(trial.outcomes.values())),
        str(trial.errors),
        "-" if others is None else f"{others:.2f}",
        _valid(trial),
        ", ".join(dict.fromkeys(reason.rule for reason in reasons(trial))) or "-",
    ]


def _range(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.1f}" if high - low < 0.05 else f"{low:.1f} to {high:.1f}"


def _valid(trial: Trial) -> str:
    return "VALID" if trial.summary.valid else "INVALID"
