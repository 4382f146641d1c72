"""The autoscaler's settings, tried on a simulated service: it follows the load, and does not swing."""

import shutil
from itertools import pairwise

import pytest

from tests.deploy.autoscaler import PERIOD, Autoscaler, Service
from tests.deploy.overlays import build, one

pytestmark = pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl, which builds the overlays, is not here")
HOUR = 3600


@pytest.fixture(scope="module")
def scaled() -> dict:
    return one(build("gpu"), "ScaledObject")["spec"]


def simulate(scaled: dict, load, seconds: int = HOUR, target: float | None = None) -> list[int]:
    """Replicas over time. Each answers 400 requests a second, 32 at once, and lets 256 wait."""
    (trigger,) = scaled["triggers"]
    autoscaler = Autoscaler(
        scaled["minReplicaCount"],
        scaled["maxReplicaCount"],
        target or float(trigger["metadata"]["threshold"]),
        scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"],
    )
    service, replicas, seen = Service(400.0, 32, 256), scaled["minReplicaCount"], []
    for moment in range(0, seconds, PERIOD):
        replicas = autoscaler.decide(service.in_flight(load(moment), replicas), replicas)
        seen.append(replicas)
    return seen


def turns(replicas: list[int]) -> int:
    """How often the number of replicas changed its direction."""
    steps = [after - before for before, after in pairwise(replicas) if after != before]
    return sum((one > 0) != (other > 0) for one, other in pairwise(steps))


@pytest.mark.parametrize(
    ("load", "last", "most", "most_turns"),
    [
        pytest.param(lambda _: 0, 2, 2, 0, id="no series, or nobody asks"),
        pytest.param(lambda _: 500, 2, 2, 0, id="what two can do"),
        pytest.param(lambda t: 1200 if t > 300 else 100, 4, 8, 1, id="load goes up and stays"),
        pytest.param(lambda _: 10_000, 8, 8, 0, id="more than all can do"),
        pytest.param(lambda t: 2000 if 300 < t < 1200 else 50, 2, 8, 1, id="load, then quiet"),
        pytest.param(lambda t: 1500 if (t // 60) % 2 else 300, 6, 8, 1, id="every other minute"),
    ],
)
def test_replicas_follow_the_load(scaled, load, last, most, most_turns):
    replicas = simulate(scaled, load)
    assert last <= replicas[-1] <= last + 1, replicas
    assert max(replicas) <= most, replicas
    assert turns(replicas) <= most_turns, replicas


def test_it_is_quick_up_and_slow_down(scaled):
    replicas = simulate(scaled, lambda t: 3000 if t < 1200 else 0)
    assert replicas[180 // PERIOD] >= 6, "within three minutes"
    assert replicas[(1200 + 240) // PERIOD] == replicas[1200 // PERIOD], "not within the window of stabilisation"
    assert replicas[-1] == 2


def test_asking_for_all_that_a_replica_does_at_once_swings(scaled):
    """Why the threshold is below that: a replica that is always busy has a queue, which asks for too many."""
    assert turns(simulate(scaled, lambda _: 1700, 3 * HOUR)) <= 1
    assert turns(simulate(scaled, lambda _: 1700, 3 * HOUR, target=64.0)) > 3


def test_a_latency_as_a_value_swings(scaled):
    """Why it is work in flight: a wait above its bound asks for the most, and falls to nothing once they are there."""
    autoscaler = Autoscaler(1, 8, 0.05, scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"])
    service, replicas, seen = Service(400.0, 32, 256), 1, []
    for _ in range(0, 4 * HOUR, PERIOD):
        service.in_flight(1000, replicas)
        wait = service.waiting / (400.0 * replicas)
        replicas = autoscaler.decide(wait * replicas, replicas)  # `Value`: as if it were per replica
        seen.append(replicas)
    assert turns(seen) > 4


def test_the_hpa_on_cores_has_the_same_policies(scaled):
    hpa = one(build("cpu"), "HorizontalPodAutoscaler")["spec"]
    assert hpa["behavior"] == scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert hpa["minReplicas"] == scaled["minReplicaCount"] == 2


@pytest.mark.parametrize("overlay", ["cpu", "gpu", "production", "kserve"])
def test_use_of_cores_cannot_exceed_what_was_asked_for(overlay):
    """Else one pod on a large node would show many times its request, and the autoscaler go to the most."""
    manifests = build(overlay)
    pod = one(manifests, "ServingRuntime" if overlay == "kserve" else "Deployment")["spec"]
    pod = pod if overlay == "kserve" else pod["template"]["spec"]
    resources = pod["containers"][0]["resources"]
    assert resources["limits"]["cpu"] == resources["requests"]["cpu"]


@pytest.mark.parametrize("overlay", ["base", "cpu", "gpu", "production"])
def test_the_number_of_replicas_is_the_autoscalers(overlay):
    assert "replicas" not in one(build(overlay), "Deployment")["spec"]
