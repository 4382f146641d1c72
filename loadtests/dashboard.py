"""`python -m loadtests.dashboard`: draws Grafana's dashboard without Grafana, from what Prometheus answers its queries.

For the docs, and for a look where there is no Grafana.
"""

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import cycle, groupby
from math import floor, isnan, log2
from pathlib import Path
from typing import Any

import click
import requests
from msgspec import Struct
from zooserve_client.local import is_local

Panel = Mapping[str, Any]
DASHBOARD = Path(__file__).parent.parent / "deploy" / "grafana" / "dashboards" / "zooserve.json"
_POINTS = 240  # per curve
_COLUMNS, _CELL = 24, (0.62, 0.36)  # Grafana's grid, and a cell's size in inches
_PALETTE = ("#5794F2", "#FF9830", "#73BF69", "#F2495C", "#B877D9", "#FADE2A", "#8AB8FF", "#8F8F8F", "#37872D")
_NAMED = {"green": "#37872D", "orange": "#FF9830", "red": "#C4162A"}
_GREY = "#666666"
_LONGEST = 22  # characters of a table's cell


class Curve(Struct, frozen=True):
    """One series: `xs` in minutes since the picture's left edge, `ys` in the panel's unit; nan where there is a gap."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]


class Source:
    """A Prometheus and a stretch of time.

    Args:
        url: of the server.
        start, end: of the picture.
        values: what the dashboard's variables stand for.
    """

    def __init__(self, url: str, start: datetime, end: datetime, values: Mapping[str, str]) -> None:
        self._url, self._values = url.rstrip("/"), values
        self.start, self.end = start.timestamp(), end.timestamp()
        self._step = max(1, round((self.end - self.start) / _POINTS))

    def curves(self, panel: Panel) -> list[Curve]:
        """Ask all queries of a panel over the stretch of time."""
        found = []
        for target in panel["targets"]:
            for series in self._ask("query_range", target["expr"], start=self.start, end=self.end, step=self._step):
                known = {round(float(at)): float(value) for at, value in series["values"]}
                moments = range(round(self.start), round(self.end) + 1, self._step)
                ys = [known.get(moment, float("nan")) for moment in moments]
                xs = [(moment - self.start) / 60 for moment in moments]
                found.append(Curve(_name(target["legendFormat"], series["metric"]), xs, ys))
        return found

    def now(self, panel: Panel) -> list[tuple[Mapping[str, str], float]]:
        """Ask a panel's only query at the end: labels and value of each series."""
        answer = self._ask("query", panel["targets"][0]["expr"], time=self.end)
        return [(series["metric"], float(series["value"][1])) for series in answer]

    def _ask(self, path: str, expression: str, **words: float) -> list[Any]:
        for name, value in self._values.items():
            expression = expression.replace(f"${name}", value)
        response = requests.get(
            f"{self._url}/api/v1/{path}",
            {"query": expression, **{name: str(word) for name, word in words.items()}},
            timeout=30,
            proxies={"http": "", "https": ""} if is_local(self._url) else None,  # instead of the environment's
        )
        response.raise_for_status()
        return list(response.json()["data"]["result"])


