"""Which models were loaded and unloaded by hand: the same for all server processes of a machine, as files in a folder.

The repository asks it. A process learns of another's `load` or `unload` when it looks here again.
"""

import time
from pathlib import Path

_LOADED = "+"  # begins the name of a file that says so; no model's name does


class Unloaded:
    """A set of model names that are not to be served, and one of those that are, whatever the settings say.

    Args:
        folder: shared by the server processes; None: there is one process, and the sets are its own.
    """

    def __init__(self, folder: Path | None) -> None:
        self.shared = folder is not None
        self._folder = folder
        self._names: set[str] = set()
        self._asked: dict[str, int] = {}

    def __contains__(self, name: str) -> bool:
        return (self._folder / name).exists() if self._folder else name in self._names

    def add(self, name: str) -> None:
        """Note that a model is to be unloaded."""
        if self._folder:
            (self._folder / name).touch()
            (self._folder / f"{_LOADED}{name}").unlink(missing_ok=True)
        self._names.add(name)
        self._asked.pop(name, None)

    def discard(self, name: str) -> None:
        """Note that a model is no longer to be unloaded."""
        if self._folder:
            (self._folder / name).unlink(missing_ok=True)
        self._names.discard(name)

    def ask_for(self, name: str) -> int:
        """Note that a model was loaded by its name, and is to be by every process; return the moment."""
        now = time.time_ns()
        if self._folder:
            part = self._folder / f".{now}"
            part.write_text(str(now))
            part.replace(self._folder / f"{_LOADED}{name}")
        self._asked[name] = now
        return now

    def asked_for(self) -> dict[str, int]:
        """Which models were loaded by name, and when last."""
        if self._folder is None:
            return dict(self._asked)
        found = {}
        for path in self._folder.glob(f"{_LOADED}*"):
            try:
                found[path.name.removeprefix(_LOADED)] = int(path.read_text())
            except (OSError, ValueError):  # it was removed meanwhile, or the disk is full
                continue
        return found
