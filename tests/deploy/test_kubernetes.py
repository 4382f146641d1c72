"""The Kubernetes manifests: built with kustomize, checked against Kubernetes' schemas and the service itself."""

import re
import shutil
import subprocess

import jsonschema
import kubernetes_validate
import pytest
import yaml

from service.commands.settings_table import table
from service.settings import PREFIX, read_settings
from service.telemetry.metrics import Metrics
from tests.deploy import crds
from tests.deploy.overlays import FOLDER, OVERLAYS, build, needs_kubectl, one

KUBERNETES = "1.32"
JOBS = ["scoring", "scoring-gpu"]
DEPLOYMENTS = [name for name in OVERLAYS if name not in ("kserve", *JOBS)]
# Findings that are left, each for a reason.
LEFT = {"CKV_K8S_15": "the pull policy: an image that is named by its digest is the same wherever it comes from"}
LEFT_TO_PRODUCTION = {"CKV_K8S_21": "the namespace is chosen there", "CKV_K8S_43": "the digest is given there"}
pytestmark = needs_kubectl


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_is_valid_and_complete(overlay):
    manifests = build(overlay)
    assert {manifest["kind"] for manifest in manifests} == OVERLAYS[overlay]
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
    ("overlay", "kind", "change", "complaint"),
    [
        ("gpu", "ScaledObject", {"minReplicas": 2}, "minReplicas"),
        ("gpu", "ServiceMonitor", {"endpoints": [{"port": "http", "intervall": "1s"}]}, "intervall"),
        ("production", "PrometheusRule", {"groups": [{"name": "a", "rules": [{"alert": "A"}]}]}, "expr"),
        ("production", "Gateway", {"listeners": [{"name": "https", "port": 443}]}, "protocol"),
        ("production", "HTTPRoute", {"rules": [{"timeouts": {"request": "35 s"}}]}, "35 s"),
        ("production", "GRPCRoute", {"rules": [{"timeouts": {"request": "35s"}}]}, "timeouts"),
        ("scoring", "RayJob", {"shutdownAfterJobFinished": True}, "shutdownAfterJobFinished"),
        ("scoring", "RayJob", {"activeDeadlineSeconds": "1d"}, "1d"),
        ("kserve", "ServingRuntime", {"supportedModelFormat": []}, "supportedModelFormat"),
        ("kserve", "InferenceService", {"predictor": {"minReplica": 2}}, "minReplica"),
    ],
)
def test_a_wrong_field_is_found(overlay, kind, change, complaint):
    manifest = one(build(overlay), kind)
    with pytest.raises(jsonschema.ValidationError, match=complaint):
        crds.validate(manifest | {"spec": manifest["spec"] | change})


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
        assert writable <= {"/tmp", "/cache"}, "a volume at /dev/shm would hide that of NVIDIA's MPS"


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


def settings_of(overlay: str) -> dict[str, str]:
    """Every setting in an overlay, the defaults among them."""
    manifests = build(overlay)
    if overlay == "kserve":
        given = {each["name"]: each["value"] for each in containers()[-1][2]["env"]}
    else:
        given = one(manifests, "ConfigMap")["data"]
    return {row.name: row.default for row in table()} | given


def in_bytes(quantity: str) -> float:
    return float(quantity[:-2]) * 1024 ** ("KMGT".index(quantity[-2]) + 1)


def test_the_grace_period_covers_the_stop():
    """The wait before SIGTERM, the drain, and the longest request after it: over HTTP first, then over gRPC."""
    for overlay, pod, container in containers():
        if overlay == "kserve":
            pod = one(build(overlay), "InferenceService")["spec"]["predictor"]  # noqa: PLW2901
        wait = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
        settings = settings_of(overlay)
        assert settings["ZOOSERVE_GRPC_PORT"] != "0"
        longest = float(settings["ZOOSERVE_DRAIN_S"]) + 2 * float(settings["ZOOSERVE_TIMEOUT_MS"]) / 1000
        assert wait + longest < pod["terminationGracePeriodSeconds"], overlay


def test_a_start_may_take_as_long_as_a_load_and_an_alert():
    """A pod that is killed before can neither refuse its model nor page anybody."""
    rules = yaml.safe_load((FOLDER.parent / "prometheus" / "rules.yml").read_text())["groups"]
    waits = {rule["alert"]: rule["for"] for group in rules for rule in group["rules"] if "for" in rule}
    minutes = [int(waits[name].removesuffix("m")) for name in ("ZooserveNotReady", "ZooserveModelNotReady")]
    for overlay, _, container in containers():
        probe = container["startupProbe"]
        seconds = probe["periodSeconds"] * probe["failureThreshold"]
        assert seconds >= float(settings_of(overlay)["ZOOSERVE_LOAD_S"]) + 60, overlay
        assert seconds >= 60 * max(minutes) + 60, overlay


def test_clients_cannot_fill_the_memory():
    """The limit is above the process with its models, all that clients may fill, and a full /tmp."""
    for overlay, pod, container in containers():
        settings = settings_of(overlay)
        bodies, pixels = (float(settings[f"ZOOSERVE_MAX_{name}_MB"]) * 1e6 for name in ("BODIES", "PIXELS"))
        (tmp,) = (in_bytes(each["emptyDir"]["sizeLimit"]) for each in pod["volumes"] if each["name"] == "tmp")
        filled = 3 * bodies + pixels + tmp  # bodies over HTTP, over gRPC, and its answers
        assert 1.0e9 + filled < in_bytes(container["resources"]["limits"]["memory"]), overlay


@pytest.mark.parametrize("overlay", [*DEPLOYMENTS, "kserve"])
def test_what_selects_pods_selects_the_servers(overlay):
    """A budget without a selector selects none, and a drain may take all of them at once."""
    manifests = build(overlay)
    if overlay == "kserve":  # KServe's label of the pods that it makes
        wanted = {"serving.kserve.io/inferenceservice": one(manifests, "InferenceService")["metadata"]["name"]}
    else:
        deployment = one(manifests, "Deployment")["spec"]
        wanted = deployment["selector"]["matchLabels"]
        assert wanted.items() <= deployment["template"]["metadata"]["labels"].items()
        assert one(manifests, "Service")["spec"]["selector"] == wanted
    assert one(manifests, "PodDisruptionBudget")["spec"]["selector"] == {"matchLabels": wanted}
    assert one(manifests, "NetworkPolicy")["spec"]["podSelector"] == {"matchLabels": wanted}


def test_settings_exist():
    known = {name for name, *_ in table()}
    for overlay in DEPLOYMENTS:
        given = one(build(overlay), "ConfigMap")["data"]
        read_settings(given)  # raises where a value is out of range
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
    assert predictor["model"]["protocolVersion"] in runtime["protocolVersions"]
    (rule,) = one(manifests, "NetworkPolicy")["spec"]["ingress"]
    assert {port["port"] for port in rule["ports"]} == {port["containerPort"] for port in theirs["ports"]}
    assert one(manifests, "NetworkPolicy")["spec"]["egress"] == []


@pytest.mark.skipif(not shutil.which("checkov"), reason="checkov is not here (`pipx install checkov`)")
@pytest.mark.parametrize("overlay", [name for name in OVERLAYS if name != "base"])  # base has no tag yet
def test_policies(overlay, tmp_path):
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all(build(overlay)))
    left = LEFT if overlay.startswith("production") else LEFT | LEFT_TO_PRODUCTION
    command = ["checkov", "--directory", tmp_path, "--framework", "kubernetes", "--compact", "--quiet"]
    done = subprocess.run([*command, "--skip-check", ",".join(left)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
