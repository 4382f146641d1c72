"""The overlay to copy: what its proxy lets in and how much, keys, models, digests, and the rules for the operator."""

import os
import re
import shlex
import shutil
import subprocess
from typing import get_args

import pytest
import yaml

from service.commands.settings_table import table
from service.grpc import inference
from service.grpc.schema import SERVICE
from tests.conftest import ROOT
from tests.deploy.overlays import CHOICES, FOLDER, build, needs_kubectl, one
from zoo.card import Task

pytestmark = needs_kubectl
GATEWAY, INGRESS = "production", "production, GPUs, Ingress"
INSIDE = {"/livez", "/readyz", "/metrics"}


@pytest.fixture
def certificate(tmp_path_factory):
    """A certificate and its private key, as files have them."""
    if not shutil.which("openssl"):
        pytest.skip("certificates are made with openssl, which is not installed")
    folder = tmp_path_factory.mktemp("certificate")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", folder / "key", "-out", folder / "certificate", "-subj", "/CN=zooserve.example.com"]
    subprocess.run(command, check=True, capture_output=True)
    return (folder / "certificate").read_bytes(), (folder / "key").read_bytes()


def limits() -> tuple[float, float]:
    """Megabytes of a body and seconds of a request, by default."""
    defaults = {row.name: float(row.default) for row in table() if row.name.endswith(("BODY_MB", "TIMEOUT_MS"))}
    return defaults["ZOOSERVE_MAX_BODY_MB"], defaults["ZOOSERVE_TIMEOUT_MS"] / 1000


def ingresses() -> list[dict]:
    found = [each for each in build(INGRESS) if each["kind"] == "Ingress"]
    assert len(found) == 2
    return found


@pytest.mark.parametrize("name", ["zooserve", "zooserve-grpc"])
def test_a_proxy_in_front_has_wider_limits_than_the_service(name):
    """Who is over a limit gets the service's own answer, which says what the limit is.

    To nginx a gRPC stream is one body, however many messages it has; it may be idle for as long as the service lets it.
    """
    body, timeout = limits()
    (ingress,) = (each for each in ingresses() if each["metadata"]["name"] == name)
    notes = ingress["metadata"]["annotations"]
    sizes = {note: value for note, value in notes.items() if note.endswith("body-size")}
    times = {note: value for note, value in notes.items() if note.endswith("-timeout")}
    assert len(sizes) == 2, "of two controllers"
    assert len(times) == 4
    if name == "zooserve-grpc":
        timeout = max(timeout, inference._IDLE_S)
        assert set(sizes.values()) == {"0"}, "no limit"
    else:
        assert all(body < float(value.removesuffix("m")) <= body + 2 for value in sizes.values())
    assert all(timeout < float(value.removesuffix("s")) <= timeout + 10 for value in times.values())


def test_the_gateway_has_a_longer_timeout_than_the_service():
    _, timeout = limits()
    (rule,) = one(build(GATEWAY), "HTTPRoute")["spec"]["rules"]
    assert timeout < float(rule["timeouts"]["request"].removesuffix("s")) <= timeout + 10


def test_a_proxy_in_front_is_told_to_close_idle_connections_before_the_service():
    """Else it sends requests on connections that are being closed."""
    (kept,) = (float(row.default) for row in table() if row.name == "ZOOSERVE_KEEP_ALIVE_S")
    readme, security = ((ROOT / page).read_text() for page in ("deploy/README.md", "docs/security.md"))
    (told,) = re.findall(r"connectionIdleTimeout: (\d+)s", readme)
    assert float(told) + 5 < kept
    assert f"`ZOOSERVE_KEEP_ALIVE_S` ({kept:g} s)" in readme
    assert f"(`ZOOSERVE_KEEP_ALIVE_S`, {kept:g} s)" in security


def test_a_proxy_in_front_ends_tls():
    assert all(ingress["spec"]["tls"] for ingress in ingresses())
    (listener,) = one(build(GATEWAY), "Gateway")["spec"]["listeners"]
    assert (listener["protocol"], listener["tls"]["mode"]) == ("HTTPS", "Terminate")
    domain = listener["hostname"].removeprefix("*")
    for kind in ("HTTPRoute", "GRPCRoute"):
        assert all(name.endswith(domain) for name in one(build(GATEWAY), kind)["spec"]["hostnames"])


