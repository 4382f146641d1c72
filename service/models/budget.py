"""The memory that models may take together, and which model makes room for another. `on_demand` acts on it.

Without a budget all models of the store are loaded at the start, and stay.
"""

from collections.abc import Collection, Iterable

from service.models.entry import ModelEntry
from service.models.footprint import Footprint
from service.settings import Settings

_STAY = 3.0  # a model stays at least that many times as long as it took to load
_STAY_S = 0.5  # and that many seconds


class Budget:
    """The limits of one process that has models: its share of those that are set.

    Attributes:
        host, device: bytes of the host and of the GPU; 0: no limit.
        on: whether models are loaded when they are asked for.
    """

    def __init__(self, settings: Settings) -> None:
        self.host = int(settings.memory_mb * 1e6 / (settings.workers * max(1, settings.engines)))
        self.device = int(settings.gpu_memory_mb * 1e6 / settings.workers)
        self.on = settings.on_demand

    def fits(self, need: Footprint, entries: Iterable[ModelEntry], unbooked: int = 0) -> bool:
        """Return whether a model can be loaded beside what is loaded, or being loaded, of `entries`.

        Args:
            need: of the model.
            entries: all others.
            unbooked: bytes of the host that these take beyond their footprints.
        """
        host, device = taken(entries)
        return not self._excess(need, host + unbooked, device)

    def refusal(self, need: Footprint, entries: Iterable[ModelEntry], held: Collection[str] = ()) -> str:
        """Return why a model that takes `need` can never be loaded; empty if it can.

        What others need only while they are loaded does not count: it is free again in a moment.

        Args:
            need: of the model.
            entries: all others. Pinned ones stay, and those named in `held`; all others make room.
            held: names of models that are needed at the same time.
        """
        stay = [entry for entry in entries if entry.pinned or entry.name in held]
        kept = [_kept(entry) for entry in stay]
        return self._excess(need, sum(host for host, _ in kept), sum(device for _, device in kept))

    def victim(self, entries: Iterable[ModelEntry], now: float) -> ModelEntry | None:
        """Return the loaded model that is worth least: the one to unload; None if all are in use, pinned or new.

        A model is worth the time that it would take to load again for the requests of late, per byte.
        """
        able = [entry for entry in entries if self.may_go(entry, now)]
        return min(able, key=lambda entry: _value(entry, now), default=None)

    def may_go(self, entry: ModelEntry, now: float) -> bool:
        """Return whether a model can be unloaded: no request uses it, and it is neither pinned nor new."""
        model = entry.model
        if model is None or entry.pinned or entry.is_loading or model.usage.holds or model.batcher.pending:
            return False
        return now - model.usage.since >= max(_STAY_S, _STAY * entry.footprint.seconds)

    def _excess(self, need: Footprint, host: int, device: int) -> str:
        """Say what a model needs and what is left, if that is less. `host` and `device`: bytes that others take."""
        for what, each, after, used, limit in (
            ("memory", need.most, need.host, host, self.host),
            ("GPU memory", need.device, need.device, device, self.device),
        ):
            if limit and used + each > limit:
                left = max(0, limit - used)
                later = f" to load ({after / 1e6:,.0f} MB afterwards)" if each > after else ""
                return (
                    f"it takes {each / 1e6:,.0f} MB of {what}{later}, and of the {limit / 1e6:,.0f} MB that models may "
                    f"take {left / 1e6:,.0f} MB are left beside those that have to stay"
                )
        return ""


def taken(entries: Iterable[ModelEntry]) -> tuple[int, int]:
    """Return the bytes of host and GPU that models take: loaded ones, and those that are being loaded.

    While a new version of a loaded model is loaded, both are there.
    """
    entries = list(entries)
    loaded = [entry.footprint for entry in entries if entry.model is not None]
    coming = [entry.reserved for entry in entries]
    return (
        sum(each.host for each in loaded) + sum(each.most for each in coming),
        sum(each.device for each in (*loaded, *coming)),
    )


def _kept(entry: ModelEntry) -> tuple[int, int]:
    """Return the bytes of host and GPU that a model takes once its load is over, if one is under way."""
    now = entry.footprint if entry.model is not None else Footprint()
    return max(now.host, entry.reserved.host), max(now.device, entry.reserved.device)


def _value(entry: ModelEntry, now: float) -> float:
    assert entry.model is not None  # noqa: S101 - `may_go`
    footprint = entry.footprint
    return entry.model.usage.recent(now) * footprint.seconds / max(1, footprint.host + footprint.device)
