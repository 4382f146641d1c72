"""`python -m loadtests.phases`: what a dashboard should tell apart, one after the other, against a running service.

Light load, large photos (decode grows), more than can be done (the queue grows, then refusals), and light load again.
"""

import sys
from collections.abc import Sequence

import click
from msgspec import Struct

from loadtests.album import Photo, jpeg
from loadtests.client import Limits, Load, Request, Server, open_loop, run
from loadtests.target import Target

_LARGE = (4000, 3000)
_PATIENCE = 2.0  # seconds that a request allows where there is more to do than can be done


class Phase(Struct, frozen=True):
    """Some minutes of load: what is sent, how often a second, and the deadline it is given, in seconds."""

    name: str
    requests: Sequence[Request]
    rate: float
    deadline: float = 30.0


def phases(rate: float, flood: float) -> list[Phase]:
    """List the phases; `rate` is that of light load and `flood` that of too much, per second."""
    photos = [jpeg(name) for name in ("astronaut", "chelsea", "coffee")]
    large = [jpeg(name, _LARGE) for name in ("chelsea", "coffee")]
    light = Phase("light load", _mix(photos), rate)
    return [
        light,
        Phase("large photos", _mix(large), rate / 2),
        Phase("too much load", _mix(photos, _PATIENCE), flood, _PATIENCE),
        light,
    ]


def _mix(photos: Sequence[Photo], deadline: float | None = None) -> list[Request]:
    """Of ten requests six classify, three detect, one segments; some are no picture at all."""
    headers = {"X-Request-Timeout-Ms": str(int(1000 * deadline))} if deadline else {}
    paths = ["classify", "detect", "classify", "classify", "segment", "classify", "detect", "classify", "detect"]
    requests = [
        Request("POST", f"/v1/{path}", {"Content-Type": photo.content_type, **headers}, photo.data)
        for photo in photos
        for path in paths
    ]
    return [*requests, Request("POST", "/v1/classify", headers, b"no picture")]


def _send(address: Server, phase: Phase, seconds: float) -> Load:
    limits = Limits(seconds, timeout=phase.deadline + 5)
    return run(open_loop(address, phase.requests, rate=phase.rate, limits=limits))


@click.command()
@click.option("--url", default="http://127.0.0.1:3000", show_default=True, help="Of the service, on this machine.")
@click.option("--minutes", default=3.0, show_default=True, type=click.FloatRange(0.05), help="Of each phase.")
@click.option("--rate", default=10.0, show_default=True, type=click.FloatRange(0.1), help="Light load, per second.")
@click.option("--flood", default=200.0, show_default=True, type=click.FloatRange(0.1), help="Too much, per second.")
def main(url: str, minutes: float, rate: float, flood: float) -> None:
    """Load a running service in phases, for whoever watches its dashboard."""
    try:
        address = Target.parse(url)
        for phase in phases(rate, flood):
            load = _send(address, phase, 60 * minutes)
            answers: dict[str, int] = {}
            for sample in load.samples:
                key = sample.failure or str(sample.status)
                answers[key] = answers.get(key, 0) + 1
            click.echo(f"{phase.name}: {', '.join(f'{count} x {key}' for key, count in sorted(answers.items()))}")
    except (OSError, ValueError) as error:
        sys.exit(f"loadtests.phases: {error}")


if __name__ == "__main__":
    main()