def matches(kind: str, value: str, path: str) -> bool:
    """Whether a path is one that an Ingress or a route names; prefixes are of whole elements."""
    return path == value or ("Prefix" in kind and path.startswith(value.rstrip("/") + "/"))


def through_the_gateway(method: str, path: str) -> bool:
    (rule,) = one(build(GATEWAY), "HTTPRoute")["spec"]["rules"]
    return any(
        match.get("method", method) == method and matches(match["path"]["type"], match["path"]["value"], path)
        for match in rule["matches"]
    )


def through_the_ingress(_: str, path: str) -> bool:
    (rule,) = ingresses()[0]["spec"]["rules"]
    return any(matches(each["pathType"], each["path"], path) for each in rule["http"]["paths"])


def test_clients_reach_what_they_use_and_nothing_else(server):
    """Every documented operation, and the pages: probes and metrics stay inside, administration too where it can."""
    documented = server.client.get("/openapi.json").json()["paths"]
    operations = {(method.upper(), path): each for path, by in documented.items() for method, each in by.items()}
    assert {("POST", f"/v1/{task}") for task in get_args(Task)} < set(operations)
    assert {path for _, path in operations} > INSIDE
    administration = {pair for pair, each in operations.items() if "admin" in each.get("tags", [])}
    administration |= {("POST", "/v2/repository/models/x/load"), ("POST", "/v2/repository/models/x/unload")}
    used = {
        ("GET", "/v2"),
        ("GET", "/v2/health/ready"),
        ("POST", "/v2/models/x/infer"),
        ("POST", "/v2/repository/index"),
    }
    used |= {
        ("GET", "/ui/"),
        ("GET", "/ui/samples"),
        ("GET", "/docs"),
        ("GET", "/docs/start.js"),
        ("GET", "/openapi.json"),
    }
    used |= {pair for pair in operations if pair not in administration and pair[1] not in INSIDE}
    assert len(administration) >= 5
    for method, path in used:
        assert through_the_gateway(method, path), f"{method} {path}"
        assert through_the_ingress(method, path), f"{method} {path}"
        asks_first = not path.startswith(("/ui", "/docs", "/openapi"))  # for pages of other origins
        assert not asks_first or through_the_gateway("OPTIONS", path), path
    for method, path in {("GET", path) for path in INSIDE}:
        assert not through_the_gateway(method, path)
        assert not through_the_ingress(method, path)
    for method, path in administration:
        assert not through_the_gateway(method, path), f"{method} {path}"


def test_grpc_calls_pass_but_those_that_administer():
    rules = one(build(GATEWAY), "GRPCRoute")["spec"]["rules"]
    passed = {(each["method"]["service"], each["method"]["method"]) for rule in rules for each in rule["matches"]}
    calls = {(SERVICE.full_name, method.name) for method in SERVICE.methods}
    assert calls - passed == {(SERVICE.full_name, f"RepositoryModel{what}oad") for what in ("L", "Unl")}
    assert passed < calls
    (path,) = ingresses()[1]["spec"]["rules"][0]["http"]["paths"]
    assert path["path"] == f"/{SERVICE.full_name}"


def test_the_service_can_read_its_keys():
    """Files of a Secret are root's, the group may read them: here, since `components/models` may be left out."""
    pod = yaml.safe_load((FOLDER / "production" / "deployment.yaml").read_text())["spec"]["template"]["spec"]
    (keys,) = (volume["secret"] for volume in pod["volumes"] if "secret" in volume)
    assert keys["defaultMode"] == 0o440
    assert pod["securityContext"]["fsGroup"] == 10001


@pytest.mark.parametrize("overlay", CHOICES)
def test_production_is_locked_and_pinned(overlay):
    manifests = build(overlay)
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


