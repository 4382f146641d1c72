"""The jobs that score a folder on a Ray cluster: pods that are valid, ends that are certain, a command that exists."""

import re
import shlex
import tomllib

import kubernetes_validate
import pytest
from packaging.version import Version

from scoring.command import score
from tests.conftest import ROOT
from tests.deploy.overlays import build, needs_kubectl, one
from tests.deploy.test_kubernetes import JOBS, KUBERNETES

pytestmark = needs_kubectl


def spec(overlay):
    return one(build(overlay), "RayJob")["spec"]


def pods(overlay):
    cluster = spec(overlay)["rayClusterSpec"]
    return [group["template"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


@pytest.mark.parametrize("overlay", JOBS)
def test_the_pods_are_valid_and_may_do_nothing_that_they_need_not(overlay):
    for template in pods(overlay):
        manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "zooserve"}, "spec": template["spec"]}
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
        pod, (container,) = template["spec"], template["spec"]["containers"]
        security = pod["securityContext"] | container["securityContext"]
        assert (security["runAsNonRoot"], security["runAsUser"]) == (True, 10001)
        assert (security["readOnlyRootFilesystem"], security["allowPrivilegeEscalation"]) == (True, False)
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"]) == (False, False)
        writable = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
        assert writable == {"/tmp", "/dev/shm", "/results"}
        assert container["resources"]["limits"] == container["resources"]["requests"]
        policy = one(build(overlay), "NetworkPolicy")["spec"]
        assert template["metadata"]["labels"] == policy["podSelector"]["matchLabels"]


@pytest.mark.parametrize("overlay", JOBS)
def test_the_job_ends_and_takes_its_cluster_along(overlay):
    job = spec(overlay)
    assert job["shutdownAfterJobFinishes"] is True
    assert 0 < job["preRunningDeadlineSeconds"] < job["activeDeadlineSeconds"]
    assert 0 < job["ttlSecondsAfterFinished"] <= 300  # seconds for which KubeRay keeps the pods, GPUs among them
    assert job["rayClusterSpec"]["authOptions"] == {"mode": "token"}


@pytest.mark.parametrize(("overlay", "option"), [("scoring", "workers"), ("scoring-gpu", "gpus")])
def test_the_command_is_one_and_asks_for_what_the_cluster_has(overlay, option):
    program, command, *arguments = shlex.split(spec(overlay)["entrypoint"])
    assert (program, command) == ("zooserve", "score")
    given = score.make_context("score", arguments).params
    (group,) = spec(overlay)["rayClusterSpec"]["workerGroupSpecs"]
    assert given["address"] == "auto"
    assert given[option] == group["replicas"] == group["minReplicas"] == group["maxReplicas"]
    mounts = {mount["mountPath"] for mount in group["template"]["spec"]["containers"][0]["volumeMounts"]}
    assert {given["source"], given["out"]} <= mounts
    assert spec(overlay)["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_gpus():
    (container,) = pods("scoring-gpu")[1]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert {"name": "ZOOSERVE_DEVICE", "value": "cuda"} in container["env"]
    assert [pod["spec"]["containers"][0]["image"] for pod in pods("scoring-gpu")] == ["zooserve:gpu-ray"] * 2
    assert [pod["spec"]["containers"][0]["image"] for pod in pods("scoring")] == ["zooserve:cpu-ray"] * 2


def test_the_version_of_ray_is_that_of_the_image():
    (locked,) = re.findall(r"^ray(?:\[\S*\])?==(\S+)", (ROOT / "requirements/ray.txt").read_text(), re.MULTILINE)
    assert spec("scoring")["rayClusterSpec"]["rayVersion"] == locked
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    low, high = re.findall(r"[\d.]+", extras["ray"][1])
    assert Version(low) <= Version(locked) < Version(high)
    for stage in ("cpu", "gpu"):
        assert f"ARG LOCKS\nRUN $INSTALL serve-{stage} $LOCKS" in (ROOT / "deploy/Dockerfile").read_text()
