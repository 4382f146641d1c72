"""Kubernetes' horizontal autoscaler, as far as our manifests use it, and replicas of the service under a load.

The algorithm is that of https://kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/: one metric
of the type `AverageValue`, a tolerance, policies by pods and percent, a window of stabilisation for each direction.
"""

from dataclasses import dataclass, field
from math import ceil

PERIOD = 15  # seconds between two decisions
_TOLERANCE = 0.1


@dataclass
class Autoscaler:
    """Decides every 15 s.

    Attributes:
        least, most: replicas.
        target: of the metric, per replica.
        behavior: `spec.behavior` of the HorizontalPodAutoscaler.
    """

    least: int
    most: int
    target: float
    behavior: dict
    now: int = 0
    _wanted: list[tuple[int, int]] = field(default_factory=list)  # moments, and replicas that the metric asked for
    _counts: list[tuple[int, int]] = field(default_factory=list)  # moments, and replicas that there were

    def decide(self, total: float, replicas: int) -> int:
        """Return how many replicas there are to be, given the metric's sum over all of them."""
        self.now += PERIOD
        self._counts.append((self.now, replicas))
        ratio = total / (self.target * replicas)
        wanted = replicas if abs(ratio - 1) <= _TOLERANCE else ceil(total / self.target)
        wanted = min(max(wanted, self.least), self.most)
        self._wanted.append((self.now, wanted))
        up, down = (self.behavior[name] for name in ("scaleUp", "scaleDown"))
        lowest = min(self._within(up["stabilizationWindowSeconds"]))
        highest = max(self._within(down["stabilizationWindowSeconds"]))
        stable = min(max(replicas, lowest), highest)  # up as far as all agree, down as far as all agree
        if stable > replicas:
            return min(stable, self._limit(up, replicas, sign=1))
        return max(stable, self._limit(down, replicas, sign=-1)) if stable < replicas else replicas

    def _within(self, seconds: int) -> list[int]:
        return [wanted for moment, wanted in self._wanted if moment >= self.now - seconds]

    def _limit(self, rules: dict, replicas: int, sign: int) -> int:
        """How far the policies let it go: the one that allows most counts."""
        limits = []
        for policy in rules["policies"]:
            since = [count for moment, count in self._counts if moment > self.now - policy["periodSeconds"]]
            start = min(since) if sign > 0 else max(since)
            step = policy["value"] if policy["type"] == "Pods" else ceil(start * policy["value"] / 100)
            limits.append(start + sign * step)
        return max(limits) if sign > 0 else min(limits)


@dataclass
class Service:
    """Replicas with a queue in front of each, by Little's law.

    Attributes:
        rate: requests that a replica answers per second at most.
        at_once: requests that a replica works on at once; more wait.
        most_waiting: requests of a replica that may wait; more are refused.
    """

    rate: float
    at_once: int
    most_waiting: int
    waiting: float = 0.0

    def in_flight(self, load: float, replicas: int, seconds: float = PERIOD) -> float:
        """Requests in flight after so many seconds of `load` requests per second."""
        capacity = self.rate * replicas
        self.waiting = min(max(self.waiting + (load - capacity) * seconds, 0.0), float(self.most_waiting * replicas))
        return min(load, capacity) * self.at_once / self.rate + self.waiting