def draw(dashboard: Mapping[str, Any], source: Source, out: Path, caption: str, marks: Sequence[float]) -> None:
    """Draw all rows of the dashboard in which anything has data, with vertical lines at `marks`, in minutes."""
    import matplotlib as mpl  # noqa: PLC0415 - half a second, and only here

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    rows = [row for row in _rows(dashboard["panels"], source) if any(data for _, data in row[1])]
    heights = [bool(title) + _height([panel["gridPos"] for panel, _ in panels]) for title, panels in rows]
    size = (_COLUMNS * _CELL[0], (sum(heights) + 2) * _CELL[1])
    figure = plt.figure(figsize=size)

    def place(x: float, y: float, w: float, h: float) -> Any:
        """Axes at a place of the grid, in inches from its edges to the plot's."""
        left, top = x * _CELL[0] + 0.68, y * _CELL[1] + 0.3
        width, height = w * _CELL[0] - 0.85, h * _CELL[1] - 1.0
        return figure.add_axes((left / size[0], 1 - (top + height) / size[1], width / size[0], height / size[1]))

    def write(x: float, y: float, text: str, **style: Any) -> None:
        figure.text(x * _CELL[0] / size[0], 1 - y * _CELL[1] / size[1], text, **style)

    y = 0.6
    for (title, panels), height in zip(rows, heights, strict=True):
        if title:
            write(0.3, y + 0.55, title, fontsize=12, fontweight="bold", va="center")
        base = min(panel["gridPos"]["y"] for panel, _ in panels) - bool(title)
        for panel, data in panels:
            at = panel["gridPos"]
            top = y + at["y"] - base
            write(at["x"] + 0.3, top + 0.45, panel["title"], fontsize=9.5, color=_GREY, va="center")
            if panel["type"] == "stat":
                text, colour = _stat(panel, data)
                write(at["x"] + 0.3, top + 1.6, text, fontsize=22, color=colour, va="center")
            elif panel["type"] == "table":
                _table(place(at["x"], top, at["w"], at["h"]), panel, data)
            else:
                ax = place(at["x"], top, at["w"], at["h"])
                _plot(ax, panel, data)
                ax.set_xlim(0, (source.end - source.start) / 60)
                for mark in marks:
                    ax.axvline(mark, color=_GREY, linewidth=0.8, linestyle=":")
        y += height
    write(0.3, y + 0.7, caption, fontsize=9, color=_GREY)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=90)
    plt.close(figure)


def _rows(panels: Sequence[Panel], source: Source) -> list[tuple[str, list[tuple[Panel, Any]]]]:
    """Panels with their data, under the titles of their rows; what comes before the first row has none."""
    rows: list[tuple[str, list[tuple[Panel, Any]]]] = [("", [])]
    for is_row, group in groupby(panels, lambda panel: panel["type"] == "row"):
        if is_row:
            rows.append((list(group)[-1]["title"], []))
            continue
        for panel in group:
            rows[-1][1].append((panel, source.curves(panel) if panel["type"] == "timeseries" else source.now(panel)))
    return rows


def _height(places: Sequence[Mapping[str, int]]) -> int:
    return max(place["y"] + place["h"] for place in places) - min(place["y"] for place in places)


def _plot(ax: Any, panel: Panel, curves: Sequence[Curve]) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    fixed = {o["matcher"]["options"]: o["properties"] for o in panel["fieldConfig"]["overrides"]}
    palette = cycle(_PALETTE)
    colours, dashed = {}, set()
    for curve in curves:
        properties = {item["id"]: item["value"] for item in fixed.get(curve.name, [])}
        colours[curve.name] = properties["color"]["fixedColor"] if properties else next(palette)
        if "custom.lineStyle" in properties:
            dashed.add(curve.name)
    if not curves:
        ax.text(0.5, 0.5, "no data", transform=ax.transAxes, ha="center", color=_GREY)
    elif defaults["custom"]["stacking"]["mode"] == "normal":
        ys = [[0.0 if isnan(y) else y for y in curve.ys] for curve in curves]
        names = [curve.name for curve in curves]
        ax.stackplot(curves[0].xs, ys, labels=names, colors=[colours[name] for name in names], alpha=0.75)
    else:
        for curve in curves:
            style = "--" if curve.name in dashed else "-"
            ax.plot(curve.xs, curve.ys, style, label=curve.name, color=colours[curve.name], linewidth=1.4)
    ax.set_ylim(bottom=0, top=None if _highest(ax) > 0 else 1)
    ax.yaxis.set_major_locator(_ticks(defaults["unit"], _highest(ax)))
    ax.yaxis.set_major_formatter(lambda value, _: _format(defaults["unit"], _highest(ax))(value))
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g} min")
    ax.tick_params(labelsize=8, colors=_GREY, length=0)
    ax.grid(visible=True, alpha=0.25)
    for side in ax.spines.values():
        side.set_visible(False)
    if curves:
        ax.legend(
            loc="upper left", bbox_to_anchor=(-0.02, -0.1), ncols=4, fontsize=7.5, frameon=False, handlelength=1.0,
            columnspacing=1.0, labelspacing=0.2, borderpad=0.2,
        )  # fmt: skip


