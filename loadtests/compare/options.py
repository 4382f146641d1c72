"""The options of `python -m loadtests.compare`: how their words are read, and which of them a mode has."""

from pathlib import Path

import click
from click.core import ParameterSource

from loadtests.compare.servers import SERVERS
from loadtests.compare.trial import rate_of

PEERS = tuple(name for name in SERVERS if name != "zooserve")
_PINNED_ONLY = ("open_loop", "scenarios", "deadline_ms", "server_core", "client_core")


def _list(value: str) -> tuple[str, ...]:
    words = tuple(word.strip() for word in value.split(",") if word.strip())
    return () if words == ("none",) else words


def peers_of(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, ...]:
    """Read the names of peers."""
    names = PEERS if value == "all" else _list(value)
    if unknown := set(names) - set(PEERS):
        raise click.BadParameter(f"{', '.join(sorted(unknown))}: the peers are {', '.join(PEERS)}")
    return names


def rates(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, ...]:
    """Read rates of open loops (see `rate_of`)."""
    try:
        for word in _list(value):
            rate_of(word, 1.0)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    return _list(value)


def check_mode(context: click.Context, whole: bool, pixels: str, models: tuple[Path, ...]) -> None:
    """Refuse options that the chosen mode does not have.

    Raises:
        click.UsageError: saying which, and what to do instead.
    """
    if not whole:
        if len(models) > 1:
            raise click.UsageError("--model may be repeated with --machine only: run one comparison for each model")
        return
    for name in _PINNED_ONLY:
        option = f"--{name.replace('_', '-')}"
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--machine pins nothing and has closed loops only: leave out {option}")
    if pixels == "both":
        raise click.UsageError("--machine measures one kind of pixels: run it with --pixels fast, then --pixels pillow")
