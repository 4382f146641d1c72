"""What every load test writes: JSON with machine, versions, date and command; Markdown tables; plots."""

import json
import os
import platform
import shlex
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct


class Machine(Struct, frozen=True):
    """Where it was measured. `load` is the load average over one minute at the start: what else was running."""

    processor: str
    cores: int
    memory_gb: float
    system: str
    python: str
    load: float


class Report(Struct, frozen=True):
    """One run of a load test. `results` is the test's own."""

    test: str
    date: str
    command: str
    machine: Machine
    versions: dict[str, str]
    settings: dict[str, Any]
    results: Any


class Point(Struct, frozen=True):
    """One point of a curve, with what stands beside it."""

    x: float
    y: float
    label: str = ""


class Panel(Struct, frozen=True):
    """One diagram: its curves by name."""

    title: str
    x: str
    y: str
    curves: dict[str, list[Point]]
    scale: Literal["linear", "log"] = "log"


def machine() -> Machine:
    """Describe this machine. It has no name: where it stands is nobody's business."""
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
    test: str,
    arguments: Sequence[str],
    where: Machine,
    installed: Mapping[str, str],
    settings: Mapping[str, Any],
    results: Any,
) -> Report:
    """Put a report together, dated now. The command is `python -m loadtests.<test> arguments`."""
    command = shlex.join(["python", "-m", f"loadtests.{test}", *arguments])
    date = datetime.now(UTC).isoformat(timespec="seconds")
    return Report(test, date, command, where, dict(installed), dict(settings), results)


def write_json(path: Path, result: Report) -> None:
    """Write a report, indented for people, its figures to four decimals."""
    rounded = json.loads(msgspec.json.encode(result), parse_float=lambda text: round(float(text), 4))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rounded, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


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


def plot(path: Path, panels: Sequence[Panel], caption: str = "") -> None:
    """Draw panels side by side into a picture whose format the path's ending names (.svg, .png, .pdf)."""
    import matplotlib as mpl  # noqa: PLC0415 - half a second, and only here

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "zooserve"  # the same figures make the same file
    from matplotlib import pyplot as plt  # noqa: PLC0415
    from matplotlib.ticker import LogLocator, NullFormatter  # noqa: PLC0415

    figure, axes = plt.subplots(1, len(panels), figsize=(6.4 * len(panels), 4.8), squeeze=False, layout="constrained")
    names = list(dict.fromkeys(name for panel in panels for name in panel.curves))
    style = {
        name: {"color": f"C{n % 10}", "marker": "osD^vP*X<>"[n % 10], "linestyle": "-" if n < 10 else "--"}
        for n, name in enumerate(names)
    }
    for panel, ax in zip(panels, axes[0], strict=True):
        for name, points in panel.curves.items():
            ax.plot(
                [p.x for p in points], [p.y for p in points], label=name, markersize=5, linewidth=1.4, **style[name]
            )
            for point in points:
                ax.annotate(point.label, (point.x, point.y), xytext=(4, 4), textcoords="offset points", fontsize=7)
        ax.set(title=panel.title, xlabel=panel.x, ylabel=panel.y, yscale=panel.scale)
        if panel.scale == "log":
            ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.yaxis.set_major_formatter("{x:g}")
            ax.yaxis.set_minor_formatter(NullFormatter())
        ax.set_xlim(left=0)
        ax.grid(visible=True, which="both", alpha=0.25)
    handles = {label: line for ax in axes[0] for line, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside right upper", fontsize=8)
    if caption:
        figure.supxlabel(caption, fontsize=8, color="0.4")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=150)
    plt.close(figure)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
