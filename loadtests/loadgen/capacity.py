"""The highest rate of Poisson arrivals whose p99 stays under a bound: short tests find it, full ones decide.

One test proves little: near the edge chance decides, and a machine that does something else spoils it. So a rate is
judged by the majority of several tests, tests that were disturbed are repeated instead of counted, and what short tests
excluded is tried again at full length.
"""

import math
from collections.abc import Callable

from msgspec import Struct, structs

from loadtests.disturbance import Limits
from loadtests.loadgen.spec import Spec
from loadtests.loadgen.trial import Trial

_UP, _DOWN = 1.3, 0.7  # how the search widens while every test came out the same
_LEAST = 0.01  # share of the first guess below which it gives up
_STEPS_DOWN = 10  # from what short tests found to what full ones confirm
_LARGEST_STEP = 0.25
_QUERIES = 300  # that a short test sends at least: of fewer, the p99 is little else than the longest
_CLEAR = 0.5  # share of the bound below which one short test is enough for a rate to be kept


class Search(Struct, frozen=True):
    """How it is searched.

    Attributes:
        seconds: that a short test takes at least.
        resolution: share of the rate to which it is searched.
        tests: of which the majority decides about a rate; odd.
        repeats: tests of one rate that are repeated because they were disturbed; the next are counted all the same. So
            are all tests while the disturbance does not end: twice as many in a row.
        limits: of what counts as disturbed.
    """

    seconds: float = 10.0
    resolution: float = 0.03
    tests: int = 3
    repeats: int = 3
    limits: Limits = Limits()


class Capacity(Struct, frozen=True):
    """What was found.

    Attributes:
        rate: the highest that was kept at full length, per second; None where none was.
        proofs: the full tests that kept it.
        above: the lowest higher rate that full tests did not keep; None where the search ended before.
        trials: every test, in order.
        problem: why there is no rate, or why a higher one may be kept; empty where the search came to its end.
    """

    rate: float | None
    proofs: list[Trial]
    above: float | None
    trials: list[Trial]
    problem: str = ""


class _StopError(Exception):
    """The search ends early; its text says why."""


def find_capacity(
    conduct: Callable[[Spec], Trial],
    spec: Spec,
    search: Search = Search(),  # noqa: B008 - it holds no state
    over: Callable[[], bool] = lambda: False,
) -> Capacity:
    """Find the highest rate that is kept.

    A short test keeps a rate if every answer was right and its p99 is in bounds. A full one must be VALID by all of
    LoadGen's rules besides, of which one, early stopping, asks for more queries than short tests have.

    Args:
        conduct: runs a test.
        spec: of a full test; its rate is the first guess.
        search: see there.
        over: asked before each test, whether the time is over.
    """
    return _Finder(conduct, spec, search, over).find()


class _Finder:
    def __init__(self, conduct: Callable[[Spec], Trial], spec: Spec, search: Search, over: Callable[[], bool]) -> None:
        self._conduct, self._spec, self._search, self._over = conduct, spec, search, over
        self._trials: list[Trial] = []
        self._disturbed = 0  # tests in a row
        self._rate: float | None = None
        self._proofs: list[Trial] = []
        self._above: float | None = None

    def find(self) -> Capacity:
        problem = ""
        try:
            low = self._by_short_tests()
            if low:
                self._confirm(low)
                self._climb()
            problem = "" if low else "no rate was kept"
        except _StopError as stop:
            problem = str(stop)
        return Capacity(self._rate, self._proofs, self._above, self._trials, problem)

    def _by_short_tests(self) -> float:
        """Bisect; the highest rate that short tests kept, 0.0 where that is far below the guess."""
        low, high, rate = 0.0, math.inf, self._spec.target_qps
        while high > low * (1 + self._search.resolution):
            if self._kept(rate, full=False):
                low = rate
            else:
                high = rate
            if math.isinf(high):
                rate = low * _UP
            elif low == 0:
                rate = high * _DOWN
                if rate < _LEAST * self._spec.target_qps:
                    return 0.0
            else:
                rate = math.sqrt(low * high)
        return low

    def _confirm(self, rate: float) -> None:
        """Go down from a rate until full tests keep one, in steps that grow; `_climb` finds what was passed over."""
        step = self._search.resolution
        for _ in range(_STEPS_DOWN):
            if self._kept(rate, full=True):
                return
            rate *= 1 - step
            step = min(2 * step, _LARGEST_STEP)
        raise _StopError("short tests kept a rate that full ones did not")

    def _climb(self) -> None:
        """Go up from the rate that was kept until one is not, in steps that grow: short tests may have been wrong."""
        step = self._search.resolution
        while self._rate is not None:
            rate = self._rate * (1 + step)
            if self._above is not None and rate >= self._above * (1 - 1e-9):
                if step <= self._search.resolution:
                    return
                step = self._search.resolution
            elif self._kept(rate, full=True):
                step = min(2 * step, _LARGEST_STEP)

    def _kept(self, rate: float, *, full: bool) -> bool:
        """Judge a rate by the majority of its tests."""
        good: list[Trial] = []
        bad: list[Trial] = []
        repeats = 0
        while 2 * max(len(good), len(bad)) < self._search.tests:
            trial = self._test(rate, len(good) + len(bad), full=full)
            self._disturbed = self._disturbed + 1 if trial.disturbed(self._search.limits) else 0
            if self._disturbed and repeats < self._search.repeats and self._disturbed <= 2 * self._search.repeats:
                repeats += 1
                continue
            passed = trial.valid if full else trial.in_bounds
            (good if passed else bad).append(trial)
            if passed and not full and trial.summary.p99 < _CLEAR * self._spec.bound_ms:
                return True
        kept = len(good) > len(bad)
        if full and kept:
            self._rate, self._proofs = rate, good
        elif full:
            self._above = rate if self._above is None else min(self._above, rate)
        return kept

    def _test(self, rate: float, arrivals: int, *, full: bool) -> Trial:
        if self._over():
            raise _StopError("the time was over (--minutes)")
        spec = structs.replace(self._spec, target_qps=rate, arrivals=arrivals)
        if not full:
            spec = structs.replace(spec, seconds=self._search.seconds, min_queries=_QUERIES)
        trial = self._conduct(spec)
        self._trials.append(trial)
        if not trial.answered:
            raise _StopError("the server no longer answers")
        return trial
