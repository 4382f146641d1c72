"""`--fail-if 'p99>50ms'`: bounds on measurements, for pipelines. One implementation for all tools that measure.

    [NAME:]FIGURE OPERATOR VALUE     or     [NAME:]unstable

NAME is that of a measurement, with `*` and `?` as in a shell; without it all are meant. A condition that cannot be
judged, since nothing was answered or no measurement has the name, has failed: a pipeline must not pass by accident.
"""

import operator
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import click
from msgspec import Struct

from loadtests.report import Measurement

EXIT_CODE = 3  # 1: the tool itself failed, or missed a goal of its own; 2: wrong options
_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_LATENCY = {"us": 0.001, "ms": 1.0, "s": 1000.0}  # to milliseconds
_UNITS: Mapping[str, Mapping[str, float]] = {
    "p50": _LATENCY,
    "p90": _LATENCY,
    "p99": _LATENCY,
    "mean": _LATENCY,
    "max": _LATENCY,
    "rate": {"/s": 1.0},
    "errors": {"": 1.0, "%": 0.01},  # a number of requests, or a share of them
    "requests": {"": 1.0},
}
_FIELDS = {name: f"{name}_ms" for name in ("p50", "p90", "p99", "mean", "max")} | {"rate": "rate_per_s"}
_CONDITION = re.compile(r"(?:(?P<name>[^:<>]+):)?\s*(?P<figure>\w+)\s*(?:(?P<op>[<>]=?)\s*(?P<value>.*))?")
_VALUE = re.compile(r"(?P<sign>[+-]?)(?P<number>\d+(?:\.\d*)?|\.\d+)\s*(?P<unit>%|/s|[a-zµ]*)")


class Condition(Struct, frozen=True):
    """One bound.

    Attributes:
        text: as it was given.
        name: pattern of the measurements' names.
        figure: such as `p99`; or `unstable`, which has neither operator nor value.
        op: the operator.
        value: in the unit of the measurement's field; of `relative` and of errors in `%` a share.
        unit: as it was given.
        relative: whether `value` is a change against an earlier measurement, such as `+10%`; of errors, that of their
            share, since two runs have different numbers of requests.
    """

    text: str
    name: str
    figure: str
    op: str = ""
    value: float = 0.0
    unit: str = ""
    relative: bool = False

    @staticmethod
    def parse(text: str, *, relative: bool = False) -> "Condition":
        """Read a condition; `relative` allows changes such as `p99>+10%`.

        Raises:
            ValueError: it is none, with what is wrong.
        """
        match = _CONDITION.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"{text!r}: expected a figure, <, <=, > or >=, and a value, such as 'p99>50ms'")
        name, figure, op = (match["name"] or "*").strip(), match["figure"], match["op"]
        if figure == "unstable":
            if op:
                raise ValueError(f"{text!r}: `unstable` stands alone")
            return Condition(text, name, figure)
        if figure not in _UNITS:
            raise ValueError(f"{text!r}: there is no figure {figure}; expected {', '.join(_UNITS)} or unstable")
        value = _VALUE.fullmatch((match["value"] or "").strip())
        if op is None or value is None:
            raise ValueError(f"{text!r}: expected {figure}, <, <=, > or >=, and a value, such as '{_example(figure)}'")
        if value["sign"]:
            if not relative:
                raise ValueError(f"{text!r}: a change ({value[0]}) needs two results; see `python -m loadtests.diff`")
            if value["unit"] != "%":
                raise ValueError(f"{text!r}: a change is given in %, such as '{figure}{op}{value['sign']}10%'")
            share = float(f"{value['sign']}{value['number']}") / 100
            return Condition(text, name, figure, op, share, "%", relative=True)
        units = _UNITS[figure]
        if value["unit"] not in units:
            known = " or ".join(unit or "no unit" for unit in units)
            raise ValueError(f"{text!r}: expected a value in {known}, such as '{_example(figure)}'")
        return Condition(text, name, figure, op, float(value["number"]) * units[value["unit"]], value["unit"])

    def problem(self, found: Measurement, before: Measurement | None = None) -> str:
        """Say how a measurement, or its change since `before`, fails; nothing where it does not."""
        if self.figure == "unstable":
            return f"{found.name}: not stable" if found.stable is not True else ""
        figure, unit = self._figure(found), self.unit
        if self.relative:
            earlier = None if before is None else self._figure(before)
            if self.figure == "rate" and found.offered_per_s is not None:  # chance makes it; the answered part counts
                figure, earlier = found.answered, None if before is None else before.answered
            if figure is None or earlier is None or (not earlier and figure):
                return f"{found.name}: the change of {self.figure} is not known"
            change = round(figure / earlier - 1, 9) if earlier else 0.0  # 95 of 100 is -5%, not a little less
            failed = _OPERATORS[self.op](change, self.value)
            return f"{found.name}: {self.figure} {change:+.1%} (fails if {self.text})" if failed else ""
        if figure is None:
            return f"{found.name}: {self.figure} is not known: {_why_unknown(found)}"
        if not _OPERATORS[self.op](figure, self.value):
            return ""
        shown = figure / _UNITS[self.figure][unit]
        digits = 0 if float(shown).is_integer() else 2
        words = f"{shown:.{digits}f}{' ' if unit.isalpha() else ''}{unit}"
        return f"{found.name}: {self.figure} {words} (fails if {self.text})"

    def _figure(self, found: Measurement) -> float | None:
        if self.figure == "errors" and self.unit == "%":
            return found.errors / found.requests if found.requests else None
        value = getattr(found, _FIELDS.get(self.figure, self.figure))
        return None if value is None else float(value)


