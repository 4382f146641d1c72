"""Promises that a load test checks, and comparisons with a bare loop that takes turns with a server."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from msgspec import Struct

Verdict = Literal["met", "missed", "not measured", "too noisy to judge"]
# The same work without a server, twice within a minute, may differ by this share: the margin that the tightest goals
# leave (p50 within 1.10 of the bare loop's).
NOISY = 0.10


@dataclass(frozen=True)
class Goal:
    """One promise: what it is about, what was found, and whether it was kept."""

    what: str
    found: str
    verdict: Verdict

    def __str__(self) -> str:
        return f"goal {self.what}: {self.found + ' - ' if self.found else ''}{self.verdict}"


def verdict(kept: bool) -> Verdict:
    """Say whether a promise was kept."""
    return "met" if kept else "missed"


def at_most(what: str, found: float | None, most: float, unit: str = "") -> Goal:
    """Judge a figure; None was not measured."""
    return Goal(what, "", "not measured") if found is None else Goal(what, f"{found:.3f}{unit}", verdict(found <= most))


def at_least(what: str, found: float | None, least: float) -> Goal:
    """Judge a figure; None was not measured."""
    return Goal(what, "", "not measured") if found is None else Goal(what, f"{found:.3f}", verdict(found >= least))


class Turns(Struct, frozen=True):
    """A server and a bare loop that took turns, so that both saw the same machine.

    Attributes:
        bare_s: of a photo in each bare loop; one before each round, and one at the end.
        served_s: of a photo in each round.
        ratio: of each round, the served over the mean of the bare loops before and after it.
        spread: by which share the bare loops differ from their median at most.
    """

    bare_s: list[float]
    served_s: list[float]
    ratio: list[float]
    spread: float

    @staticmethod
    def of(bare_s: Sequence[float], served_s: Sequence[float]) -> "Turns":
        """Compare; there is one bare loop more than there are rounds."""
        typical = median(bare_s)
        around = zip(served_s, bare_s[:-1], bare_s[1:], strict=True)
        ratios = [2 * served / (before + after) for served, before, after in around]
        return Turns(list(bare_s), list(served_s), ratios, max(abs(seconds / typical - 1) for seconds in bare_s))

    def goal(self, what: str, most: float) -> Goal:
        """Judge the median ratio; where the bare loops differ too much, neither verdict would say anything."""
        ratio = median(self.ratio)
        return Goal(what, f"{ratio:.2f}", "too noisy to judge" if self.spread > NOISY else verdict(ratio <= most))
