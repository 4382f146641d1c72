"""`python -m loadtests.diff before.json after.json`: what became faster or slower between two results.

A change counts where it is larger than the noise: what the windows of both measurements are apart, and never less than
`--noise`, since two runs differ by more than the windows of one. What is not stable is not judged.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import click
from msgspec import Struct, to_builtins

from loadtests.judge import Condition, exit_if_failed, fail_if_option, judge
from loadtests.report import Measurement, Report, ReportError, Window, markdown_table, read_json
from loadtests.stats import spread

Word = Literal["faster", "slower", "within noise", "too noisy to judge", "not known"]
NOISE = 0.05
_LATENCIES = {"p50": "p50_ms", "p90": "p90_ms", "p99": "p99_ms"}
_QUIET = 0.3  # load average per core at the start, above which something else was running
_NAMED = 3  # measurements that only one result has; the others are counted
_OUTPUTS = ("json", "markdown", "plot", "logs", "url")  # settings that change no figure
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_EXAMPLES = """
\b
Examples:
  python -m loadtests.diff before.json after.json
  python -m loadtests.diff before.json after.json --fail-if 'p99>+10%' --fail-if 'rate<-5%'
"""


class Change(Struct, frozen=True):
    """One figure of one measurement, before and after.

    Attributes:
        measurement: its name.
        before, after: per second (rate) or ms; None where not known.
        ratio: after over before.
        noise: share by which the ratio may differ from 1 without meaning anything.
        stable: whether neither measurement was found to be unstable.
    """

    measurement: str
    figure: str
    before: float | None
    after: float | None
    ratio: float | None
    noise: float
    stable: bool = True

    @property
    def word(self) -> Word:
        """What that means."""
        if self.ratio is None:
            return "not known"
        if self.after == 0:  # nothing is answered any more
            return "slower"
        if not self.stable or math.isinf(self.noise):
            return "too noisy to judge"
        # Ratios count alike both ways: half the rate is as far from 1 as twice the rate.
        if 1 / (1 + self.noise) <= self.ratio <= 1 + self.noise:
            return "within noise"
        return "faster" if (self.ratio > 1) == (self.figure not in _LATENCIES) else "slower"


def changes(before: Sequence[Measurement], after: Sequence[Measurement], noise: float = NOISE) -> list[Change]:
    """Compare the measurements that both results have, by name; in the order of `after`."""
    earlier = {one.name: one for one in before}
    return [
        _change(figure, earlier[one.name], one, noise)
        for one in after
        if one.name in earlier
        for figure in ("rate" if one.offered_per_s is None else "answered", *_LATENCIES)
    ]


def _change(figure: str, before: Measurement, after: Measurement, least: float) -> Change:
    old, new = (_value(figure, one) for one in (before, after))
    apart = sum(_spread(figure, one) for one in (before, after))
    stable = before.stable is not False and after.stable is not False
    return Change(
        after.name, figure, old, new, new / old if old and new is not None else None, max(least, apart), stable
    )


def _spread(figure: str, one: Measurement) -> float:
    """How far the windows are apart; 0 where there are no two."""
    values = [_value(figure, window) for window in one.windows]
    return spread(values) if len(values) > 1 else 0.0


def _value(figure: str, one: Measurement | Window) -> float | None:
    if figure == "rate":
        return one.rate_per_s
    if figure == "answered":
        return one.answered
    value: float | None = getattr(one, _LATENCIES[figure])
    return value


def differences(before: Report, after: Report) -> list[str]:
    """Say what else than the server changed between two results: what makes their figures differ by itself.

    Versions, of the model and of packages, are none: they are what one compares.
    """
    found = [_differ("tool", before.tool, after.tool)]
    found += _fields("machine", before.machine, after.machine, ("processor", "cores", "memory_gb"))
    if before.target is not None and after.target is not None:
        found += _fields("target", before.target, after.target, ("protocol", "task", "model"))
    elif before.target != after.target:
        found.append("target: only one of the two results names its server")
    old, new = (to_builtins(one.settings) for one in (before, after))
    names = [name for name in dict.fromkeys([*old, *new]) if not name.startswith(_OUTPUTS)]
    found += [_differ(f"setting {name}", old.get(name), new.get(name)) for name in names]
    earlier = {one.name: one.offered_per_s for one in before.measurements}
    found += [
        _differ(f"{one.name}, offered per second", earlier[one.name], one.offered_per_s)
        for one in after.measurements
        if one.name in earlier and _apart(earlier[one.name], one.offered_per_s)
    ]
    for one, other, which in ((before, after, "before"), (after, before, "after")):
        shared = {m.name for m in other.measurements}
        if only := [m.name for m in one.measurements if m.name not in shared]:
            more = f" and {len(only) - _NAMED} more" if len(only) > _NAMED else ""
            found.append(f"measurements only {which}: {'; '.join(only[:_NAMED])}{more}")
    return [words for words in found if words]


def _apart(old: float | None, new: float | None) -> bool:
    """Whether two open loops offer different rates: a latency depends on it."""
    return bool(old and new) and abs(math.log(new / old)) > NOISE  # type: ignore[operator]


def _fields(what: str, old: object, new: object, names: Sequence[str]) -> list[str]:
    return [_differ(f"{what}, {name}", getattr(old, name), getattr(new, name)) for name in names]


def _differ(what: str, old: object, new: object) -> str:
    return "" if old == new else f"{what}: {old if old is not None else '-'} and {new if new is not None else '-'}"


def table(found: Sequence[Change]) -> str:
    """One line per figure."""
    lines = [
        [
            change.measurement,
            change.figure,
            _shown(change, change.before),
            _shown(change, change.after),
            "-" if change.ratio is None else f"{change.ratio:.3f}",
            f"±{change.noise:.0%}" if math.isfinite(change.noise) else "unknown",
            change.word,
        ]
        for change in found
    ]
    return markdown_table(["measurement", "figure", "before", "after", "ratio", "noise", "meaning"], lines)


def _shown(change: Change, value: float | None) -> str:
    if value is None:
        return "-"
    return {"rate": f"{value:.2f}/s", "answered": f"{value:.1%}"}.get(change.figure, f"{value:.2f} ms")


def _errors(before: Measurement, after: Measurement) -> str:
    if before.errors == after.errors == 0:
        return ""
    was, is_ = (f"{one.errors} of {one.requests}" for one in (before, after))
    return f"\nErrors: {after.name} {was}, then {is_}: latencies and rates are of the right answers alone\n"


def versions_changed(before: Report, after: Report) -> list[str]:
    """Say which versions changed: what may be the reason."""
    found = []
    if before.target is not None and after.target is not None:
        found.append(_differ(f"model {after.target.model}", before.target.version, after.target.version))
    names = dict.fromkeys([*before.versions, *after.versions])
    found += [_differ(name, before.versions.get(name), after.versions.get(name)) for name in names]
    return [words for words in found if words]


@click.command(epilog=_EXAMPLES)
@click.argument("before", type=_FILE)
@click.argument("after", type=_FILE)
@click.option("--noise", default=100 * NOISE, show_default=True, type=click.FloatRange(0, 100), help="At least, in %.")
@click.option("--anyway", is_flag=True, help="Compare although machine, model or settings differ, and say so.")
@fail_if_option(relative=True)
def main(before: Path, after: Path, noise: float, anyway: bool, fail_if: Sequence[Condition]) -> None:
    """Compare two results of the same load test.

    The ratio is after over before. Machine, tool, model and settings must be the same. Conditions of --fail-if are
    about AFTER; changes such as 'p99>+10%' are against BEFORE, and do not look at the noise.
    """
    try:
        old, new = read_json(before), read_json(after)
    except ReportError as error:
        raise click.ClickException(str(error)) from error
    if apart := differences(old, new):
        words = "\n".join(f"  {line}" for line in apart)
        if not anyway:
            raise click.ClickException(f"these results cannot be compared (--anyway does):\n{words}")
        click.echo(f"These differ, and figures with them:\n{words}\n")
    if changed := versions_changed(old, new):
        click.echo("Versions that changed: " + "; ".join(changed) + "\n")
    found = changes(old.measurements, new.measurements, noise / 100)
    if not found:
        raise click.ClickException("the two results have no measurement in common")
    click.echo(table(found))
    earlier: Mapping[str, Measurement] = {one.name: one for one in old.measurements}
    click.echo("".join(_errors(earlier[one.name], one) for one in new.measurements if one.name in earlier), nl=False)
    for when, one in (("before", old), ("after", new)):
        if one.machine.load > _QUIET * one.machine.cores:
            load = f"load average {one.machine.load:.1f} on {one.machine.cores} cores"
            click.echo(f"\nSomething else was running at the start ({when}: {load}): the noise may be larger.")
    exit_if_failed(judge(fail_if, new.measurements, earlier))


if __name__ == "__main__":
    main()
