"""From the trials of all rounds to one row per server: medians, and shares of the bare loops around each trial."""

from collections.abc import Iterable, Sequence
from operator import attrgetter
from statistics import mean, median
from typing import Literal, NamedTuple

from msgspec import Struct

from loadtests.compare.machine import Sweep
from loadtests.compare.scenarios import Overload
from loadtests.compare.trial import Trial
from loadtests.report import Measurement
from loadtests.stats import Summary, clients_name, median_of, medians


class Results(Struct, frozen=True):
    """The comparison's part of its report: versions by server and package, all trials, sweeps of the whole machine."""

    servers: dict[str, dict[str, str]]
    trials: list[Trial]
    sweeps: list[Sweep] = []


class Figures(Struct, frozen=True):
    """A server at one load: medians over the rounds, in ms and requests per second.

    Attributes:
        share: of the bare loop's rate.
        ratio: of the median latency to the bare loop's.
        errors: how many requests of all rounds were not answered with 200.
    """

    rate: float
    p50: float
    p99: float
    share: float
    ratio: float
    errors: int = 0


class Row(Struct, frozen=True):
    """A server with one kind of pixels, and one model where there are several.

    `closed` is by concurrency, `open` by the rate as the plan words it.

    Attributes:
        burst: median latency of single requests right after a burst, over that before it.
        overloads: of every round.
        requests, errors: of all rounds, without the scenarios.
        problems: of the rounds in which it failed.
        drift: how far the two bare loops around a trial were apart in rate, as a share: the median of the rounds.
        model: its name, where several were measured.
    """

    server: str
    pixels: str
    closed: dict[int, Figures]
    open: dict[str, Figures]
    burst: float | None
    overloads: list[Overload]
    requests: int
    errors: int
    problems: list[str]
    drift: float = 0.0
    model: str = ""


class Cell(NamedTuple):
    """A figure in which servers are compared with each other: of so many clients, and its name in `Figures`."""

    clients: int
    figure: Literal["p50", "p99", "rate"]

    def __str__(self) -> str:
        return f"{'images/s' if self.figure == 'rate' else f'{self.figure} ms'}, {clients_name(self.clients)}"

    def of(self, row: Row) -> float | None:
        """The figure of a server; None where it was not measured."""
        return getattr(row.closed[self.clients], self.figure) if self.clients in row.closed else None

    def best(self, rows: Iterable[Row]) -> Row | None:
        """The server with the best figure among those that answered every request; None where there is none."""
        whole = [row for row in rows if self.clients in row.closed and not row.closed[self.clients].errors]
        found = [(value, row) for row in whole if (value := self.of(row)) is not None]
        choose = max if self.figure == "rate" else min
        return choose(found, key=lambda one: one[0])[1] if found else None


CELLS = (Cell(1, "p50"), Cell(2, "p50"), Cell(8, "p99"), Cell(32, "p99"), Cell(8, "rate"), Cell(32, "rate"))


class BareRow(Struct, frozen=True):
    """A bare loop: medians over all its runs, in ms and images per second."""

    loop: str
    rate: float
    p50: float
    p99: float


def rows(trials: Iterable[Trial]) -> list[Row]:
    """Return a row for each model, server and kind of pixels, in the order in which they were measured."""
    groups: dict[tuple[str, str, str], list[Trial]] = {}
    for trial in trials:
        groups.setdefault((trial.model, trial.server, trial.pixels), []).append(trial)
    return [_row(group) for group in groups.values()]


