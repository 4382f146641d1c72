"""Closed and open loops on a server under test, measured in windows. Called by `loadtests.measure`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loadtests.client import Limits, Load, closed_loop, open_loop, run
from loadtests.exchange import Request
from loadtests.report import Measurement
from loadtests.stats import WINDOWS, clients_name, measurement, stable, window
from loadtests.target import Target


@dataclass(frozen=True)
class Plan:
    """How each load is measured. `seconds` is of a window, `warm_up` of the load before the first; `timeout` in s."""

    seconds: float
    windows: int
    stability: float
    warm_up: float
    timeout: float


@dataclass(frozen=True)
class ChosenLoad:
    """One load: `clients` at a time, each after its answer, or `offered_per_s` requests at random moments."""

    clients: int | None = None
    offered_per_s: float | None = None

    @property
    def name(self) -> str:
        """Of its measurement, the same in every run."""
        if self.clients is None:
            return f"{self.offered_per_s:g} per second"
        return clients_name(self.clients)

    def send(self, target: Target, requests: Sequence[Request], limits: Limits, seed: int) -> Load:
        """Send `requests` in turn until a limit is reached; `seed` is that of the random moments.

        Raises:
            OSError: the server is not reachable.
        """
        if self.clients is not None:
            return run(closed_loop(target, requests, concurrency=self.clients, limits=limits))
        return run(open_loop(target, requests, rate=self.offered_per_s or 0.0, limits=limits, seed=seed))


def measure(
    load: ChosenLoad, target: Target, requests: Sequence[Request], plan: Plan, say: Callable[[str], None]
) -> Measurement:
    """Measure one load in windows until the last three agree, or there are as many as the plan has.

    The figures are those of the last three windows. `say` is told each window's.

    Raises:
        OSError: the server is not reachable.
    """
    if plan.warm_up:
        load.send(target, requests, Limits(plan.warm_up, timeout=plan.timeout), -1)
    opened = load.offered_per_s is not None
    loads: list[Load] = []
    while len(loads) < plan.windows:
        loads.append(load.send(target, requests, Limits(plan.seconds, timeout=plan.timeout), len(loads)))
        found = window(loads[-1])
        wrong = f", {found.errors} errors" if found.errors else ""
        say(
            f"{load.name}, window {len(loads)}: {found.rate_per_s:.1f}/s, "
            f"p50 {shown(found.p50_ms)} ms, p99 {shown(found.p99_ms)} ms{wrong}"
        )
        if stable([window(one) for one in loads], plan.stability, opened=opened):
            break
    return measurement(
        load.name,
        loads[-WINDOWS:],
        clients=load.clients,
        offered_per_s=load.offered_per_s,
        stability=plan.stability if plan.windows >= WINDOWS else None,
    )


def shown(milliseconds: float | None) -> str:
    """Return a latency as people read it; `-` where there is none."""
    return "-" if milliseconds is None else f"{milliseconds:.2f}"