def _table(ax: Any, panel: Panel, data: Sequence[tuple[Mapping[str, str], float]]) -> None:
    hidden = {name for t in panel["transformations"] for name in t["options"]["excludeByName"]}
    columns = [name for name in data[0][0] if name not in hidden] if data else []
    ax.axis("off")
    lines = [columns, *([labels[name][:_LONGEST] for name in columns] for labels, _ in data)]
    lengths = [2 + max(len(line[place]) for line in lines) for place in range(len(columns))]
    starts = [sum(lengths[:place]) / sum(lengths) - 0.08 for place in range(len(columns))]
    for number, line in enumerate(lines):
        weight = "bold" if number == 0 else "normal"
        for x, text in zip(starts, line, strict=True):
            ax.text(x, 1 - number / 7.5, text, transform=ax.transAxes, fontsize=7.5, va="top", fontweight=weight)


def _stat(panel: Panel, data: Sequence[tuple[Mapping[str, str], float]]) -> tuple[str, str]:
    """The last value as text, and its colour by the panel's thresholds."""
    if not data:
        return "no data", _GREY
    defaults, value = panel["fieldConfig"]["defaults"], data[0][1]
    steps = [step for step in defaults["thresholds"]["steps"] if step["value"] is None or value >= step["value"]]
    return _format(defaults["unit"], value)(value), _NAMED[steps[-1]["color"]]


def _name(legend: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), legend) or "none"


def _highest(ax: Any) -> float:
    return float(ax.dataLim.ymax) if ax.has_data() else 0.0


def _ticks(unit: str, highest: float) -> Any:
    from matplotlib.ticker import MaxNLocator, MultipleLocator  # noqa: PLC0415 - see `draw`

    if unit == "bytes" and highest:  # a power of two, so that there are three to six of them
        return MultipleLocator(2 ** floor(log2(highest / 3)))
    return MaxNLocator(5, steps=[1, 2, 2.5, 5, 10])


def _format(unit: str, highest: float) -> Callable[[float], str]:
    """How Grafana's units are written, all values of an axis alike."""
    if unit == "s":
        return (lambda v: f"{1000 * v:.4g} ms") if highest < 1 else (lambda v: f"{v:.3g} s")
    if unit == "bytes":
        return (lambda v: f"{v / 2**30:.2f} GiB") if highest > 2**30 else (lambda v: f"{v / 2**20:.0f} MiB")
    if unit == "percentunit":
        return lambda v: f"{100 * v:.3g} %"
    return (lambda v: f"{v:.3g}/s") if unit == "reqps" else (lambda v: f"{v:.3g}")


@click.command()
@click.option("--prometheus", default="http://127.0.0.1:9090", show_default=True, help="Address of Prometheus.")
@click.option("--dashboard", default=DASHBOARD, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--minutes", default=30.0, show_default=True, type=click.FloatRange(0.1), help="How far back.")
@click.option("--until", type=click.DateTime(), help="UTC.  [default: now]")
@click.option("--window", default="1m", show_default=True, help="Over which rates are taken ($__rate_interval).")
@click.option("--job", default="zooserve", show_default=True, help="Prometheus' name for the service.")
@click.option("--mark", "marks", type=float, multiple=True, help="Draw a vertical line at this minute; repeatable.")
@click.option("--caption", default="", help="What was going on.")
@click.option("--out", default=Path("dashboard.png"), show_default=True, type=click.Path(path_type=Path))
def main(
    prometheus: str,
    dashboard: Path,
    minutes: float,
    until: datetime | None,
    window: str,
    job: str,
    marks: tuple[float, ...],
    caption: str,
    out: Path,
) -> None:
    """Draw the dashboard."""  # fmt: skip
    end = until.replace(tzinfo=UTC) if until else datetime.now(UTC)
    values = {"__rate_interval": window, "job": job, "instance": ".*", "model": ".*"}
    source = Source(prometheus, end - timedelta(minutes=minutes), end, values)
    try:
        draw(json.loads(dashboard.read_text(encoding="utf-8")), source, out, caption, marks)
    except requests.RequestException as error:
        sys.exit(f"loadtests.dashboard: {prometheus} does not answer as Prometheus does: {error}")


if __name__ == "__main__":
    main()
