"""`python -m loadtests.phases`: what a dashboard should tell apart, one after the other, against a running server.

Light load, large images (decoding takes longer), more than can be done (the queue grows, then refusals), light again.
"""

import sys
from collections import Counter
from collections.abc import Sequence

import click
from msgspec import Struct

from loadtests.album import Photo, jpeg
from loadtests.client import Limits, Load, Request, Server, open_loop, run
from loadtests.served import served
from loadtests.target import Target, target_options
from zoo.errors import ZooError

_LARGE = (4000, 3000)
_PATIENCE = 2.0  # seconds that a request allows where there is more to do than can be done
_OFTEN = {"classify": 6, "detect": 3, "segment": 1}  # how often a task is asked beside the others


class Phase(Struct, frozen=True):
    """Some minutes of load: what is sent, how often a second, and the deadline it is given, in seconds."""

    name: str
    requests: Sequence[Request]
    rate: float
    deadline: float = 30.0


def phases(asked: Sequence[Target], rate: float, flood: float) -> list[Phase]:
    """List the phases.

    Args:
        asked: targets with a task and a model that the server has; at least one.
        rate: of light load, per second.
        flood: of too much, per second.
    """
    photos = [jpeg(name) for name in ("astronaut", "chelsea", "coffee")]
    large = [jpeg(name, _LARGE) for name in ("chelsea", "coffee")]
    light = Phase("light load", _mix(asked, photos), rate)
    return [
        light,
        Phase("large images", _mix(asked, large), rate / 2),
        Phase("too much load", _mix(asked, photos, _PATIENCE), flood, _PATIENCE),
        light,
    ]


def _mix(asked: Sequence[Target], photos: Sequence[Photo], deadline: float | None = None) -> list[Request]:
    """Ask every task as often as it weighs, in turn as far as that goes; one request is no image at all."""
    headers = {"X-Request-Timeout-Ms": str(int(1000 * deadline))} if deadline else {}
    rounds = [[one for one in asked if _OFTEN[one.task] > n] for n in range(max(_OFTEN.values()))]
    requests = [
        Request("POST", one.question, {"Content-Type": photo.content_type, **headers}, photo.data)
        for photo in photos
        for each in rounds
        for one in each
    ]
    return [*requests, Request("POST", asked[0].question, headers, b"no image")]


def _send(server: Server, phase: Phase, seconds: float) -> Load:
    limits = Limits(seconds, timeout=phase.deadline + 5)
    return run(open_loop(server, phase.requests, rate=phase.rate, limits=limits))


@click.command()
@target_options()
@click.option("--minutes", default=3.0, show_default=True, type=click.FloatRange(0.05), help="Of each phase.")
@click.option("--rate", default=10.0, show_default=True, type=click.FloatRange(0.1), help="Light load, per second.")
@click.option("--flood", default=200.0, show_default=True, type=click.FloatRange(0.1), help="Too much, per second.")
def main(target: Target, minutes: float, rate: float, flood: float) -> None:
    """Load a running server in phases, for whoever watches its dashboard: all tasks that it has."""
    if target.grpc:
        raise click.UsageError("phases are sent over http and https")
    try:
        for phase in phases(served(target).choose_each(target), rate, flood):
            load = _send(target, phase, 60 * minutes)
            answers = Counter(sample.failure or str(sample.status) for sample in load.samples)
            click.echo(f"{phase.name}: {', '.join(f'{count} x {key}' for key, count in sorted(answers.items()))}")
    except (OSError, ValueError, ZooError) as error:
        sys.exit(f"loadtests.phases: {error}")


if __name__ == "__main__":
    main()
