"""The command line `zooserve`: finds its commands by entry points, and imports one only when it is called.

So `zooserve list` and `zooserve --help` neither import nor need torch. Also what several commands have in common.
"""

import ast
import importlib.util
import os
import signal
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points, version
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from zoo.errors import ZooError, refused_by_system
from zoo.extras import missing
from zoo.files import LINE, shown
from zoo.variables import misspelt_of_store

CommandT = TypeVar("CommandT", bound=Callable[..., Any])
_DRAWN = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def drawn_into(ctx: click.Context, param: click.Parameter, path: Path | None) -> Path | None:
    """Check the name of a file for a drawing; a callback of options, so before any work is done."""
    if path is not None and not path.name.lower().endswith(_DRAWN):
        raise click.BadParameter(f"{path}: expected a name that ends in {', '.join(_DRAWN)}", ctx, param)
    return path


def _by_name(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:  # noqa: ARG001
    if wrong := [text for text in given if "=" not in text]:
        raise click.UsageError(f"--option {shown(wrong[0])}: expected NAME=VALUE, such as top_k=3")
    return dict(text.split("=", 1) for text in given)


def task_options(command: CommandT) -> CommandT:
    """Let a command have options of a task, such as `-o top_k=3`. It gets `options`, texts by name."""
    about = "An option, as over HTTP."
    option = click.option(
        "--option", "-o", "options", multiple=True, callback=_by_name, metavar="NAME=VALUE", help=about
    )
    return option(command)


def models_option(kind: type[str | Path] = str) -> Callable[[CommandT], CommandT]:
    """Let a command have `--models`. It gets `models`, of this kind; None where it is not given."""
    about = "The folder of exported models. [default: $ZOOSERVE_MODELS, else ./models]"
    return click.option("--models", type=click.Path(file_okay=False, path_type=kind), help=about)


def print_json(value: object) -> None:
    """Print a value as indented JSON."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


class Commands(click.Group):
    """The commands of the entry-point group `zooserve.commands`."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return sorted(_entry_points())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        entry = _entry_points().get(cmd_name)
        return None if entry is None else _load(entry)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.list_commands(ctx)
        if args[0] not in known and not args[0].startswith("-"):
            raise click.NoSuchCommand(args[0], possibilities=known, ctx=ctx)
        name, command, rest = super().resolve_command(ctx, args)
        checks_settings = (
            "service.",
            "evaluation.",
            "scoring.",
        )  # their commands warn about misspelt settings themselves
        if name in known and not _entry_points()[name].module.startswith(checks_settings):
            for variable in misspelt_of_store(os.environ):
                click.echo(f"Warning: {variable}", err=True)
        return name, command, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, _summary(entry)) for name, entry in sorted(_entry_points().items())])

    def invoke(self, ctx: click.Context) -> object:
        _end_at_sigterm()
        try:
            return super().invoke(ctx)
        except ZooError as error:
            raise click.ClickException(shown(error, LINE)) from error
        except ModuleNotFoundError as error:
            if (advice := missing(error)) is None:
                raise
            raise click.ClickException(advice) from error
        except BrokenPipeError:
            raise  # the reader closed the pipe; click handles it
        except OSError as error:
            raise click.ClickException(shown(refused_by_system(error), LINE)) from error


def _end_at_sigterm() -> None:
    """Let SIGTERM end this process if it is the first of a container: the kernel drops signals that it does not handle.

    Else a container that is stopped while it exports, or before its server handles signals, is waited for and killed.
    """
    if os.getpid() == 1:
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def _entry_points() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group="zooserve.commands")}


def _load(entry: EntryPoint) -> click.Command:
    command: click.Command = entry.load()
    return command


def _summary(entry: EntryPoint) -> str:
    """Return the first line of a command's docstring without importing its module."""
    spec = importlib.util.find_spec(entry.module)
    if spec is None or spec.origin is None:
        return ""
    for node in ast.parse(Path(spec.origin).read_bytes()).body:
        if isinstance(node, ast.FunctionDef) and node.name == entry.attr:
            return (ast.get_docstring(node) or "").partition("\n")[0]
    return ""


@click.command(
    cls=Commands,
    epilog="""\b
Examples:
  zooserve list                               what there is
  zooserve export mobilenet_v2 yolov4_tiny    fetch, convert, check and publish
  zooserve serve                              answer over HTTP; /ui is a page to try it, /docs describes it
  zooserve predict yolov4_tiny photo.jpg      the same answer without a server

\b
Models are kept in ./models ($ZOOSERVE_MODELS), downloads in the user's cache folder ($ZOOSERVE_CACHE).
$ZOOSERVE_MIRROR is a mirror of your own, asked before all publishers: `zooserve fetch`.
""",
)
@click.version_option(version("zooserve"), prog_name="zooserve")
def main() -> None:
    """Pretrained vision models, from checkpoint to a low-latency endpoint."""
