"""Class names by class id, one per line in `zoo/labels/<name>.txt`. `export` copies them into card.json."""

from pathlib import Path

from zoo.errors import CardError
from zoo.files import read_regular

_FOLDER = Path(__file__).parent / "labels"


def read_labels(name: str) -> tuple[str, ...]:
    """Return the class names of a label file, in the order of their ids.

    Args:
        name: `imagenet1k`, `coco80`, `voc21`, `digits` or `salient`, or the path of a `.txt` file of one's own. In
            `voc21` and `salient`, id 0 is the background.

    Raises:
        CardError: there is no such file, it is not in UTF-8, or a line of it is empty.
    """
    path = Path(name) if name.endswith(".txt") else _FOLDER / f"{name}.txt"
    if not path.exists():
        if name.endswith(".txt"):
            raise CardError(f"the label file {path} does not exist: it is to hold one class name per line")
        known = ", ".join(sorted(file.stem for file in _FOLDER.glob("*.txt")))
        raise CardError(f"there are no labels called {name!r}: use one of {known}, or add {path.name} to zoo/labels")
    try:
        labels = tuple(read_regular(path).decode("utf-8-sig").splitlines())  # some editors begin a file with a mark
    except OSError as error:
        raise CardError(f"the label file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CardError(f"{path} is not in UTF-8 ({error}): save it so") from error
    for line, label in enumerate(labels, start=1):
        if not label.strip():
            raise CardError(
                f"{path}: line {line} is empty; each line is the name of one class, in the order of their ids"
            )
    return labels
