"""Which models were unloaded by hand: one set for all server processes of a machine, kept as files in their folder.

The repository asks it. A process learns of another's `load` or `unload` when it looks at the store again.
"""

from pathlib import Path


class Unloaded:
    """A set of model names.

    Args:
        folder: shared by the server processes; None: there is one process, and the set is its own.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._names: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return (self._folder / name).exists() if self._folder else name in self._names

    def add(self, name: str) -> None:
        """Note that a model is to be unloaded."""
        if self._folder:
            (self._folder / name).touch()
        self._names.add(name)

    def discard(self, name: str) -> None:
        """Note that a model is to be loaded."""
        if self._folder:
            (self._folder / name).unlink(missing_ok=True)
        self._names.discard(name)
