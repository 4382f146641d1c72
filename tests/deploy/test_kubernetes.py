"""The Kubernetes manifests: built with kustomize, checked against Kubernetes' schemas and the service itself."""

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import jsonschema
import kubernetes_validate
import pytest
import yaml

from service.telemetry.metrics import Metrics
from service.settings import PREFIX, table
from tests.deploy import crds

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
KUBERNETES = "1.32"
EXPECTED = {
    "base": {"ConfigMap", "Deployment", "NetworkPolicy", "PodDisruptionBudget", "Service", "ServiceAccount"},
    "cpu": {"HorizontalPodAutoscaler"},
    "gpu": {"ServiceMonitor", "ScaledObject"},
    "kserve": {"ServingRuntime", "InferenceService", "NetworkPolicy"},
    "production": {"HorizontalPodAutoscaler", "Ingress", "PersistentVolumeClaim", "PrometheusRule", "ServiceMonitor"},
    "production with a gateway, on GPUs": {
        *("Gateway", "HTTPRoute", "GRPCRoute", "PersistentVolumeClaim", "PrometheusRule", "ServiceMonitor"),
        "ScaledObject",
    },
}
DEPLOYMENTS = [name for name in EXPECTED if name != "kserve"]
pytestmark = pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl, which builds the overlays, is not here")


@cache
def build(overlay: str) -> list[dict]:
    with TemporaryDirectory() as copy:
        folder = FOLDER / overlay
        if overlay.startswith("production with"):  # the comments of its kustomization, followed
            shutil.copytree(FOLDER, copy, dirs_exist_ok=True)
            folder = Path(copy) / "production"
            file = folder / "kustomization.yaml"
            text = (
                file.read_text().replace("- ../cpu ", "- ../gpu ").replace("components/ingress", "components/gateway")
            )
            text = text.replace("  - ../components/monitoring\n", "").replace(
                "# - ../components/cache", "- ../components/cache"
            )
            file.write_text(text.replace("  with ../gpu", ""))
        built = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return list(yaml.safe_load_all(built.stdout))


def one(manifests: list[dict], kind: str) -> dict:
    (found,) = (manifest for manifest in manifests if manifest["kind"] == kind)
    return found


@pytest.mark.parametrize("overlay", EXPECTED)
def test_an_overlay_is_valid_and_complete(overlay):
    manifests = build(overlay)
    kinds = {manifest["kind"] for manifest in manifests}
    assert kinds == EXPECTED[overlay] | (set() if overlay == "kserve" else EXPECTED["base"])
    for manifest in manifests:
        if not crds.validate(manifest):
            kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    if overlay == "kserve":  # the parts of its resources that are parts of a pod
        runtime, service = (one(manifests, kind)["spec"] for kind in ("ServingRuntime", "InferenceService"))
        names = {"terminationGracePeriodSeconds", "automountServiceAccountToken", "enableServiceLinks"}
        pod = {"containers": runtime["containers"], "volumes": runtime["volumes"]}
        pod |= {name: service["predictor"][name] for name in names}
        manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "zooserve"}, "spec": pod}
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


@pytest.mark.parametrize(
    ("kind", "change", "complaint"),
    [
        ("ScaledObject", {"spec": {"minReplicas": 2}}, "minReplicas"),
        ("ServiceMonitor", {"spec": {"endpoints": [{"port": "http", "intervall": "1s"}]}}, "intervall"),
        ("HTTPRoute", {"spec": {"rules": [{"timeouts": {"request": "35 s"}}]}}, "35 s"),
    ],
)
def test_a_wrong_field_is_found(kind, change, complaint):
    manifest = one(build("production with a gateway, on GPUs"), kind)
    with pytest.raises(jsonschema.ValidationError, match=complaint):
        crds.validate(manifest | {"spec": manifest["spec"] | change["spec"]})


def containers() -> list[tuple[str, dict, dict]]:
    found = []
    for overlay in DEPLOYMENTS:
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
        writable = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
        assert writable <= {"/tmp", "/dev/shm", "/cache"}


