"""The measurements as people read them. Called by `loadtests.measure`."""

from collections.abc import Mapping, Sequence

from loadtests.disturbance import Disturbance, Limits
from loadtests.measure.loads import Plan, shown
from loadtests.report import Measurement, markdown_table
from loadtests.stats import instability

_KEPT_UP = 0.95  # share of the requests that were due which must be answered in time, or the server did not keep up
_LATE = 0.1  # share of the p50 by which the client itself may be late
_HEADER = ("load", "requests/s", "p50 ms", "p90 ms", "p99 ms", "errors", "stable")


def table(found: Sequence[Measurement]) -> str:
    """One line per measurement, as Markdown."""
    words = {True: "yes", False: "no", None: "-"}
    return markdown_table(
        _HEADER,
        [
            [
                one.name,
                f"{one.rate_per_s:.1f}",
                *map(shown, (one.p50_ms, one.p90_ms, one.p99_ms)),
                str(one.errors),
                words[one.stable],
            ]
            for one in found
        ],
    )


def notes(found: Sequence[Measurement], disturbances: Mapping[str, Disturbance], plan: Plan) -> list[str]:
    """What to know about the figures: errors, windows that do not agree, what was too slow or disturbed the machine."""
    said = []
    for one in found:
        if one.errors:
            kinds = one.failures | {status: n for status, n in one.statuses.items() if status != "200"}
            told = ", ".join(f"{count} x {kind}" for kind, count in kinds.items())
            said.append(f"{one.name}: {one.errors} of {one.requests} requests were not answered with 200: {told}.")
        if one.stable is False:
            apart = instability(one.windows, opened=one.offered_per_s is not None)
            said.append(
                f"{one.name}: not stable within {plan.stability:.0%} ({apart} over the last windows): do not trust "
                "these figures. Longer windows (--seconds) or a quieter machine help."
            )
        due = one.requests / (plan.seconds * len(one.windows))
        if one.offered_per_s is not None and one.rate_per_s < _KEPT_UP * due:
            said.append(f"{one.name}: the server did not keep up; latencies grow with the length of the load.")
        if one.p50_ms and one.late_p99_ms and one.late_p99_ms > _LATE * one.p50_ms:
            said.append(
                f"{one.name}: the client was up to {one.late_p99_ms:.1f} ms late itself (p99): it needs more processor "
                "time than it gets, and the latencies contain that."
            )
        if one.name in disturbances and (signs := disturbances[one.name].signs(Limits())):
            said.append(f"{one.name}: this machine was not quiet: {', '.join(signs)}.")
    return said