def judge(
    conditions: Sequence[Condition], found: Sequence[Measurement], before: Mapping[str, Measurement] | None = None
) -> list[str]:
    """Return a sentence for every condition that a measurement fails; `before` has earlier ones by name."""
    problems = []
    for condition in conditions:
        meant = [one for one in found if fnmatchcase(one.name, condition.name)]
        if not meant:
            names = ", ".join(one.name for one in found) or "none"
            problems.append(f"{condition.text}: no measurement is called so; there are: {names}")
        problems += filter(None, (condition.problem(one, (before or {}).get(one.name)) for one in meant))
    return problems


def exit_if_failed(problems: Sequence[str]) -> None:
    """Print the problems and end the program with 3, where there are any."""
    for problem in problems:
        click.echo(f"failed: {problem}", err=True)
    if problems:
        sys.exit(EXIT_CODE)


def fail_if_option(*, relative: bool = False) -> Callable[[Any], Any]:
    """Give a command `--fail-if`, any number of times: `fail_if`, a tuple of `Condition`."""
    changes = "  Changes: 'p99>+10%', 'rate<-5%'." if relative else ""
    return click.option(
        "--fail-if",
        multiple=True,
        type=_ConditionType(relative=relative),
        help="End with 3 if so, such as 'p99>50ms', 'rate<100/s', 'errors>0', 'errors>1%', 'unstable', "
        f"or '8 clients:p99>50ms' for one measurement; repeatable.{changes}",
    )


class _ConditionType(click.ParamType[Condition]):
    name = "CONDITION"

    def __init__(self, *, relative: bool) -> None:
        self._relative = relative

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Condition:
        if isinstance(value, Condition):
            return value
        try:
            return Condition.parse(value, relative=self._relative)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _why_unknown(found: Measurement) -> str:
    if found.errors == found.requests:
        return "nothing was answered"
    return "not every answer was right" if found.errors else "this load has none"


def _example(figure: str) -> str:
    return {"rate": "rate<100/s", "errors": "errors>0", "requests": "requests<1000"}.get(figure, f"{figure}>50ms")
