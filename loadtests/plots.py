"""Latency, throughput and memory as diagrams, for load tests that draw. matplotlib is needed when one is drawn."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from msgspec import Struct


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


def plot(path: Path, panels: Sequence[Panel], caption: str = "") -> None:
    """Draw panels side by side into a file; its ending names the format (.svg, .png, .pdf)."""
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
