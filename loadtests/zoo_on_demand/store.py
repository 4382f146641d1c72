"""A store of copies of exported models, each under a name of its own."""

import json
import os
from itertools import cycle, islice
from pathlib import Path

PINNED = "pinned"
"""The first model of the store."""


def make_store(originals: list[Path], count: int, folder: Path) -> dict[str, str]:
    """Fill a store with copies of models; return the original's name by the copy's. The first one is pinned."""
    names = [PINNED, *(f"model-{number:02d}" for number in range(count - 1))]
    made = {}
    for name, original in zip(names, islice(cycle(originals), count), strict=True):
        target = folder / name / original.name
        for path in original.rglob("*"):
            if path.is_file() and path.name != "card.json":
                copy = target / path.relative_to(original)
                copy.parent.mkdir(parents=True, exist_ok=True)
                os.link(path, copy) if _links(path, folder) else copy.write_bytes(path.read_bytes())
        card = json.loads((original / "card.json").read_bytes())
        card |= {"name": name, "task_default": False}
        (target / "card.json").write_text(json.dumps(card))
        made[name] = original.parent.name
    return made


def _links(path: Path, folder: Path) -> bool:
    return path.stat().st_dev == folder.stat().st_dev
