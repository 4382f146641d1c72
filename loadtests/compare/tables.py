"""The comparison as people read it: Markdown tables and the plot. Called by `loadtests.compare`."""

from collections.abc import Sequence
from operator import attrgetter
from statistics import median

from msgspec.structs import replace

from loadtests.compare.machine import Sweep, best
from loadtests.compare.results import CELLS, BareRow, Cell, Figures, Row
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

MACHINE_NOTE = (
    "Times are in ms; all figures are medians over the rounds; * marks the best server, ! one that left requests "
    "unanswered, which is never the best. Client and server share all cores, and peers have their own defaults. One "
    "client is compared with the best bare loop of any number of threads, two clients with the best two bare loops "
    "side by side, both with zooserve's own pixels, just before and just after zooserve in each round. Pixels: `fast` "
    "is simplejpeg's scaled decoding and OpenCV for the peers, and zooserve's own fast path for it; `pillow` is "
    "Pillow's exact recipe for all."
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


def machine_tables(rows: Sequence[Row], sweeps: Sequence[Sweep]) -> str:
    """A table for each model: one line per bare loop and per server."""
    header = ["server", "pixels", *map(str, CELLS[:2]), "1 over the bare loop", "2 over two", *map(str, CELLS[2:])]
    tables = []
    for model in dict.fromkeys(row.model for row in rows):
        of_model = [row for row in rows if row.model == model]
        winners = [cell.best(of_model) for cell in CELLS]
        lines = _sweep_lines([sweep for sweep in sweeps if sweep.model == model], len(header) + 1)
        for row in of_model:
            cells = [
                f"{_number(cell.of(row), 1)}{'*' if row is winner else _unsure(row, cell)}"
                for cell, winner in zip(CELLS, winners, strict=True)
            ]
            ratios = [_number(row.closed[load].ratio) if load in row.closed else _NONE for load in (1, 2)]
            lines.append([row.server, row.pixels, *cells[:2], *ratios, *cells[2:], _failed(row)])
        tables.append(f"{model}\n\n{markdown_table([*header, 'errors'], lines)}")
    return "\n\n".join(tables)


def _unsure(row: Row, cell: Cell) -> str:
    return "!" if cell.clients in row.closed and row.closed[cell.clients].errors else ""


def _sweep_lines(sweeps: Sequence[Sweep], columns: int) -> list[list[str]]:
    """The bare loops: their p50 in the column of one client or of two, and how often each was the best."""
    lines = []
    for column, loops in ((2, [sweep.alone for sweep in sweeps]), (3, [sweep.pairs for sweep in sweeps])):
        wins = [best(found) for found in loops]
        for way in dict.fromkeys(way for found in loops for way in found):
            won = f", best in {wins.count(way)} of {len(wins)}" if way in wins else ""
            line = [f"bare: {way}{won}", *[_NONE] * (columns - 1)]
            line[column] = _number(median_of([found[way] for found in loops if way in found], attrgetter("p50")), 1)
            lines.append(line)
    return lines


def panels(rows: Sequence[Row]) -> list[Panel]:
    """The latency-throughput plot: p99 over what closed loops reached, and over what open loops offered.

    Where two kinds of pixels were measured, it shows the first: two curves for each server cannot be told apart. Of
    several models each has a diagram of its own.
    """
    if models := list(dict.fromkeys(row.model for row in rows if row.model)):
        return [replace(panels([replace(r, model="") for r in rows if r.model == m])[0], title=m) for m in models]
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