def test_no_pod_is_told_of_services_by_variables():
    """They would look like settings: a Service called zooserve-grpc sets ZOOSERVE_GRPC_PORT."""
    for overlay in DEPLOYMENTS:
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
    for overlay in DEPLOYMENTS:
        manifests = build(overlay)
        pod = one(manifests, "Deployment")["spec"]["template"]["spec"]
        wait = int(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
        settings = {row.name: row.default for row in table({})} | one(manifests, "ConfigMap")["data"]
        longest = float(settings["ZOOSERVE_DRAIN_S"]) + float(settings["ZOOSERVE_TIMEOUT_MS"]) / 1000
        assert wait + longest < pod["terminationGracePeriodSeconds"]


def test_settings_exist():
    known = {name for name, *_ in table({})}
    for overlay in DEPLOYMENTS:
        given = one(build(overlay), "ConfigMap")["data"]
        table(given)  # raises where a value is out of range
        assert {name for name in given if name.startswith(PREFIX)} <= known
    runtime = one(build("kserve"), "ServingRuntime")["spec"]["containers"][0]
    assert {entry["name"] for entry in runtime["env"]} <= known | {"PORT"}


def test_autoscaling_asks_for_a_metric_that_there_is():
    (trigger,) = one(build("gpu"), "ScaledObject")["spec"]["triggers"]
    (metric,) = re.findall(r"zooserve_\w+", trigger["metadata"]["query"].partition("{")[0])
    assert f"# TYPE {metric.removesuffix('_sum')} histogram" in Metrics().render().decode()
    assert trigger["metricType"] == "AverageValue", "a sum over all replicas, divided by their number"


def test_gpu_pods_go_where_gpus_are():
    deployment = one(build("gpu"), "Deployment")["spec"]
    pod = deployment["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "nodeSelector" not in pod, "the limit finds the node; a label would need GPU feature discovery"
    assert pod["tolerations"][0]["key"] == "nvidia.com/gpu"
    config = one(build("gpu"), "ConfigMap")["data"]
    assert config["ZOOSERVE_DEVICE"] == "cuda"
    assert config["XDG_CACHE_HOME"] in {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    probe = pod["containers"][0]["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 1200, "TensorRT builds engines"
    # One ends before the next one starts: no spare GPU is needed, and with two replicas one answers.
    assert deployment["strategy"]["rollingUpdate"] == {"maxUnavailable": 1, "maxSurge": 0}
    assert one(build("gpu"), "ScaledObject")["spec"]["minReplicaCount"] >= 2


def limits() -> tuple[float, float]:
    """Megabytes of a body and seconds of a request, by default."""
    defaults = {row.name: float(row.default) for row in table({}) if row.name.endswith(("BODY_MB", "TIMEOUT_MS"))}
    return defaults["ZOOSERVE_MAX_BODY_MB"], defaults["ZOOSERVE_TIMEOUT_MS"] / 1000


def test_a_proxy_in_front_has_wider_limits_than_the_service():
    """Who is over a limit gets the service's own answer, which says what the limit is."""
    body, timeout = limits()
    for ingress in (each for each in build("production") if each["kind"] == "Ingress"):
        notes = {name.partition("/")[2]: value for name, value in ingress["metadata"]["annotations"].items()}
        assert body < float(notes["proxy-body-size"].removesuffix("m")) <= body + 2
        assert timeout < float(notes["proxy-read-timeout"]) <= timeout + 10
        assert timeout < float(notes["proxy-send-timeout"]) <= timeout + 10
        assert ingress["spec"]["tls"]
    route = one(build("production with a gateway, on GPUs"), "HTTPRoute")["spec"]
    assert timeout < float(route["rules"][0]["timeouts"]["request"].removesuffix("s")) <= timeout + 10


def test_production_is_locked_and_pinned():
    manifests = build("production")
    pod = one(manifests, "Deployment")["spec"]["template"]["spec"]
    config = one(manifests, "ConfigMap")["data"]
    (container,) = pod["containers"]
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert mounts["/keys"]["readOnly"]
    assert mounts["/models"]["readOnly"]
    assert config["ZOOSERVE_API_KEYS"].startswith("@/keys/")
    assert config["ZOOSERVE_ADMIN_KEYS"].startswith("@/keys/")
    for each in (container, *pod["initContainers"]):
        assert "@sha256:" in each["image"]
        assert each["securityContext"]["readOnlyRootFilesystem"]
    assert {rule["topologyKey"] for rule in pod["topologySpreadConstraints"]} >= {"topology.kubernetes.io/zone"}
    assert {one(manifests, kind)["metadata"]["labels"]["release"] for kind in ("ServiceMonitor", "PrometheusRule")}
    assert {manifest["metadata"].get("namespace") for manifest in manifests} == {"zooserve"}


def test_the_operators_rules_are_ours_with_links_that_lead_somewhere():
    rules = yaml.safe_load((FOLDER.parent / "prometheus" / "rules.yml").read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            if link := rule.get("annotations", {}).get("runbook"):
                rule["annotations"]["runbook"] = f"https://git.example.com/zooserve/{link}"
    operator = yaml.safe_load((FOLDER / "production" / "prometheusrule.yaml").read_text())
    assert operator["spec"] == rules, "run deploy/kubernetes/production/prometheusrule"


def test_kserve_is_as_the_base():
    base = one(build("base"), "Deployment")["spec"]["template"]["spec"]
    manifests = build("kserve")
    runtime = one(manifests, "ServingRuntime")["spec"]
    predictor = one(manifests, "InferenceService")["spec"]["predictor"]
    ours, theirs = base["containers"][0], runtime["containers"][0]
    assert theirs["lifecycle"] == ours["lifecycle"]
    assert theirs["resources"] == ours["resources"]
    assert runtime["volumes"] == base["volumes"]
    for name in ("terminationGracePeriodSeconds", "automountServiceAccountToken", "enableServiceLinks"):
        assert predictor[name] == base[name]
    assert theirs["securityContext"] == ours["securityContext"] | {
        name: base["securityContext"][name] for name in base["securityContext"]
    }
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert {**theirs[probe], "httpGet": 0} == {**ours[probe], "httpGet": 0}
    assert runtime["protocolVersions"] == ["v2", "grpc-v2"]
    (rule,) = one(manifests, "NetworkPolicy")["spec"]["ingress"]
    assert {port["port"] for port in rule["ports"]} == {port["containerPort"] for port in theirs["ports"]}
    assert one(manifests, "NetworkPolicy")["spec"]["egress"] == []


@pytest.mark.skipif(
    not shutil.which("checkov"), reason="checkov is not installed (pip install checkov, in a place of its own)"
)
@pytest.mark.parametrize("overlay", [name for name in EXPECTED if name != "base"])  # base has no tag yet
def test_policies(overlay, tmp_path):
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all(build(overlay)))
    # Which namespace, digest and pull policy it is to be says whoever deploys; `production` has them.
    left = [] if overlay.startswith("production") else ["--skip-check", "CKV_K8S_15,CKV_K8S_21,CKV_K8S_43"]
    arguments = ["checkov", "--directory", tmp_path, "--framework", "kubernetes", "--compact", "--quiet", *left]
    # The pull policy of an image by digest changes nothing.
    done = subprocess.run(
        [*arguments, "--skip-check", "CKV_K8S_15"] if not left else arguments,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
