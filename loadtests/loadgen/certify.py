"""The highest rate of Poisson arrivals whose p99 stays under a bound: bisection over LoadGen's tests, then proof."""

import math
from collections.abc import Callable
from time import monotonic

from msgspec import Struct, structs

from loadtests.loadgen.trial import Spec, Trial

_UP, _DOWN = 1.5, 0.5  # how the search widens while every test came out the same
_LEAST = 0.01  # share of the first guess below which it gives up
_PROOFS = 4
_QUERIES = 100  # that a test of the search sends at least


class Certificate(Struct, frozen=True):
    """What a search found.

    Attributes:
        trials: every test, in order.
        proof: the last of them, over the full time, where it is valid: its rate is certified.
        problem: why there is no proof.
    """

    trials: list[Trial]
    proof: Trial | None
    problem: str = ""


class _StopError(Exception):
    """The search ends early; its text says why."""


def certify(
    conduct: Callable[[Spec], Trial],
    spec: Spec,
    *,
    search_seconds: float,
    resolution: float,
    tries: int,
    limit: float = math.inf,
) -> Certificate:
    """Search with short tests, then prove with one of full length, a little slower each time that this fails.

    In the search it is enough that the p99 is in bounds: LoadGen's own rule, early stopping, asks for so many queries
    that short tests would fail by it. The proof must be VALID by all of LoadGen's rules.

    Args:
        conduct: runs a test.
        spec: of the proof; its rate is the first guess.
        search_seconds: that a test of the search takes at least.
        resolution: share of the rate to which it is searched.
        tries: tests at one rate that must fail before the rate counts as too high.
        limit: seconds after which no other test begins.
    """
    trials: list[Trial] = []
    begin = monotonic()

    def test(rate: float, **changes: float) -> Trial:
        if monotonic() - begin > limit:
            raise _StopError(f"the time limit of {limit:g} s is over")
        trial = conduct(structs.replace(spec, target_qps=rate, **changes))
        trials.append(trial)
        if not trial.answered:
            raise _StopError("the service no longer answers")
        return trial

    def passes(rate: float) -> bool:
        return any(test(rate, seconds=search_seconds, min_queries=_QUERIES).in_bounds for _ in range(tries))

    try:
        rate = highest(passes, spec.target_qps, resolution)
        for _ in range(_PROOFS if rate else 0):
            trial = test(rate)
            if trial.valid:
                return Certificate(trials, trial)
            rate *= 1 - resolution
    except _StopError as stop:
        return Certificate(trials, None, str(stop))
    return Certificate(trials, None, "no rate passed" if not rate else "no proof was valid")


def highest(passes: Callable[[float], bool], guess: float, resolution: float) -> float:
    """Return the highest rate that passes, to a share of `resolution`; 0.0 where nothing above 1 % of `guess` does.

    Raises:
        ValueError: guess or resolution is not above 0.
    """
    if not (guess > 0 and resolution > 0):
        raise ValueError(f"guess {guess}, resolution {resolution}: both must be above 0")
    low, high, rate = 0.0, math.inf, guess
    while high > low * (1 + resolution):
        if passes(rate):
            low = rate
        else:
            high = rate
        if math.isinf(high):
            rate = low * _UP
        elif low == 0:
            rate = high * _DOWN
            if rate < _LEAST * guess:
                return 0.0
        else:
            rate = math.sqrt(low * high)
    return low
