"""What the store holds now: of each name the latest version, and what is incomplete. The repository asks."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from zoo.files import shown
from zoo.store import Entry, Store

logger = logging.getLogger(__name__)
_MOST_LINES = 20  # about folders, of one look
_MOST_REASONS = 3  # why folders are skipped, in what `/readyz` says


class Found(NamedTuple):
    """The store, as it was at one look.

    Attributes:
        latest: of each name the latest version that can be loaded.
        missing: of each name whose latest version is incomplete, what is missing.
        skipped: why other folders are not models, cut short.
    """

    latest: Mapping[str, Entry]
    missing: Mapping[str, str]
    skipped: str


class Scan:
    """Looks at a store, and logs what is said of folders once.

    Args:
        root: folder of the store.
    """

    def __init__(self, root: Path) -> None:
        self._store = Store(root)
        self._logged: frozenset[str] = frozenset()  # keys of the lines of the last look

    def look(self, *, incomplete: bool) -> Found:
        """Look at all folders.

        Args:
            incomplete: whether an incomplete folder is loaded, and so refused, where there is no other of its name.
                Otherwise it is waited for, as it is being copied.
        """
        look = self._store.look()
        lines = {line: line for line in (*look.skipped, *look.ignored)}
        latest: dict[str, Entry] = {}  # the latest version comes last
        missing: dict[str, str] = {}
        for entry in look.entries:
            if entry.missing:
                missing[entry.name] = f"version {entry.version} in the store is not whole: {entry.missing}"
                lines[str(entry.path)] = f"{entry.path} is loaded when it is whole: {shown(entry.missing)}"
            else:
                missing.pop(entry.name, None)
            if not entry.missing or (incomplete and entry.name not in latest):
                latest[entry.name] = entry
        self._log(lines)
        return Found(latest, missing, "; ".join(look.skipped[:_MOST_REASONS]))

    def _log(self, lines: Mapping[str, str]) -> None:
        """Log the lines whose keys are new since the last look."""
        fresh = [line for key, line in lines.items() if key not in self._logged]
        for line in fresh[:_MOST_LINES]:
            logger.warning("%s", line)
        if len(fresh) > _MOST_LINES:
            logger.warning("%d more folders are skipped, or not whole yet", len(fresh) - _MOST_LINES)
        self._logged = frozenset(lines)
