"""The Kubernetes manifests: built with kustomize, checked against Kubernetes' schemas and the service itself."""

import re
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from service.metrics import Metrics
from service.settings import PREFIX, table

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
KUBERNETES = "1.32"
OPERATORS = {
    "ServiceMonitor",
    "ScaledObject",
    "ServingRuntime",
    "InferenceService",
}  # their schemas are not Kubernetes'
EXPECTED = {
    "base": {"ConfigMap", "Deployment", "NetworkPolicy", "PodDisruptionBudget", "Service", "ServiceAccount"},
    "cpu": {"HorizontalPodAutoscaler"},
    "gpu": {"ServiceMonitor", "ScaledObject"},
    "kserve": {"ServingRuntime", "InferenceService"},
}
pytestmark = pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl, which builds the overlays, is not here")


def build(overlay: str) -> list[dict]:
    built = subprocess.run(["kubectl", "kustomize", FOLDER / overlay], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return list(yaml.safe_load_all(built.stdout))


def one(manifests: list[dict], kind: str) -> dict:
    (found,) = (manifest for manifest in manifests if manifest["kind"] == kind)
    return found


@pytest.mark.parametrize("overlay", EXPECTED)
def test_an_overlay_is_valid_and_complete(overlay):
    manifests = build(overlay)
    kinds = {manifest["kind"] for manifest in manifests}
    expected = EXPECTED[overlay] | (EXPECTED["base"] if overlay in {"cpu", "gpu"} else set())
    assert kinds == expected
    for manifest in manifests:
        if manifest["kind"] not in OPERATORS:
            kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def containers() -> list[tuple[str, dict, dict]]:
    found = []
    for overlay in ("base", "cpu", "gpu"):
        pod = one(build(overlay), "Deployment")["spec"]["template"]["spec"]
        found.append((overlay, pod, pod["containers"][0]))
    pod = one(build("kserve"), "ServingRuntime")["spec"]
    found.append(("kserve", pod, pod["containers"][0]))
    return found


def test_pods_may_do_nothing_that_they_need_not():
    for overlay, pod, container in containers():
        security = pod.get("securityContext", {}) | container["securityContext"]
        assert security["runAsNonRoot"], overlay
        assert security["runAsUser"] == 10001, "the image's own user"
        assert security["readOnlyRootFilesystem"]
        assert not security["allowPrivilegeEscalation"]
        assert security["capabilities"] == {"drop": ["ALL"]}
        if overlay != "kserve":
            assert pod["automountServiceAccountToken"] is False
        writable = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert writable <= {"/tmp", "/dev/shm"}


def test_no_pod_is_told_of_services_by_variables():
    """They would look like settings: a Service called zooserve-grpc sets ZOOSERVE_GRPC_PORT."""
    for overlay in ("base", "cpu", "gpu"):
        assert one(build(overlay), "Deployment")["spec"]["template"]["spec"]["enableServiceLinks"] is False
    # A ServingRuntime has no such field; its pod takes it from the InferenceService.
    assert one(build("kserve"), "InferenceService")["spec"]["predictor"]["enableServiceLinks"] is False


def test_probes_and_ports_are_the_services(server):
    for _, _, container in containers():
        port = container["ports"][0]
        for probe, path in (("startupProbe", "/readyz"), ("readinessProbe", "/readyz"), ("livenessProbe", "/livez")):
            asked = container[probe]["httpGet"]
            assert asked["path"] == path
            assert asked["port"] in (port.get("name"), port["containerPort"])
            assert server.client.get(path).status_code == 200
    manifests = build("base")
    ports = {port["name"]: port["containerPort"] for port in containers()[0][2]["ports"]}
    assert one(manifests, "ConfigMap")["data"]["ZOOSERVE_GRPC_PORT"] == str(ports["grpc"])
    assert {port["targetPort"] for port in one(manifests, "Service")["spec"]["ports"]} == set(ports)
    (allowed,) = one(manifests, "NetworkPolicy")["spec"]["ingress"]
    assert {port["port"] for port in allowed["ports"]} == set(ports)
    for port in ports.values():
        assert f"EXPOSE {port}\n" in (FOLDER.parent / "Dockerfile").read_text()


def test_the_grace_period_covers_the_stop():
    """The wait before SIGTERM, the drain, and the longest request after it."""
    for overlay in ("cpu", "gpu"):
        manifests = build(overlay)
        pod = one(manifests, "Deployment")["spec"]["template"]["spec"]
        wait = int(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
        settings = {row.name: row.default for row in table({})} | one(manifests, "ConfigMap")["data"]
        longest = float(settings["ZOOSERVE_DRAIN_S"]) + float(settings["ZOOSERVE_TIMEOUT_MS"]) / 1000
        assert wait + longest < pod["terminationGracePeriodSeconds"]


def test_settings_exist():
    known = {name for name, *_ in table({})}
    for overlay in ("base", "cpu", "gpu"):
        given = one(build(overlay), "ConfigMap")["data"]
        table(given)  # raises where a value is out of range
        assert {name for name in given if name.startswith(PREFIX)} <= known
    runtime = one(build("kserve"), "ServingRuntime")["spec"]["containers"][0]
    assert {entry["name"] for entry in runtime["env"]} <= known | {"PORT"}


def test_autoscaling_asks_for_a_metric_that_there_is():
    query = one(build("gpu"), "ScaledObject")["spec"]["triggers"][0]["metadata"]["query"]
    (metric,) = re.findall(r"zooserve_\w+", query)
    assert f"# TYPE {metric.removesuffix('_bucket')} histogram" in Metrics().render().decode()


def test_gpu_pods_go_where_gpus_are():
    pod = one(build("gpu"), "Deployment")["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert pod["nodeSelector"]
    assert pod["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert one(build("gpu"), "ConfigMap")["data"]["ZOOSERVE_DEVICE"] == "cuda"
