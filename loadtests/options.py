"""Options that several load tests have, checked before any load, and where what they print goes."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from zoo.errors import MissingError
from zoo.extras import require

_DRAWN = (".svg", ".png", ".pdf")


class OutFile(click.ParamType[Path]):
    """A file to write: it or its nearest existing folder must be writable."""

    name = "FILE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = Path(value)
        existing = next(one for one in (path, *path.absolute().parents) if one.exists())
        if path.is_dir():
            self.fail(f"{path} is a folder: name a file", param, ctx)
        if existing != path and not existing.is_dir():
            self.fail(f"{path} cannot be written: {existing} is no folder", param, ctx)
        if not os.access(existing, os.W_OK):
            self.fail(f"{path} cannot be written: {existing} belongs to somebody else", param, ctx)
        return path


class PlotFile(OutFile):
    """A file to draw to: matplotlib must be there, and its ending one that is drawn."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = super().convert(value, param, ctx)
        if path.suffix not in _DRAWN:
            self.fail(f"{path}: expected a name that ends in {', '.join(_DRAWN)}", param, ctx)
        try:
            require("matplotlib")
        except MissingError as error:
            self.fail(str(error), param, ctx)
        return path


class ModelFolder(click.ParamType[Path]):
    """The folder of an exported model: it holds `card.json` and `model.onnx`."""

    name = "FOLDER"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = Path(value)
        if missing := [name for name in ("card.json", "model.onnx") if not (path / name).is_file()]:
            self.fail(f"{path} holds no {missing[0]}: give the folder of a version, as models/NAME/1", param, ctx)
        return path


def model_option(option: str, default: str, what: str, name: str = "model") -> Callable[[Any], Any]:
    """Give a command an option for the folder of an exported model, as its argument `name`."""
    return click.option(
        option,
        name,
        default=Path("models") / default / "1",
        show_default=True,
        type=ModelFolder(),
        help=f"The folder of an exported {what}.",
    )


def counts(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Read numbers of clients, `1,8,32`, each once; for `callback`."""
    if value is None:
        return None
    words = [word.strip() for word in value.split(",") if word.strip()]
    if wrong := [word for word in words or [value] if not word.isdecimal() or not int(word)]:
        raise click.BadParameter(f"{wrong[0]}: expected whole numbers from 1, with commas")
    return tuple(dict.fromkeys(map(int, words)))


def say(line: str) -> None:
    """Tell how it goes, on the standard error."""
    click.echo(line, err=True)


def write_text(path: Path | None, text: str) -> None:
    """Write what was printed; without a path nothing."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n", encoding="utf-8")


def markdown_option(name: str = "markdown_path") -> Callable[[Any], Any]:
    """Give a command `--markdown`, as its argument `name`."""
    return click.option("--markdown", name, type=OutFile(), help="Write the table here as well.")


def json_option(name: str = "json_path") -> Callable[[Any], Any]:
    """Give a command `--json`, as its argument `name`."""
    return click.option("--json", name, type=OutFile(), help="Write all figures here.")


def plot_option(name: str = "plot_path") -> Callable[[Any], Any]:
    """Give a command `--plot`, as its argument `name`."""
    return click.option("--plot", name, type=PlotFile(), help="Draw to .svg, .png or .pdf.")
