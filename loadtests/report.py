"""What every load test writes: JSON of one schema for all tools, and Markdown tables.

`report.schema.json` beside this file is that schema, for other programs. `python -m loadtests.report` prints it.
"""

import json
import os
import platform
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

SCHEMA_VERSION: Literal[2] = 2  # 1 had no number, and no common figures
SCHEMA_FILE = Path(__file__).with_name("report.schema.json")
_SECRET = re.compile(r"--[\w-]*(key|token|secret|password)$")
_USER = re.compile(r"(?<=://)[^/@\s]+@")


class ReportError(ValueError):
    """A file that is no report, or one of another version, with what is wrong about it."""


class Machine(Struct, frozen=True):
    """Where the load came from. `load` is the load average over one minute at the start: what else was running."""

    processor: str
    cores: int
    memory_gb: float
    system: str
    python: str
    load: float


class TestedServer(Struct, frozen=True):
    """The server that was loaded, and what it was asked.

    Attributes:
        url: without a key or a user.
        protocol: how it was reached.
        task: such as `classify`; several with commas.
        model, version: that answered; empty where it is not one model.
    """

    __test__ = False  # pytest: this is no test

    url: str
    protocol: Literal["http", "https", "grpc", "grpcs"] = "http"
    task: str = ""
    model: str = ""
    version: str = ""


class Window(Struct, frozen=True):
    """A part of a measurement in figures, as `Measurement` has them."""

    seconds: float
    requests: int
    errors: int
    rate_per_s: float
    p50_ms: float | None = None
    p90_ms: float | None = None
    p99_ms: float | None = None

    @property
    def answered(self) -> float | None:
        """Share of the requests that were answered rightly; None of no requests."""
        return 1 - self.errors / self.requests if self.requests else None


class Measurement(Struct, frozen=True, kw_only=True):
    """One load in figures. Latencies are of the right answers alone; None where there was none, or it is not known.

    Attributes:
        name: tells the measurements of a report apart, such as `8 clients`; the same in every run.
        clients: how many asked at a time, each after its answer (closed loop); None in an open loop.
        offered_per_s: requests per second that were due, whether answered or not (open loop); None in a closed loop.
        seconds: that the figures are about.
        requests, errors: how many were due; how many of them were not answered rightly.
        rate_per_s: right answers per second.
        max_ms: the longest latency.
        late_p99_ms: how late the client itself was in sending: a sign that it was short of time.
        stable: whether the windows agree (see `loadtests.stats.stable`); None where that was not judged.
        windows: the parts that this was made of: one after the other, or the rounds of a tool that goes by turns.
        statuses, failures: how many answers came with each status; how many requests got none, by reason.
    """

    name: str
    clients: int | None = None
    offered_per_s: float | None = None
    seconds: float
    requests: int
    errors: int
    rate_per_s: float
    p50_ms: float | None = None
    p90_ms: float | None = None
    p99_ms: float | None = None
    mean_ms: float | None = None
    max_ms: float | None = None
    late_p99_ms: float | None = None
    stable: bool | None = None
    windows: list[Window] = []
    statuses: dict[str, int] = {}
    failures: dict[str, int] = {}

    @property
    def answered(self) -> float | None:
        """Share of the requests that were answered rightly; None of no requests."""
        return 1 - self.errors / self.requests if self.requests else None


class Report(Struct, frozen=True, kw_only=True):
    """One run of a load test.

    Attributes:
        schema_version: of this format.
        tool: such as `compare`, for `python -m loadtests.compare`.
        date: when it ended, ISO 8601 in UTC.
        command: that repeats it; keys and passwords are left out.
        versions: of packages, by name.
        target: the server; None where the tool starts servers of its own, or none.
        settings: that change the figures, by name.
        measurements: what all tools have in common.
        details: the tool's own.
    """

    schema_version: Literal[2]
    tool: str
    date: str
    command: str
    machine: Machine
    versions: dict[str, str]
    target: TestedServer | None = None
    settings: dict[str, Any]
    measurements: list[Measurement] = []
    details: Any = None


def machine() -> Machine:
    """Describe this machine, without its name: reports are published."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(
        processor=_processor(),
        cores=os.cpu_count() or 1,
        memory_gb=round(memory / 2**30, 1),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        load=round(os.getloadavg()[0], 2),
    )


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of those packages that are installed here."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def report(
    tool: str,
    arguments: Sequence[str],
    where: Machine,
    installed: Mapping[str, str],
    settings: Mapping[str, Any],
    details: Any = None,
    *,
    target: TestedServer | None = None,
    measurements: Sequence[Measurement] = (),
) -> Report:
    """Put a report together, dated now. The command is `python -m loadtests.<tool> arguments`, without secrets."""
    return Report(
        schema_version=SCHEMA_VERSION,
        tool=tool,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        command=shlex.join(["python", "-m", f"loadtests.{tool}", *without_secrets(arguments)]),
        machine=where,
        versions=dict(installed),
        target=target,
        settings=dict(settings),
        measurements=list(measurements),
        details=details,
    )


def write_report(
    path: Path | None,
    tool: str,
    where: Machine,
    packages: Iterable[str],
    settings: Mapping[str, Any],
    details: Any = None,
    *,
    target: TestedServer | None = None,
    measurements: Sequence[Measurement] = (),
) -> None:
    """Write the report of this process' command, with the versions of packages; without a path nothing."""
    if path is not None:
        found = versions(packages)
        done = report(tool, sys.argv[1:], where, found, settings, details, target=target, measurements=measurements)
        write_json(path, done)


def without_secrets(arguments: Iterable[str]) -> list[str]:
    """Return a command's arguments with `...` for the values of `--api-key` and the like, and for users in URLs."""
    kept: list[str] = []
    secret = False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        if secret:
            kept.append("...")
        elif equals and _SECRET.match(name):
            kept.append(f"{name}=...")
        else:
            kept.append(_USER.sub("", argument))
        secret = not secret and _SECRET.match(argument) is not None
    return kept


def write_json(path: Path, result: Report) -> None:
    """Write a report, indented for people, its figures to four decimals."""
    rounded = json.loads(msgspec.json.encode(result), parse_float=lambda text: round(float(text), 4))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rounded, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Report:
    """Read a report that `write_json` wrote.

    Raises:
        ReportError: the file cannot be read, is no report, or is one of another version of the schema.
    """
    try:
        found = msgspec.json.decode(path.read_bytes())
        given = found.get("schema_version", 1) if isinstance(found, dict) else SCHEMA_VERSION
        if given != SCHEMA_VERSION:
            raise ReportError(f"{path}: schema_version {given}, expected {SCHEMA_VERSION}: measure again")
        return msgspec.convert(found, Report)
    except (OSError, msgspec.MsgspecError) as error:
        raise ReportError(f"{path}: not a report of a load test: {error}") from error


def schema() -> str:
    """Return the JSON Schema (2020-12) of what `write_json` writes."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return json.dumps(dialect | msgspec.json.schema(Report), indent=2, ensure_ascii=False) + "\n"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out a Markdown table whose columns line up: the first to the left, all others to the right."""
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(3, *(len(line[column]) for line in lines)) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if n else cell.ljust(width)
            for n, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = [("-" * width) if n == 0 else ("-" * (width - 1) + ":") for n, width in enumerate(widths)]
    return "\n".join([line(lines[0]), line(rule), *(line(cells) for cells in lines[1:])])


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    print(schema(), end="")  # noqa: T201
