"""Renders roads as a camera behind a windscreen sees them, with the angle at which a car should steer.

They are made here, by arithmetic: flat ground, one bend, two edge lines and a dashed centre line, colours, haze and
noise at random. No photo is among them, and what is learnt from them holds for them.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

HEIGHT, WIDTH = 64, 160
"""Of an image, in pixels."""
LOOKAHEAD = 12.0
"""Metres along the road to the point that is steered at."""
_WHEELBASE = 2.7  # metres
_CAMERA = 1.3  # metres above the road
_FOCAL = 110.0  # pixels
_FARTHEST = 120.0  # metres; beyond, the ground is haze


class Road(NamedTuple):
    """The road's centre, seen from the car, is at `offset` + `heading` z + `curvature` z^2 / 2 metres, z metres ahead.

    Attributes:
        offset: of the centre from the car, in metres; positive: to the right, as all.
        heading: of the road, in radians.
        curvature: of the road, in 1 / metres.
    """

    offset: float
    heading: float
    curvature: float

    def centre(self, ahead: npt.NDArray[np.float64] | float) -> npt.NDArray[np.float64]:
        """Return how many metres to the right the centre is, at distances in metres."""
        z = np.asarray(ahead)
        return np.asarray(self.offset + self.heading * z + self.curvature * z * z / 2)

    @property
    def angle(self) -> float:
        """The angle of the front wheels that leads to the centre, in degrees, positive to the right.

        Source: pure pursuit, Coulter, Implementation of the pure pursuit path tracking algorithm, 1992.
        """
        aim = float(self.centre(LOOKAHEAD))
        return math.degrees(math.atan(2 * _WHEELBASE * aim / (LOOKAHEAD**2 + aim**2)))


def random_road(random: np.random.Generator) -> Road:
    """Return a road at random: 1.2 m beside its centre and 6 degrees off it at most, bends from 50 m of radius on."""
    return Road(random.uniform(-1.2, 1.2), math.radians(random.uniform(-6, 6)), random.uniform(-0.02, 0.02))


def render(road: Road, random: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Return a view of a road, uint8 [64, 160, 3] RGB; its looks are random."""
    horizon = random.uniform(0.25, 0.4) * HEIGHT
    rows = np.arange(HEIGHT)[:, None] + 0.5 - horizon
    ahead = np.minimum(_FOCAL * _CAMERA / np.maximum(rows, 1e-3), _FARTHEST)
    across = (np.arange(WIDTH)[None] + 0.5 - WIDTH / 2) * ahead / _FOCAL - road.centre(ahead)
    half, line = random.uniform(2.8, 4.2), random.uniform(0.08, 0.2)
    blur = ahead / _FOCAL  # metres that a pixel covers
    ground = _colour(random, (60, 60, 30), (150, 150, 110)) + random.normal(0, 6, (HEIGHT, WIDTH, 1))
    asphalt = _colour(random, (60, 60, 60), (130, 130, 130)) + random.normal(0, 4, (HEIGHT, WIDTH, 1))
    paint = _colour(random, (190, 190, 150), (250, 250, 250))
    image = _mix(ground, asphalt, _within(np.abs(across), half, blur))
    dashes = ((ahead + random.uniform(0, 6)) % 6 < 3)[..., None]
    for at, shown in ((half - 0.3, 1), (-half + 0.3, 1), (0.0, dashes)):
        image = _mix(image, paint, _within(np.abs(across - at), line, blur) * shown)
    sky = _colour(random, (140, 160, 180), (230, 240, 255))
    image = _mix(image, sky, np.clip(ahead / _FARTHEST, 0, 1)[..., None] ** 2)  # haze
    image = np.where(rows[..., None] > 0, image, sky + random.normal(0, 2, (HEIGHT, WIDTH, 1)))
    shadow = 1 - random.uniform(0, 0.5) * (np.abs(np.arange(WIDTH) - random.uniform(0, WIDTH)) < 25)[None, :, None]
    image = image * shadow * random.uniform(0.7, 1.2) + random.normal(0, 4, image.shape)
    rendered: npt.NDArray[np.uint8] = image.clip(0, 255).round().astype(np.uint8)
    return rendered


def roads(count: int, seed: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Render roads: images uint8 [N, 64, 160, 3] RGB, and angles float32 [N] in degrees."""
    random = np.random.default_rng(seed)
    made = [random_road(random) for _ in range(count)]
    images = np.stack([render(road, random) for road in made])
    return images, np.array([road.angle for road in made], np.float32)


def _within(distance: npt.NDArray[np.float64], limit: float, blur: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return 1 within a limit and 0 beyond, with an edge as wide as a pixel: [H, W, 1]."""
    return np.clip((limit - distance) / blur + 0.5, 0, 1)[..., None]


def _colour(random: np.random.Generator, low: tuple[int, ...], high: tuple[int, ...]) -> npt.NDArray[np.float64]:
    return random.uniform(low, high)


def _mix(
    below: npt.NDArray[np.float64], above: npt.NDArray[np.float64], share: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    return below + (above - below) * share
