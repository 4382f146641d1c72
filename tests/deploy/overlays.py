"""The overlays of `deploy/kubernetes`, built with kustomize: `build` gives their manifests, `one` the one of a kind."""

import shutil
import subprocess
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
IN_BASE = {"ConfigMap", "Deployment", "NetworkPolicy", "PodDisruptionBudget", "Service", "ServiceAccount"}
IN_PRODUCTION = {"PersistentVolumeClaim", "PrometheusRule", "ServiceMonitor"}
# The choices that the comments of production's kustomization name: what is replaced by what.
CHOICES = {
    "production": {},
    "production, GPUs, Ingress": {
        "../cpu ": "../gpu ",
        "  - ../components/monitoring\n": "",
        "../components/gateway ": "../components/ingress ",
        "# - ../components/cache  with ../gpu": "- ../components/cache",
    },
}
# The kinds of each overlay.
OVERLAYS = {
    "base": IN_BASE,
    "cpu": IN_BASE | {"HorizontalPodAutoscaler"},
    "gpu": IN_BASE | {"ServiceMonitor", "ScaledObject"},
    "kserve": {"ServingRuntime", "InferenceService", "NetworkPolicy", "PodDisruptionBudget"},
    "scoring": {"RayJob", "NetworkPolicy", "ServiceAccount"},
    "scoring-gpu": {"RayJob", "NetworkPolicy", "ServiceAccount"},
    "production": IN_BASE | IN_PRODUCTION | {"HorizontalPodAutoscaler", "Gateway", "HTTPRoute", "GRPCRoute"},
    "production, GPUs, Ingress": IN_BASE | IN_PRODUCTION | {"ScaledObject", "Ingress"},
}
needs_kubectl = pytest.mark.skipif(
    not shutil.which("kubectl"), reason="kubectl, which builds the overlays, is not here"
)


@cache
def build(overlay: str) -> list[dict]:
    """Build one of `OVERLAYS`."""
    with TemporaryDirectory() as copy:
        folder = FOLDER / overlay
        if overlay in CHOICES:
            shutil.copytree(FOLDER, copy, dirs_exist_ok=True)
            folder = Path(copy) / "production"
            file = folder / "kustomization.yaml"
            text = file.read_text()
            for before, after in CHOICES[overlay].items():
                assert before in text
                text = text.replace(before, after)
            file.write_text(text)
        built = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return list(yaml.safe_load_all(built.stdout))


def one(manifests: list[dict], kind: str) -> dict:
    """Return the only manifest of a kind."""
    (found,) = (manifest for manifest in manifests if manifest["kind"] == kind)
    return found
