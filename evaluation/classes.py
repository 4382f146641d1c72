"""Matches the names of folders, or of categories in annotations, with a model's classes."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from evaluation.dataset import DataError
from zoo.labels import read_labels

_SHOWN = 5  # unknown names that a message lists
_WORDNET = re.compile(r"n\d{8}")
HOW = "by label (case, spaces, `_` and `-` aside), WordNet id (ImageNet's 1000 classes) or class id"


def match(names: Iterable[str], labels: Sequence[str], mapping: Mapping[str, str] | None = None) -> dict[str, int]:
    """Find the class id of each name: a label, else a WordNet id, else a class id.

    Args:
        names: to be matched.
        labels: of the model, by class id.
        mapping: labels or ids for names that are neither.

    Raises:
        DataError: a name matches no class, or two names match the same one.
    """
    mapping = mapping or {}
    known = {str(class_id): class_id for class_id in range(len(labels))}
    if tuple(labels) == read_labels("imagenet1k"):
        known |= {wordnet: class_id for class_id, wordnet in enumerate(read_labels("imagenet1k_wordnet"))}
    known |= {_plain(label): class_id for class_id, label in reversed(list(enumerate(labels)))}
    found = {name: known.get(_plain(mapping.get(name, name))) for name in names}
    unknown = [name for name, class_id in found.items() if class_id is None]
    if unknown:
        raise DataError(_complaint(unknown, labels))
    matched = {name: class_id for name, class_id in found.items() if class_id is not None}
    first: dict[int, str] = {}
    for name, class_id in matched.items():
        if first.setdefault(class_id, name) != name:
            raise DataError(
                f"{first[class_id]!r} and {name!r} both mean the class {class_id} ({labels[class_id]}): join them, or "
                "say what they mean in classes.txt"
            )
    return matched


def read_mapping(path: Path) -> dict[str, str]:
    """Read a `classes.txt`: on each line a name, a tab (or comma, or space), and its label or id.

    Raises:
        DataError: a line has another form, or it is no UTF-8.
    """
    mapping = {}
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected text in UTF-8: {error}") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, *rest = re.split(r"\t\s*" if "\t" in line.strip() else r"[,\s]\s*", line.strip(), maxsplit=1)
        if not rest:
            raise DataError(
                f"{path}: line {number} is {line!r}; expected a folder's name, a space and the label or id that it "
                "stands for"
            )
        mapping[name] = rest[0]
    return mapping


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name.strip().casefold())


def _complaint(unknown: Sequence[str], labels: Sequence[str]) -> str:
    listed = ", ".join(repr(name) for name in unknown[:_SHOWN]) + (", ..." if len(unknown) > _SHOWN else "")
    close = difflib.get_close_matches(_plain(unknown[0]), labels)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    if _WORDNET.fullmatch(unknown[0]):
        hint = " WordNet ids are known for models with ImageNet's 1000 labels only."
    count = f"{len(unknown)} names mean" if len(unknown) > 1 else "1 name means"
    return (
        f"{count} none of the model's {len(labels)} classes: {listed}.{hint} Names are matched {HOW}; or write a "
        "classes.txt with lines such as `tabby_cats Egyptian cat`"
    )
