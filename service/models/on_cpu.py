"""Loads a graph for a CPU: by the kernels that are fastest here, on as many threads as pay. `model` calls it."""

import logging
from collections.abc import Callable
from typing import NamedTuple

from service.cores import busy
from service.engine.assembly import Run
from service.engine.kernels import Candidate, Kernels, measure_kernels
from service.engine.lanes import Sample
from service.engine.optimised import Optimised
from service.engine.plugins import Plugin, plugins
from service.engine.profile import CPU_SIZES, Profile, best_batch, measure
from service.engine.profile_cache import key_of, recall, remember
from service.engine.providers import CPU, Tuning
from service.engine.session import NARROW, Session, Width
from service.engine.widths import WideRun, measure_widths, thread_counts, used_widths
from service.settings import Settings
from zoo.served_card import AnyServed

logger = logging.getLogger(__name__)


class _Loaded(NamedTuple):
    """A graph by one provider's kernels: on one thread; and what runs on several of them take."""

    narrow: Session
    rows: list[WideRun]


class CpuLoader:
    """Loads one graph.

    Args:
        card: of the graph.
        load: makes a `Session` of it.
        sample: makes inputs to measure and to warm up with.
        settings: give what is not to be measured.
        cores: that all runs share, which is the number of workers.
        graph_bytes: size of the graph.
        golden: whether a session answers the golden inputs as it should.
    """

    def __init__(
        self,
        card: AnyServed,
        load: Callable[..., Session],
        sample: Sample,
        settings: Settings,
        cores: int,
        graph_bytes: int,
        *,
        golden: Callable[[Run], bool],
    ) -> None:
        self._card, self._load, self._sample, self._settings = card, load, sample, settings
        self._cores, self._graph_bytes, self._golden = cores, graph_bytes, golden
        self._optimised = Optimised(card.sha256, graph_bytes) if settings.on_demand else None

    def load(self) -> tuple[Profile, Session, list[Session]]:
        """Load the graph as it will serve, warm. What is not known from an earlier start is measured first.

        Returns:
            The profile, the session of one thread, and those of several, with rising numbers of them.

        Raises:
            SessionError: ONNX Runtime cannot run the graph as asked.
        """
        settings = self._settings
        found = plugins() if settings.plugins == "auto" else []
        others = [f"{plugin.provider} {plugin.version}" for plugin in found]
        numbers = (settings.max_batch, settings.run_threads, settings.wide_mb, settings.prefer)
        key = key_of(self._card.sha256, CPU, self._cores, *numbers, *others)
        profile = recall(key, Profile)
        # Within a budget the memory is reserved that was measured with the known profile, and none to measure again.
        if profile is None or (profile.disturbed and not settings.on_demand and not busy()):
            profile = self._measure(found)
            remember(key, profile)
        used = {row.provider for row in profile.kernels if row.used}
        plugin = next((each for each in found if each.provider in used), None)
        narrow = self._session(NARROW, plugin)
        wide = [self._session(width, plugin) for width in used_widths(profile.wide)]
        for session in (narrow, *wide):
            for size in sorted({1, profile.max_batch}):
                session.warm_up(self._sample(size))
        return profile, narrow, wide

    def _session(self, width: Width, plugin: Plugin | None) -> Session:
        optimised = None if plugin else self._optimised
        return self._load(width=width, plugin=plugin, cores=self._cores, optimised=optimised)

    def _measure(self, found: list[Plugin]) -> Profile:
        fixed, own = self._settings.max_batch, self._widths(None)
        best, rows = own, list[Kernels]()
        if found:
            tried = [(own, self._candidate(own, None)), *filter(None, map(self._try, found))]
            rows = measure_kernels([candidate for _, candidate in tried], self._sample(1), self._cores)
            best = next(loaded for (loaded, _), row in zip(tried, rows, strict=True) if row.used)
        seconds = measure(best.narrow.run, self._sample, sorted({1, fixed}) if fixed else CPU_SIZES)
        chosen_by = "setting" if fixed else "measured"
        max_batch = fixed or best_batch(seconds, self._settings.prefer)
        # Every worker computes on its own core, so as many runs as workers are best.
        return Profile(seconds, max_batch, self._cores, Tuning(), chosen_by, best.rows, rows, disturbed=busy())

    def _try(self, plugin: Plugin) -> tuple[_Loaded, Candidate] | None:
        try:
            loaded = self._widths(plugin)
            return loaded, self._candidate(loaded, plugin)
        except Exception as error:  # SessionError at load, and whatever a plug-in raises in a run
            logger.warning("%s is not used for %s: %s", plugin.provider, self._card.name, error)
            return None

    def _candidate(self, loaded: _Loaded, plugin: Plugin | None) -> Candidate:
        wide = [self._session(width, plugin) for width in used_widths(loaded.rows)[-1:]]
        alone, narrow = [*wide, loaded.narrow][0].run, loaded.narrow.run
        golden = plugin is None or self._golden(narrow)
        return Candidate(loaded.narrow.provider, plugin.version if plugin else "", golden, alone, narrow)

    def _widths(self, plugin: Plugin | None) -> _Loaded:
        """Load a graph by some kernels, and measure on how many threads it pays to run it."""
        narrow, asked = self._session(NARROW, plugin), self._settings.run_threads
        counts = [asked] if asked > 1 else thread_counts(self._cores) if asked == 0 else []
        if plugin and not plugin.takes_threads:
            counts = []
        rows = measure_widths(
            narrow,
            lambda width: self._session(width, plugin),
            self._sample(1),
            counts,
            self._graph_bytes,
            self._settings.wide_mb * 1e6,
            chosen=asked > 1,
        )
        return _Loaded(narrow, rows)
