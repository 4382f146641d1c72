"""`python -m commands.originals`: compares served models with the checkpoints' own libraries, photo by photo.

It needs the extras `export`, `ultralytics` and `libreyolo`; what is not installed is named and left out.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import click
from msgspec import Struct

from commands.originals import answers, runtimes
from commands.originals.accuracy import compare_with_torchvision, compare_with_ultralytics
from commands.originals.differences import Difference
from commands.originals.ultralytics import ULTRALYTICS, compare_ultralytics
from zoo.cli import print_json
from zoo.errors import ExportError

T = TypeVar("T")
_HEADINGS = {"mode": "PIXELS ARE", "pixels": "GREY LEVELS", "mask": "MASK IOU"}
_WIDTHS = {"model": 36, "reference": 38, "settings": 0}
_WIDTH = 13


def compare(only: tuple[str, ...] = (), packages: Path | None = None) -> Iterator[Difference]:
    """Compare all models, or those that are given by name or by family, and yield each one's rows when it is done.

    What is not installed is reported on stderr.
    """
    with TemporaryDirectory(prefix="zooserve-") as name:
        folder = Path(name)
        work: list[tuple[str, str, Callable[[], list[Difference]]]] = [
            *(("torchvision", one, partial(answers.compare_torchvision, one, folder)) for one in answers.TORCHVISION),
            *(
                ("torchvision_detection", one, partial(answers.compare_detector, one, folder))
                for one in answers.TORCHVISION_DETECTORS
            ),
            *(("timm", one, partial(answers.compare_timm, one, folder)) for one in answers.TIMM),
            *(("libreyolo", one, partial(answers.compare_libreyolo, one, folder)) for one in answers.LIBREYOLO),
            ("ultralytics", "ultralytics", partial(compare_ultralytics, ULTRALYTICS, folder)),
            *((one, one, partial(runtimes.rows, one, folder, packages)) for one in runtimes.FAMILIES),
        ]
        if unknown := set(only).difference(*(names for *names, _ in work)):
            known = ", ".join(dict.fromkeys(one for *names, _ in work for one in names))
            raise click.UsageError(f"nothing is called {', '.join(sorted(unknown))} here, but: accuracy, {known}")
        for family, model, make in work:
            if not only or {family, model} & set(only):
                yield from _or_left_out(model, make)


@click.command()
@click.argument("names", nargs=-1)
@click.option(
    "--packages",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder with OpenCV 4 and Paddle 2.6, of `pip install --target`; without it their rows are left out.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def main(names: tuple[str, ...], *, packages: Path | None, as_json: bool) -> None:
    """Print the largest differences between served models and the originals, of all or of NAMES: models, families.

    NAMES may be `accuracy` instead: AP of boxes, masks and keypoints, beside that of the originals' own answers.
    """
    _show(_accuracy() if names == ("accuracy",) else compare(names, packages), as_json=as_json)


def _accuracy() -> Iterator[Struct]:
    with TemporaryDirectory(prefix="zooserve-") as name:
        yield from _or_left_out("torchvision", partial(compare_with_torchvision, Path(name)))
        yield from _or_left_out("ultralytics", partial(compare_with_ultralytics, Path(name)))


def _or_left_out(what: str, make: Callable[[], Iterable[T]]) -> Iterator[T]:
    try:
        yield from make()
    except (ImportError, ExportError, click.ClickException) as error:  # the last one: it is not served
        click.echo(f"left out: {what}: {error}", err=True)


def _show(rows: Iterator[Struct], *, as_json: bool) -> None:
    """Print each row when it is there, for all take minutes; JSON at the end."""
    if as_json:
        print_json(list(rows))
        return
    for number, row in enumerate(rows):
        values = {name: getattr(row, name) for name in row.__struct_fields__}
        if number == 0:
            _print({name: _HEADINGS.get(name, name.upper()) for name in values})
        _print({name: "" if v is None else v if isinstance(v, str) else f"{v:g}" for name, v in values.items()})


def _print(columns: dict[str, str]) -> None:
    click.echo(" ".join(text.ljust(_WIDTHS.get(name, _WIDTH)) for name, text in columns.items()).rstrip())


if __name__ == "__main__":
    main()
