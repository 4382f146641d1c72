"""Percentiles of latencies, for everything that reports some. Needs nothing but numpy."""

from collections.abc import Sequence

import numpy as np


def percentile(values: Sequence[float], q: float) -> float | None:
    """Return the smallest value that `q` percent of the values do not exceed (nearest rank); None of no values.

    Raises:
        ValueError: `q` is not in 0..100.
    """
    if not 0 <= q <= 100:
        raise ValueError(f"percentile {q}: expected 0 to 100")
    return float(np.percentile(values, q, method="inverted_cdf")) if len(values) else None
