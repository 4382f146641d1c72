"""Scans the store for the latest version of each model, and for incomplete folders. The repository calls it."""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from zoo.files import shown
from zoo.store import Entry, Store

logger = logging.getLogger(__name__)
_MOST_LINES = 20  # log lines of one scan
_MOST_REASONS = 3  # reasons for skipped folders in the body of `/readyz`


class Found(NamedTuple):
    """The result of one scan of the store.

    Attributes:
        latest: by name, the latest version that can be loaded.
        older: by name, the versions before that, the newest first.
        missing: by name, what is missing in a latest version that is incomplete.
        skipped: why other folders are not models, shortened.
    """

    latest: Mapping[str, Entry]
    older: Mapping[str, Sequence[Entry]]
    missing: Mapping[str, str]
    skipped: str


class Scan:
    """Scans a store, and logs each problem of a folder once.

    Args:
        root: folder of the store.
    """

    def __init__(self, root: Path) -> None:
        self._store = Store(root)
        self._logged: frozenset[str] = frozenset()  # keys of the last scan's lines

    def look(self, *, incomplete: bool) -> Found:
        """Scan all folders.

        Args:
            incomplete: whether to load an incomplete folder, which is then refused, if its name has no other folder.
                Otherwise it is ignored until it is complete, since it may still be being copied.
        """
        look = self._store.look()
        lines = {line: line for line in (*look.skipped, *look.ignored)}
        latest: dict[str, Entry] = {}  # the latest version comes last
        older: defaultdict[str, list[Entry]] = defaultdict(list)
        missing: dict[str, str] = {}
        for entry in look.entries:
            if entry.missing:
                missing[entry.name] = f"version {entry.version} in the store is not whole: {entry.missing}"
                lines[str(entry.path)] = f"{entry.path} is loaded when it is whole: {shown(entry.missing)}"
            else:
                missing.pop(entry.name, None)
            if not entry.missing or (incomplete and entry.name not in latest):
                if before := latest.get(entry.name):
                    older[entry.name].insert(0, before)
                latest[entry.name] = entry
        self._log(lines)
        return Found(latest, older, missing, "; ".join(look.skipped[:_MOST_REASONS]))

    def _log(self, lines: Mapping[str, str]) -> None:
        """Log the lines whose keys are new since the last scan."""
        fresh = [line for key, line in lines.items() if key not in self._logged]
        for line in fresh[:_MOST_LINES]:
            logger.warning("%s", line)
        if len(fresh) > _MOST_LINES:
            logger.warning("%d more folders are skipped, or not whole yet", len(fresh) - _MOST_LINES)
        self._logged = frozenset(lines)