def measurements(trials: Iterable[Trial], sweeps: Iterable[Sweep] = ()) -> list[Measurement]:
    """Return what the report has in common with those of other tools: a window for each round."""
    clients: dict[str, int] = {}
    offered: dict[str, float] = {}
    loads: dict[str, list[Summary]] = {}
    for trial in trials:
        who = f"{trial.model}, {trial.server}" if trial.model else f"{trial.server} ({trial.pixels})"
        for count, summary in trial.closed.items():
            name = f"{who}, {clients_name(int(count))}"
            clients[name] = int(count)
            loads.setdefault(name, []).append(summary)
        for words, opened in trial.open.items():
            name = f"{who}, open loop {words}"
            offered.setdefault(name, opened.offered)
            loads.setdefault(name, []).append(opened.summary)
    for sweep in sweeps:
        for way, summary in (sweep.alone | sweep.pairs).items():
            loads.setdefault(f"{sweep.model}, bare: {way}", []).append(summary)
    return [
        medians(name, found, clients=clients.get(name), offered_per_s=offered.get(name))
        for name, found in loads.items()
    ]


def bare_rows(trials: Iterable[Trial]) -> list[BareRow]:
    """Return a row for each bare loop."""
    groups: dict[str, list[Summary]] = {}
    for trial in trials:
        groups.setdefault(trial.bare_loop, []).extend(_bare(trial))
    figures = [attrgetter(name) for name in ("rate", "p50", "p99")]
    return [BareRow(loop, *(median_of(runs, figure) or 0.0 for figure in figures)) for loop, runs in groups.items()]


def drift(trials: Iterable[Trial]) -> list[float]:
    """How far each trial's two bare loops were apart in rate, as shares: what the machine itself adds and takes.

    Where there are pairs side by side, too, what differs more counts.
    """
    return [
        max(abs(after.rate / before.rate - 1) for before, after in _around(t))
        for t in trials
        if t.after and t.before.rate
    ]


def _around(trial: Trial) -> list[tuple[Summary, Summary]]:
    """What was run before a trial, with the same after it."""
    found = [(trial.before, trial.after)] if trial.after else []
    return [*found, (trial.pairs[0], trial.pairs[1])] if trial.pairs else found


def _row(trials: Sequence[Trial]) -> Row:
    closed = {int(load) for trial in trials for load in trial.closed}
    rates = dict.fromkeys(words for trial in trials for words in trial.open)
    measured = [s for t in trials for s in (*t.closed.values(), *(o.summary for o in t.open.values()))]
    by_load = {
        load: _figures([(t, t.closed[str(load)]) for t in trials if str(load) in t.closed], load)
        for load in sorted(closed)
    }
    by_rate = {words: _figures([(t, t.open[words].summary) for t in trials if words in t.open]) for words in rates}
    return Row(
        server=trials[0].server,
        pixels=trials[0].pixels,
        closed={load: figures for load, figures in by_load.items() if figures is not None},
        open={words: figures for words, figures in by_rate.items() if figures is not None},
        burst=median_of(trials, lambda t: t.burst.ratio if t.burst else None),
        overloads=[t.overload for t in trials if t.overload is not None],
        requests=sum(s.requests for s in measured),
        errors=sum(s.errors for s in measured),
        problems=[f"round {t.round}: {t.problem}" for t in trials if t.problem],
        drift=median(drift(trials) or [0.0]),
        model=trials[0].model,
    )


def _figures(measured: Sequence[tuple[Trial, Summary]], load: int = 1) -> Figures | None:
    """Return the medians of the rounds in which anything was answered; None where nothing was."""
    answered = [
        (_bare(trial, load), s, s.p50, s.p99) for trial, s in measured if s.p50 is not None and s.p99 is not None
    ]
    if not answered:
        return None
    return Figures(
        rate=median(s.rate for _, s, _, _ in answered),
        p50=median(p50 for _, _, p50, _ in answered),
        p99=median(p99 for _, _, _, p99 in answered),
        share=median(s.rate / mean(b.rate for b in bare) for bare, s, _, _ in answered),
        ratio=median(p50 / mean(b.p50 or 0.0 for b in bare) for bare, _, p50, _ in answered),
        errors=sum(s.errors for _, s in measured),
    )


def _bare(trial: Trial, load: int = 1) -> list[Summary]:
    """What so many clients are compared with: two of them with two bare loops side by side, where these were run."""
    if load == 2 and trial.pairs:
        return trial.pairs
    return [trial.before] if trial.after is None else [trial.before, trial.after]