def test_the_documented_commands_make_the_secrets(tmp_path, certificate):
    """As the overlay's comment gives them, against no cluster."""
    comment = (FOLDER / "production" / "kustomization.yaml").read_text()
    secrets = {}
    for command in re.findall(r"^#   kubectl (.*create secret .*)$", comment, re.M):
        for name in ("KEYS", "ADMIN_KEYS"):
            (tmp_path / name).write_text("a-key\n")
        (tmp_path / "CERTIFICATE").write_bytes(certificate[0])
        (tmp_path / "PRIVATE_KEY").write_bytes(certificate[1])
        made = subprocess.run(
            ["kubectl", *shlex.split(command), "--dry-run=client", "--output=yaml"],
            cwd=tmp_path, capture_output=True, text=True, check=False, env=os.environ | {"KUBECONFIG": "/dev/null"},
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        secret = yaml.safe_load(made.stdout)
        assert secret["metadata"]["namespace"] == "zooserve"
        secrets[secret["metadata"]["name"]] = set(secret["data"])
    pod = one(build(GATEWAY), "Deployment")["spec"]["template"]["spec"]
    (keys,) = (volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume)
    config = one(build(GATEWAY), "ConfigMap")["data"]
    files = {config[f"ZOOSERVE_{who}_KEYS"].removeprefix("@/keys/") for who in ("API", "ADMIN")}
    assert secrets.pop(keys) == files
    (listener,) = one(build(GATEWAY), "Gateway")["spec"]["listeners"]
    assert {reference["name"] for reference in listener["tls"]["certificateRefs"]} == set(secrets)
    assert {tls["secretName"] for ingress in ingresses() for tls in ingress["spec"]["tls"]} == set(secrets)


def test_the_autoscaler_asks_for_the_pods_of_its_own_namespace():
    """Of another one there are no series, and the number of replicas would stay."""
    scaler = one(build(INGRESS), "ScaledObject")
    assert scaler["metadata"]["namespace"] == "zooserve"
    asked = re.findall(r"namespace=(\S*?),", scaler["spec"]["triggers"][0]["metadata"]["query"])
    assert asked == ['"zooserve"', '"zooserve"']


def test_the_init_container_fetches_models_that_there_are():
    (init,) = one(build(GATEWAY), "Deployment")["spec"]["template"]["spec"]["initContainers"]
    assert init["args"]
    assert all((ROOT / "zoo" / "cards" / f"{name}.toml").is_file() for name in init["args"])
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    assert 'ENTRYPOINT ["zooserve", "export"]' in dockerfile, "the arguments are its names"
    writable = {mount["mountPath"] for mount in init["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {"/models", "/tmp"}


@pytest.mark.parametrize("overlay", CHOICES)
def test_a_release_leaves_the_models_of_the_one_before_alone(overlay):
    """Another image converts all models anew: into a folder of its own, which the server of that release reads."""
    pod = one(build(overlay), "Deployment")["spec"]["template"]["spec"]
    (init,), (container,) = pod["initContainers"], pod["containers"]
    digest = init["image"].partition("@sha256:")[2]
    assert len(digest) == 64
    for each in (init, container):
        (folder,) = (entry["value"] for entry in each["env"] if entry["name"] == "ZOOSERVE_MODELS")
        assert folder == f"/models/{digest}"
        assert "/models" in {mount["mountPath"] for mount in each["volumeMounts"]}


@pytest.mark.parametrize("link", ["https://git.example.com/zooserve/deploy/README.md", "https://wiki.example/runbook"])
def test_the_operators_rules_are_ours_with_links_that_lead_somewhere(link, tmp_path):
    rules = yaml.safe_load((FOLDER.parent / "prometheus" / "rules.yml").read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            if runbook := rule.get("annotations", {}).get("runbook"):
                rule["annotations"]["runbook"] = runbook.replace("deploy/README.md", link)
    assert "https://" in str(rules)
    made = tmp_path / "deploy" / "kubernetes" / "production"
    made.mkdir(parents=True)
    (tmp_path / "deploy" / "prometheus").symlink_to(FOLDER.parent / "prometheus")
    script = made / "prometheusrule"
    script.write_bytes((FOLDER / "production" / "prometheusrule").read_bytes())
    subprocess.run(["sh", script, link], check=True)
    written = (made / "prometheusrule.yaml").read_text()
    assert yaml.safe_load(written)["spec"] == rules
    if "git.example.com" in link:
        kept = (FOLDER / "production" / "prometheusrule.yaml").read_text()
        assert kept == written, "run deploy/kubernetes/production/prometheusrule"
