"""The user's folders for what this project keeps: caches and state."""

from pathlib import Path

from platformdirs import user_cache_path, user_state_path

NOWHERE = Path("/dev/null/zooserve")
"""Below a file: nothing is found there, and nothing can be written."""


def cache_folder() -> Path:
    """Return the folder of caches; for a user without a home, a path where `OSError` says that there is nothing."""
    try:
        return _absolute(user_cache_path("zooserve"))
    except RuntimeError:  # neither HOME nor an entry in the system's list of users
        return NOWHERE


def state_folder() -> Path:
    """Return the folder of what running servers keep; the same for a user without a home."""
    try:
        return _absolute(user_state_path("zooserve"))
    except RuntimeError:
        return NOWHERE


def _absolute(folder: Path) -> Path:
    """Leave out folders that depend on the current one, in which others may write."""
    return folder if folder.is_absolute() else NOWHERE
