"""One test of LoadGen's, and what came of it: its own verdict, and whether every answer was right."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic

from msgspec import Struct

from loadtests.disturbance import Disturbance, Limits, Watcher
from loadtests.loadgen.library import loadgen
from loadtests.loadgen.spec import Spec
from loadtests.loadgen.summary import FILE, Summary, read_summary
from loadtests.loadgen.sut import SystemUnderTest
from loadtests.percentiles import percentile
from loadtests.transport import outcome_name

ACCURACY_FILE = "mlperf_log_accuracy.json"
_SPARE = 30.0  # seconds beyond what a test may take, before it is given up
_BOUND_KEPT = "Performance constraints"


class Trial(Struct, frozen=True):
    """What came of a test.

    Attributes:
        spec: what LoadGen was to do.
        summary: LoadGen's verdict and figures.
        outcomes: how many queries ended in which way: by HTTP status, or why there was none.
        errors: how many were not answered rightly. LoadGen does not look at answers: for it these are complete.
        late_ms: the 99th percentile of how late the senders were, in ms; it is part of the latencies.
        disturbance: what else this machine did meanwhile.
    """

    spec: Spec
    summary: Summary
    outcomes: dict[str, int]
    errors: int
    late_ms: float = 0.0
    disturbance: Disturbance | None = None

    @property
    def valid(self) -> bool:
        """Whether LoadGen wrote VALID and every answer was right."""
        return self.summary.valid and not self.errors

    @property
    def in_bounds(self) -> bool:
        """Whether the latency was in bounds as far as this test went, and every answer was right."""
        return self.summary.checks.get(_BOUND_KEPT, True) and not self.errors

    def disturbed(self, limits: Limits) -> list[str]:
        """Say what disturbed it, over the limits; nothing where nothing did."""
        return self.disturbance.signs(limits) if self.disturbance else []

    @property
    def answered(self) -> int:
        """How many queries were answered rightly."""
        return self.outcomes.get("200", 0)


class TrialError(Exception):
    """A test that LoadGen did not bring to an end."""


def conduct(
    spec: Spec,
    sut: SystemUnderTest,
    images: int,
    logs: Path,
    on_second: Callable[[float, int], None] = lambda *_: None,
    watcher: Watcher | None = None,
) -> Trial:
    """Let LoadGen measure.

    Args:
        spec: what it is to do.
        sut: ready; it answers `images` different images.
        images: how many.
        logs: a folder for what LoadGen writes; made where it is missing.
        on_second: called about once a second with the seconds since the start and the number of answers.
        watcher: of what else this machine does; None: nobody looks.

    Raises:
        TrialError: a sender ended, or the test did not end.
    """
    if watcher is not None:
        watcher.start()
    _run(spec, sut, images, logs, on_second)
    disturbance = None if watcher is None else watcher.stop()
    late = percentile(sut.late, 99) or 0.0
    errors = sut.outcomes.total() - sut.outcomes[200]
    return Trial(spec, read_summary(logs / FILE), named(sut), errors, late / 1000, disturbance)


def answer_all(
    spec: Spec, sut: SystemUnderTest, images: int, logs: Path, on_second: Callable[[float, int], None]
) -> dict[str, int]:
    """Let LoadGen ask about every image once and log the answers; see `conduct`. Returns the outcomes.

    Raises:
        TrialError: a sender ended, or the test did not end.
    """
    _run(spec, sut, images, logs, on_second)
    return named(sut)


def named(sut: SystemUnderTest) -> dict[str, int]:
    """Return how many queries ended in which way, by its name."""
    return {outcome_name(outcome): count for outcome, count in sorted(sut.outcomes.items())}


def _run(spec: Spec, sut: SystemUnderTest, images: int, logs: Path, on_second: Callable[[float, int], None]) -> None:
    lg = loadgen()
    logs.mkdir(parents=True, exist_ok=True)
    output = lg.LogSettings()
    output.log_output.outdir = str(logs)
    output.enable_trace = False
    library = lg.ConstructQSL(images, images, _nothing, _nothing)  # the senders have them
    settings = spec.settings()
    sut.start_counting()
    # LoadGen would not let Ctrl+C through: it runs in a thread, and this one stays awake.
    test = threading.Thread(
        target=lg.StartTestWithLogSettings, args=(sut.handle, library, settings, output), daemon=True
    )
    begin = monotonic()
    test.start()
    longest = float("inf") if spec.accuracy else settings.max_duration_ms / 1000 + _SPARE
    try:
        while test.is_alive():
            test.join(1.0)
            passed = monotonic() - begin
            sut.check()
            if passed > longest and not sut.problem:
                sut.abandon(f"the test did not end within {passed:.0f} s")
            on_second(passed, sut.outcomes.total())
    except KeyboardInterrupt:
        os._exit(130)  # a test cannot be ended from outside; the senders end when their pipes do
    lg.DestroyQSL(library)
    if sut.problem:
        raise TrialError(sut.problem)


def _nothing(_: list[int]) -> None:
    """Images need neither loading nor unloading."""
