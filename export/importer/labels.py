"""Class names that a file notes, as a label file, and in a line of the report."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

_SHOWN = 30  # letters of a name


def write_names(names: Sequence[str], folder: Path, stem: str) -> str:
    """Write class names into a folder; return the file's path. It is JSON where lines of text cannot hold each name."""
    plain = all(name.strip() and not set(name) & {"\n", "\r"} for name in names) and not names[0].startswith("\ufeff")
    path = folder / f"{stem}.{'txt' if plain else 'json'}"
    path.write_bytes("".join(f"{name}\n" for name in names).encode() if plain else msgspec.json.encode(names))
    return str(path)


def shown_names(names: Sequence[str]) -> str:
    """Return how many names there are, and the first of them, in one line."""
    first = (name.strip() if name.isprintable() else repr(name)[1:-1] for name in names[:3])
    cut = (name if len(name) <= _SHOWN else f"{name[:_SHOWN]}..." for name in first)
    return f"{len(names)}: {', '.join(name or repr(name) for name in cut)}{', ...' if len(names) > 3 else ''}"
