"""What zooserve promises beside its peers and its bare loop, checked one by one. Called by `loadtests.compare`.

Where the machine itself gave and took more than a goal's margin, neither "met" nor "missed" would say anything.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from operator import attrgetter
from statistics import median

from loadtests.compare.machine import MODELS
from loadtests.compare.results import CELLS, Cell, Figures, Row
from loadtests.compare.scenarios import Overload
from loadtests.goals import NOISY, Goal, at_least, at_most, verdict
from loadtests.stats import median_of

MACHINE_NOISY = 0.08  # as `NOISY`, for the whole machine, where one client's p50 is within 1.08


def check(rows: Sequence[Row]) -> list[Goal]:
    """Check zooserve against its bare loop and against all peers, whichever pixels these were given.

    zooserve is judged with its fast pixels, which is how it is served unless it is told otherwise; with Pillow's where
    only those were measured.
    """
    ours = {row.pixels: row for row in rows if row.server == "zooserve"}
    us = ours.get("fast") or next(iter(ours.values()), None)
    peers = [row for row in rows if row.server != "zooserve"]
    alone = [
        at_most("p50 at concurrency 1 over the bare loop's <= 1.10", _figure(us, 1, lambda f: f.ratio), 1.10),
        *(
            at_least(
                f"throughput at concurrency {load} over the bare loop's >= 0.92",
                _figure(us, load, lambda f: f.share),
                0.92,
            )
            for load in (8, 32)
        ),
    ]
    beside = [
        *(goal for load in (8, 32) for goal in _throughput(us, peers, load)),
        *(_lowest(us, peers, load, percentile) for load, percentile in ((1, "p50"), (8, "p99"), (32, "p99"))),
    ]
    later = [
        at_most(
            "p50 at concurrency 1 right after a burst of 64 over that before <= 1.10", us.burst if us else None, 1.10
        ),
        *_overload(us.overloads if us else []),
    ]
    ours_noisy = [us] if us is not None and us.drift > NOISY else []
    theirs_noisy = [peer for peer in peers if peer.drift > NOISY]
    return [
        *(_judged(goal, ours_noisy) for goal in alone),
        *(_judged(goal, [*ours_noisy, *theirs_noisy]) for goal in beside),
        *(_judged(goal, ours_noisy) for goal in later),
    ]


def check_machine(rows: Sequence[Row]) -> list[Goal]:
    """Check zooserve on the whole machine: against its bare loops, and against all peers in every cell.

    `MODELS` have goals whether they were measured or not, others where they were.
    """
    goals = []
    for model in dict.fromkeys([*MODELS, *(row.model for row in rows)]):
        found = [row for row in rows if row.model == model]
        us = next((row for row in found if row.server == "zooserve"), None)
        one = f"{model}: p50 of 1 client over the best bare loop's <= 1.08"
        two = f"{model}: p50 of 2 clients over that of two bare loops <= 1.10"
        of_model = [
            at_most(one, _figure(us, 1, lambda f: f.ratio), 1.08),
            at_most(two, _figure(us, 2, lambda f: f.ratio), 1.10),
        ]
        if model in MODELS or len(found) > 1:
            of_model.append(_best_in_every_cell(model, us, found))
        noisy = [us] if us is not None and us.drift > MACHINE_NOISY else []
        goals += [_judged(goal, noisy) for goal in of_model]
    return goals


def _best_in_every_cell(model: str, us: Row | None, rows: Sequence[Row]) -> Goal:
    what = f"{model}: the best server in every cell"
    cells = [cell for cell in CELLS if any(cell.clients in row.closed for row in rows)]
    if us is None or not cells or len(rows) == 1:
        return Goal(what, "", "not measured")
    lost = []
    for cell in cells:
        winner = cell.best(rows)
        if winner is not us:
            theirs = f"{winner.server} {cell.of(winner):.1f}" if winner else "nobody answered every request"
            lost.append(f"{cell}: {_told(us, cell)}, {theirs}")
    found = "; not ".join([f"{len(cells) - len(lost)} of {len(cells)}", *lost])
    return Goal(what, found, verdict(not lost))


def _told(row: Row, cell: Cell) -> str:
    if (value := cell.of(row)) is None:
        return "nothing"
    return f"{value:.1f}{_unanswered(row, cell.clients)}"


def _judged(goal: Goal, noisy: Sequence[Row]) -> Goal:
    if not noisy or goal.verdict == "not measured":
        return goal
    worst = max(noisy, key=lambda row: row.drift)
    found = f"{goal.found}; the bare loops around {worst.server} differed by {worst.drift:.0%}"
    return replace(goal, found=found, verdict="too noisy to judge")


def _throughput(us: Row | None, peers: Sequence[Row], load: int) -> list[Goal]:
    rate = _figure(us, load, lambda f: f.rate)
    theirs = _whole(peers, load, lambda f: f.rate)
    best = f"throughput at concurrency {load} above the best peer's"
    typical = f"throughput at concurrency {load} >= 1.3 times the peers' median"
    if rate is None or not theirs:
        return [Goal(best, "", "not measured"), Goal(typical, "", "not measured")]
    name = max(theirs, key=theirs.__getitem__)
    ratio, left = rate / median(theirs.values()), _unanswered(us, load)
    return [
        Goal(best, f"{rate:.1f}/s{left}; {name} {theirs[name]:.1f}/s", verdict(rate > theirs[name] and not left)),
        Goal(typical, f"{ratio:.2f} times{left}", verdict(ratio >= 1.3 and not left)),
    ]


def _lowest(us: Row | None, peers: Sequence[Row], load: int, percentile: str) -> Goal:
    of: Callable[[Figures], float] = attrgetter(percentile)
    what = f"{percentile} at concurrency {load} below the best peer's"
    latency = _figure(us, load, of)
    theirs = _whole(peers, load, of)
    if latency is None or not theirs:
        return Goal(what, "", "not measured")
    name = min(theirs, key=theirs.__getitem__)
    left = _unanswered(us, load)
    found = f"{latency:.2f} ms{left}; {name} {theirs[name]:.2f} ms"
    return Goal(what, found, verdict(latency < theirs[name] and not left))


def _whole(peers: Sequence[Row], load: int, of: Callable[[Figures], float]) -> dict[str, float]:
    """A figure of the peers that answered every request: one that refuses some answers the others the sooner."""
    return {
        f"{p.server} ({p.pixels})": of(p.closed[load]) for p in peers if load in p.closed and not p.closed[load].errors
    }


def _unanswered(row: Row | None, load: int) -> str:
    errors = row.closed[load].errors if row is not None and load in row.closed else 0
    return f" with {errors} errors" if errors else ""


def _overload(overloads: Sequence[Overload]) -> list[Goal]:
    """Medians over the rounds. The refusals are judged by their p99; where nothing was refused there is none."""
    goodput = median_of(overloads, lambda x: x.goodput / x.capacity)
    refused = median_of(overloads, lambda x: x.refused_p99)
    accepted = median_of(overloads, lambda x: None if x.accepted_p99 is None else x.accepted_p99 / x.deadline)
    return [
        at_least("goodput at twice the capacity >= 0.90 of it", goodput, 0.90),
        at_most("p99 of the refusals at twice the capacity <= 10 ms", refused, 10.0, " ms"),
        at_most("p99 of the accepted at twice the capacity over their deadline <= 1", accepted, 1.0),
    ]


def _figure(row: Row | None, load: int, figure: Callable[[Figures], float]) -> float | None:
    return figure(row.closed[load]) if row is not None and load in row.closed else None
