"""What Locust's users ask of which server: its options, checked, and what the server says that it has.

Called by `locustfile` before a test, on each machine that sends.
"""

import re
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from loadtests.album import Photo, album
from loadtests.rubbish import Rubbish, rubbish
from loadtests.served import served
from loadtests.target import KEY_VARIABLE, Target, TargetError

WEIGHTS = {"classify": 5, "detect": 3, "segment": 2}  # how often a task is asked, beside the others
_SECONDS = r"(\d+(?:\.\d*)?|\.\d+)"
_THINK = re.compile(rf"{_SECONDS}(?:-{_SECONDS})?")


@dataclass(frozen=True)
class Plan:
    """What a user needs to know.

    Attributes:
        server: of all of them.
        asked: the target of each task that the server has, by task.
        photos: at least one.
        rubbish: requests that must be refused.
        share: of the requests that are rubbish, 0 to 1.
        think_s: the shortest and the longest time that a user thinks after an answer, in seconds.
        timeout_s: how long an answer may take, in seconds.
    """

    server: Target
    asked: Mapping[str, Target]
    photos: list[Photo]
    rubbish: list[Rubbish]
    share: float
    think_s: tuple[float, float]
    timeout_s: float

    @property
    def weights(self) -> dict[str, int]:
        """How often each task is asked beside the others, and rubbish, which is `share` of all."""
        share = Fraction(self.share).limit_denominator(1000)
        bad, good = share.numerator, share.denominator - share.numerator
        weights = {task: good * WEIGHTS[task] for task in self.asked}
        return weights | {"rubbish": bad * sum(WEIGHTS[task] for task in self.asked)}


def add_options(parser: Any) -> None:
    """Add our options to Locust's parser. The key, files and `--remote` are not shown on its page."""
    ours = parser.add_argument_group("zooserve")

    def add(*names: str, shown: bool = False, **more: Any) -> None:
        # Locust's parser takes `include_in_web_ui`, but the groups of it are argparse's.
        ours.add_argument(*names, **more).include_in_web_ui = shown

    add("--remote", action="store_true", help="Confirm that load may go to a host that is not this machine")
    add("--api-key", default="", env_var=KEY_VARIABLE, help="Where the server needs one")
    add("--ca-file", default="", help="Certificates (PEM) to trust, such as a private authority's")
    add("--model", default="", shown=True, help="Ask this model alone (default: each task's own)")
    add("--images", "--photos", default="", help="A folder of JPEG, PNG or WebP files (default: sample photos)")
    add("--think-time", default="0", shown=True, help="Seconds between an answer and the next request: 1, or 0.2-2")
    add("--rubbish", default=0.05, type=float, shown=True, help="Share of the requests that must be refused: 0 to 1")
    add("--timeout", default=30.0, type=float, help="Seconds that an answer may take")
    shapes = "steady: --users, who come at --spawn-rate; ramp: ten steps up to --users; spike: a tenth of --users, all "
    shapes += "of them, a tenth. Each ends after --run-time (ramp, spike: 2 minutes without it)"
    add("--shape", default="steady", choices=["steady", "ramp", "spike"], help=shapes)


def plan(host: str | None, options: Namespace) -> Plan:
    """Check the options, load the images, and ask the server what it has.

    Raises:
        TargetError: `--host` is missing or wrong, or the server cannot be asked as it was said.
        ValueError: an option has a wrong value, or the folder holds no image.
        SourceError: a sample photo cannot be had.
    """
    if not host:
        raise TargetError("--host is missing: name the server to load, such as --host http://127.0.0.1:3000")
    if not 0 <= options.rubbish <= 1:
        raise ValueError(f"--rubbish {options.rubbish}: expected a share from 0 to 1")
    if not options.timeout > 0:
        raise ValueError(f"--timeout {options.timeout}: expected seconds above 0")
    think = think_time(options.think_time)
    ca_file = Path(options.ca_file) if options.ca_file else None
    target = Target.parse(
        host.strip(), remote=options.remote, api_key=options.api_key, ca_file=ca_file, model=options.model
    )
    if target.grpc:
        raise TargetError(f"{target.url}: Locust speaks http and https; over gRPC, LoadGen and perf_analyzer ask")
    asked = served(target).choose_each(target)
    photos = album(Path(options.images) if options.images else None)
    refused = rubbish(photos, asked)
    return Plan(target, {one.task: one for one in asked}, photos, refused, options.rubbish, think, options.timeout)


def think_time(text: str) -> tuple[float, float]:
    """Read `1` or `0.2-2`: the shortest and the longest time in seconds.

    Raises:
        ValueError: it is neither.
    """
    match = _THINK.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"--think-time {text}: expected seconds, such as 1, or two with a dash, such as 0.2-2")
    shortest, longest = float(match[1]), float(match[2] or match[1])
    if shortest > longest:
        raise ValueError(f"--think-time {text}: the longest time goes last")
    return shortest, longest
