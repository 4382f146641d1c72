"""How many users there are over time, as Locust asks for it. `locustfile` takes the shape that `--shape` names."""

from collections.abc import Callable
from time import perf_counter

from locust import LoadTestShape

from loadtests.users.shapes import SHAPES

_USERS, _SECONDS = 20, 120.0  # where --users and --run-time are not given


class Staged(LoadTestShape):
    """Ends after `--run-time` (2 minutes); `users_at` says how many there are in between."""

    use_common_options = True

    def __init__(self, users_at: Callable[[float, int], int]) -> None:
        """Prepare.

        Args:
            users_at: of the share of the time that is over (0 to 1) and the most users that there are.
        """
        self.start_time = perf_counter()
        self._users_at = users_at

    def tick(self) -> tuple[int, float] | None:
        """Return how many users there should be now, and how many a second may come or go; None at the end."""
        options = self.runner.environment.parsed_options if self.runner else None
        most = getattr(options, "num_users", None) or _USERS
        share = (perf_counter() - self.start_time) / (getattr(options, "run_time", None) or _SECONDS)
        return None if share >= 1 else (self._users_at(share, most), float(most))


def shape(name: str) -> Staged | None:
    """Return the shape of a name; None of `steady`, which is Locust's own way."""
    return Staged(SHAPES[name]) if name in SHAPES else None
