"""`python -m commands.originals`: compares served models with the checkpoints' own libraries, photo by photo.

It needs the extras `export`, `ultralytics` and `libreyolo`; what is not installed is named and left out.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import click
import msgspec
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from commands.originals import answers, runtimes
from commands.originals.accuracy import compare_with_torchvision, compare_with_ultralytics
from commands.originals.differences import Difference
from commands.originals.ultralytics import ULTRALYTICS, compare_ultralytics
from zoo.errors import ExportError

T = TypeVar("T")
_HEADINGS = {"mode": "PIXELS ARE", "pixels": "GREY LEVELS", "mask": "MASK IOU"}


def compare(only: tuple[str, ...] = (), packages: Path | None = None) -> list[Difference]:
    """Compare all families, or those whose names are given. What is not installed is reported on stderr."""
    rows: list[Difference] = []

    def add(family: str, make: Callable[[], list[Difference]]) -> None:
        if not only or family in only:
            rows.extend(_or_left_out(family, make))

    with TemporaryDirectory(prefix="zooserve-") as name:
        folder = Path(name)
        for one in answers.TORCHVISION:
            add("torchvision", partial(answers.compare_torchvision, one, folder))
        for one in answers.TORCHVISION_DETECTORS:
            add("torchvision_detection", partial(answers.compare_detector, one, folder))
        for one in answers.TIMM:
            add("timm", partial(answers.compare_timm, one, folder))
        for one in answers.LIBREYOLO:
            add("libreyolo", partial(answers.compare_libreyolo, one, folder))
        add("ultralytics", partial(compare_ultralytics, ULTRALYTICS, folder))
        for family in runtimes.FAMILIES:
            add(family, partial(runtimes.rows, family, folder, packages))
    return rows


@click.command()
@click.argument("families", nargs=-1)
@click.option(
    "--packages",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder with OpenCV 4 and Paddle 2.6, of `pip install --target`; without it their rows are left out.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def main(families: tuple[str, ...], *, packages: Path | None, as_json: bool) -> None:
    """Print the largest differences between served models and the originals, of all FAMILIES or of those given.

    FAMILIES may be `accuracy` instead: AP of boxes, masks and keypoints, beside that of the originals' own answers.
    """
    if families == ("accuracy",):
        with TemporaryDirectory(prefix="zooserve-") as name:
            one, other = (
                partial(compare, Path(name)) for compare in (compare_with_torchvision, compare_with_ultralytics)
            )
            rows = [*_or_left_out("torchvision", one), *_or_left_out("ultralytics", other)]
        _show(rows, as_json=as_json)
        return
    _show(compare(families, packages), as_json=as_json)


def _or_left_out(family: str, make: Callable[[], Iterable[T]]) -> list[T]:
    try:
        return list(make())
    except (ImportError, ExportError) as error:
        click.echo(f"left out: {family}: {error}", err=True)
        return []


def _show(rows: Sequence[Struct], *, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(rows), indent=2).decode())
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    names = rows[0].__struct_fields__ if rows else ()
    for name in names:
        table.add_column(_HEADINGS.get(name, name.upper()))
    for row in rows:
        values = [getattr(row, name) for name in names]
        table.add_row(*("" if v is None else v if isinstance(v, str) else f"{v:g}" for v in values))
    Console(highlight=False, width=140, soft_wrap=True).print(table)


if __name__ == "__main__":
    main()
