"""The comparison as people read it: Markdown tables and the plot. Called by `loadtests.compare`."""

from collections.abc import Sequence
from operator import attrgetter
from statistics import median

from loadtests.compare.results import BareRow, Figures, Row
from loadtests.compare.scenarios import Overload
from loadtests.plots import Panel, Point
from loadtests.report import markdown_table
from loadtests.stats import median_of

_NONE = "-"
NOTE = (
    "Latencies are p50 / p99 in ms, then requests per second; all are medians over the rounds. Pixels: `pillow` is "
    "Pillow's exact recipe; `fast` is scaled decoding and OpenCV for the peers, and zooserve's own fast path for it. "
    "Every share is of the bare loop with the same pixels, run on the same core just before and just after."
)


def closed_table(rows: Sequence[Row], bare: Sequence[BareRow]) -> str:
    """One line per bare loop and per server: the closed loops."""
    loads = sorted({load for row in rows for load in row.closed})
    header = [
        "server",
        "pixels",
        *(f"concurrency {load}" for load in loads),
        "share of the bare loop",
        "p50 over it",
        "errors",
    ]
    lines = [
        [f"bare loop `{b.loop}`", _NONE, _cell(b), *[_NONE] * (len(loads) - 1), "1", "1", "0"] for b in bare if loads
    ]
    for row in rows:
        found = [row.closed.get(load) for load in loads]
        lines.append(
            [
                row.server,
                row.pixels,
                *(_cell(figures) for figures in found),
                " / ".join(f"{f.share:.2f}" if f else _NONE for f in found),
                f"{found[0].ratio:.2f}" if found and found[0] else _NONE,
                _failed(row),
            ]
        )
    return markdown_table(header, lines)


def open_table(rows: Sequence[Row]) -> str:
    """One line per server: the open loops."""
    rates = list(dict.fromkeys(words for row in rows for words in row.open))
    lines = [[row.server, row.pixels, *(_cell(row.open.get(words)) for words in rates)] for row in rows if row.open]
    return markdown_table(["server", "pixels", *(f"offered {_offered(words)}" for words in rates)], lines)


def scenario_table(rows: Sequence[Row]) -> str:
    """One line per server: after a burst, and at twice the capacity."""
    header = ["server", "pixels", "p50 after a burst over before", "goodput at 2x", "refused", "refusal p50 / p99 ms"]
    header += ["accepted p99 ms", "expired or no answer"]
    lines = [[row.server, row.pixels, _number(row.burst), *_overloaded(row.overloads)] for row in rows]
    return markdown_table(header, lines)


def panels(rows: Sequence[Row]) -> list[Panel]:
    """The latency-throughput plot: p99 over what closed loops reached, and over what open loops offered.

    Where two kinds of pixels were measured, it shows the first: two curves for each server cannot be told apart.
    """
    shown = [row for row in rows if row.pixels == rows[0].pixels]
    closed = {r.server: [Point(f.rate, f.p99, str(load)) for load, f in r.closed.items()] for r in shown if r.closed}
    opened = {r.server: [Point(f.rate, f.p99) for f in r.open.values()] for r in shown if r.open}
    drawn = [Panel("Closed loop, beside each point its concurrency", "requests per second", "p99, ms", closed)]
    if opened:
        drawn.append(Panel("Open loop, Poisson arrivals", "requests per second", "p99, ms", opened))
    return drawn


def _cell(figures: Figures | BareRow | None) -> str:
    return f"{figures.p50:.2f} / {figures.p99:.1f}, {figures.rate:.0f}" if figures else _NONE


def _failed(row: Row) -> str:
    failed = f", failed in {len(row.problems)} rounds" if row.problems else ""
    return f"{row.errors}{failed}"


def _overloaded(overloads: Sequence[Overload]) -> list[str]:
    if not overloads:
        return [_NONE] * 5
    total = sum(x.accepted + x.refused + x.expired + x.unanswered + x.other for x in overloads)
    return [
        f"{median(x.goodput / x.capacity for x in overloads):.2f}",
        f"{sum(x.refused for x in overloads) / total:.0%}",
        " / ".join(_number(median_of(overloads, attrgetter(name)), 1) for name in ("refused_p50", "refused_p99")),
        _number(median_of(overloads, lambda x: x.accepted_p99), 0),
        f"{sum(x.expired + x.unanswered + x.other for x in overloads) / total:.0%}",
    ]


def _number(value: float | None, digits: int = 2) -> str:
    return _NONE if value is None else f"{value:.{digits}f}"


def _offered(words: str) -> str:
    return f"{words} of the bare loop" if words.endswith("%") else f"{words}/s"
