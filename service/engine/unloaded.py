"""Which models were unloaded by hand: one set for all server processes of a machine, kept as files in their folder.

The repository asks it. A process learns of another's `load` or `unload` when it looks at the store again.
"""

import os
from pathlib import Path

_UNLOADED, _LOADED = "unloaded", "loaded"


class Unloaded:
    """A set of model names.

    Args:
        folder: shared by the server processes, with a file for each model that was loaded or unloaded by hand. Where
            one is missing, since folders may be cleaned, what it said last holds. None: there is one process, and the
            set is its own.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._known: dict[str, str] = {}

    def __contains__(self, name: str) -> bool:
        if self._folder:
            try:
                self._known[name] = (self._folder / name).read_text()
            except FileNotFoundError:
                if name in self._known:
                    self._note(name, self._known[name])
        return self._known.get(name) == _UNLOADED

    def add(self, name: str) -> None:
        """Note that a model is to be unloaded."""
        self._note(name, _UNLOADED)

    def discard(self, name: str) -> None:
        """Note that a model is to be loaded."""
        self._note(name, _LOADED)

    def _note(self, name: str, what: str) -> None:
        self._known[name] = what
        if self._folder:
            self._folder.mkdir(parents=True, exist_ok=True)
            written = self._folder / f".{name}.{os.getpid()}"
            written.write_text(what)
            written.replace(self._folder / name)  # at once, for others read it
