"""Class names by class id, one per line in `zoo/labels/<name>.txt`. `export` copies them into card.json."""

import codecs
from pathlib import Path

import msgspec

from zoo.errors import CardError
from zoo.files import read_regular

_FOLDER = Path(__file__).parent / "labels"


def read_labels(name: str) -> tuple[str, ...]:
    """Return the class names of a label file, in the order of their ids.

    Args:
        name: `imagenet1k`, `coco80`, `voc21`, `digits`, `salient`, `person` or `dota15`, or the path of your file:
            `.txt` with one name per line, in UTF-8 or in UTF-16 with a byte order mark; or `.json`, a list of names,
            which may be empty or have line breaks. In `voc21` and `salient`, id 0 is the background.

    Raises:
        CardError: the file does not exist, is not in UTF-8, has an empty line, or is not a list of names.
    """
    own = name.endswith((".txt", ".json"))
    path = Path(name) if own else _FOLDER / f"{name}.txt"
    if not path.is_file():
        if own:
            raise CardError(f"the label file {path} does not exist: it is to hold one class name per line")
        known = ", ".join(sorted(file.stem for file in _FOLDER.glob("*.txt")))
        raise CardError(f"there are no labels called {name!r}: use one of {known}, or add {path.name} to zoo/labels")
    text = _text(path)
    if path.suffix == ".json":
        try:
            return msgspec.json.decode(text, type=tuple[str, ...])
        except msgspec.MsgspecError as error:
            raise CardError(f"{path}: expected a list of class names, in the order of their ids: {error}") from error
    # `splitlines` would also split names at U+2028 and similar characters.
    labels = tuple(text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n")) if text else ()
    for line, label in enumerate(labels, start=1):
        if not label.strip():
            raise CardError(
                f"{path}: line {line} is empty; each line is the name of one class, in the order of their ids"
            )
    return labels


def _text(path: Path) -> str:
    """Read a file as UTF-8, or as UTF-16 if it begins with that byte order mark."""
    try:
        data = read_regular(path)
    except OSError as error:
        raise CardError(f"the label file {path} cannot be read: {error.strerror}") from error
    marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return data.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise CardError(f"{path} is not in UTF-8 ({error}): save it so") from error
