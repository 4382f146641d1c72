"""A clock that only runs move, for tests of what is measured."""

from service.engine.assembly import Run


class Clock:
    """Runs that take given times, on a clock that all of them share.

    Args:
        monkeypatch: of pytest, or whatever has its `setattr`.
        module: whose `perf_counter` it is.
    """

    def __init__(self, monkeypatch, module: str) -> None:
        self._now = 0.0
        monkeypatch.setattr(f"{module}.perf_counter", lambda: self._now)

    def run(self, seconds: float, run: Run = lambda _: {}) -> Run:
        """Make a run of that many seconds; `run` makes its answer."""

        def timed(inputs):
            self._now += seconds
            return run(inputs)

        return timed
