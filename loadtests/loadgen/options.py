"""The options of `python -m loadtests.loadgen` that several commands have, and what becomes of them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from loadtests.album import album
from loadtests.disturbance import Limits
from loadtests.judge import fail_if_option
from loadtests.loadgen import conf
from loadtests.loadgen.bench import Setup
from loadtests.loadgen.spec import Scenario, Spec, configured
from loadtests.loadgen.wire import Image
from loadtests.options import json_option, markdown_option
from loadtests.target import target_options

Option = Callable[[Any], Any]  # what `click.option` makes
FOLDER = click.Path(file_okay=False, path_type=Path)
_CONF = click.Path(exists=True, dir_okay=False)
_LIMITS = Limits()


class _Pair(click.ParamType[tuple[str, str]]):
    name = "NAME=VALUE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        name, equals, text = str(value).partition("=")
        if not (name and equals):
            self.fail(f"{value}: expected NAME=VALUE, such as top_k=1", param, ctx)
        return name, text


_ASKED = (
    target_options(),
    click.option("--option", "options", multiple=True, type=_Pair(), help="Of every request, such as top_k=1."),
    click.option("--timeout", default=10.0, show_default=True, type=click.FloatRange(0.1), help="Of an answer, in s."),
)
_SENT = (
    click.option("--images", "--photos", "images", type=FOLDER, help="A folder.  [default: the zoo's sample photos]"),
    click.option("--connections", default=256, show_default=True, type=click.IntRange(1), help="Open at a time."),
    click.option("--senders", default=1, show_default=True, type=click.IntRange(1, 64), help="Processes that send."),
    click.option(
        "--quiet",
        default=0.0,
        show_default=True,
        type=click.FloatRange(0),
        help="Wait so many seconds before a test for the machine to be quiet.",
    ),
    click.option(
        "--most-others",
        default=_LIMITS.others,
        show_default=True,
        type=click.FloatRange(0),
        help="Cores that other processes may keep busy during a test on a quiet machine.",
    ),
    json_option(),
    markdown_option(),
    click.option("--logs", type=FOLDER, help="Keep what LoadGen writes here."),
    fail_if_option(),
)
USER_CONF = click.option(
    "--user-conf",
    "confs",
    multiple=True,
    type=_CONF,
    help="LoadGen's user.conf, or a file with keys as in mlperf.conf; options go before it. May be repeated.",
)
SECONDS = click.option(
    "--seconds", default=10.0, show_default=True, type=click.FloatRange(0.1), help="Of a test, at least."
)
BOUND = click.option("--bound-ms", default=100.0, show_default=True, type=click.FloatRange(0.1), help="Of the p99.")
QPS = click.option("--qps", type=click.FloatRange(0.1), help="Queries per second.  [default: from a short probe]")


def queries(default: int) -> Option:
    """Return the option for how many queries a test has at least."""
    return click.option(
        "--min-queries", default=default, show_default=True, type=click.IntRange(1), help="Of a test, at least."
    )


def asked(*more: Option) -> Option:
    """Give a command its own options and then those of the server."""
    return _together(*more, *_ASKED)


def measuring(*more: Option) -> Option:
    """Give a command its own options and then those of everything that measures."""
    return _together(*more, USER_CONF, *_ASKED, *_SENT)


def _together(*options: Option) -> Option:
    def add(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def setup_of(options: Mapping[str, Any]) -> Setup:
    """Make a `Setup` of what `measuring` gave.

    Raises:
        ValueError: the folder holds no image.
        SourceError: the samples are not in the zoo's cache and cannot be fetched.
    """
    return Setup(
        images=[Image(image.content_type, image.data) for image in album(options["images"])],
        options=dict(options["options"]),
        connections=options["connections"],
        senders=options["senders"],
        timeout=options["timeout"],
        logs=options["logs"],
        quiet=options["quiet"],
        limits=Limits(others=options["most_others"]),
    )


def spec_of(scenario: Scenario, qps: float | None, confs: tuple[str, ...], model: str, **values: Any) -> Spec:
    """Make a `Spec` of a command's options and configuration files: what was given as an option goes first.

    Its rate is 0 where nothing says it. Called within a command.

    Raises:
        ConfError: a configuration file cannot be read.
        MissingError: LoadGen is not installed.
    """
    for path in confs:
        conf.check(Path(path))
    context = click.get_current_context()
    names = {"qps": "target_qps"} | {name: name for name in values}
    given = {
        attribute
        for option, attribute in names.items()
        if context.get_parameter_source(option) in (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)
    }
    spec = Spec(scenario, qps or 0.0, **values, conf=confs, conf_model=model or "*")
    return configured(spec, frozenset(given)) if confs else spec
