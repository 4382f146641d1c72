"""Which models were unloaded by hand: one set for all server processes of a machine, kept as files in their folder.

The repository asks it. A process learns of another's `load` or `unload` when it looks at the store again.
"""

import shutil
import tempfile
from contextlib import suppress
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
        self._look()
        return name in self._names

    def add(self, name: str) -> None:
        """Note that a model is to be unloaded."""
        self._look()
        self._names.add(name)
        if self._folder:
            (self._folder / name).touch()

    def discard(self, name: str) -> None:
        """Note that a model is to be loaded."""
        self._look()
        self._names.discard(name)
        if self._folder:
            (self._folder / name).unlink(missing_ok=True)

    def _look(self) -> None:
        """Read the folder; where it is gone, as temporary folders may be, make it again as it was last seen."""
        if self._folder is None:
            return
        with suppress(FileNotFoundError):
            self._names = {file.name for file in self._folder.iterdir()}
            return
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=self._folder.parent))
        for name in self._names:
            (folder / name).touch()
        try:
            folder.rename(self._folder)  # at once: other processes see all of it or nothing
        except OSError:  # one of them was faster
            shutil.rmtree(folder, ignore_errors=True)
