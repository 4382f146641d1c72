"""Schemas of the custom resources in our manifests, as their operators publish them.

`schemas/` holds them without their descriptions. `python tests/deploy/crds.py SOURCE CRD.yaml...` makes them from the
projects' own files; SOURCE is noted in each (project, version and licence).
"""

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml

FOLDER = Path(__file__).parent / "schemas"
_NO_SCHEMA = {"description", "x-kubernetes-validations", "x-kubernetes-map-type", "x-kubernetes-list-type", "default"}
_NO_SCHEMA |= {"x-kubernetes-list-map-keys", "x-kubernetes-int-or-string", "x-kubernetes-embedded-resource", "format"}
# Parts of a pod: Kubernetes' own schemas are the ones to check them by.
POD_PARTS = {"affinity", "containers", "initContainers", "volumes", "ephemeralContainers", "topologySpreadConstraints"}
# Parts of KServe's resources that our manifests do not use, each as large as a pod.
POD_PARTS |= {"explainer", "transformer", "workerSpec", "lightgbm", "onnx", "paddle", "pmml", "pytorch", "sklearn"}
POD_PARTS |= {"tensorflow", "triton", "xgboost", "huggingface"}
# Parts of KubeRay's that are a pod or a Service, or that our manifests do not use.
POD_PARTS |= {"template", "submitterPodTemplate", "headService", "autoscalerOptions"}


def reduce(schema: Any, kind: str) -> Any:
    """Leave what says whether a manifest is valid; no object may have fields that are not named."""
    if isinstance(schema, list):
        return [reduce(each, kind) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    found = {}
    for name, value in schema.items():
        if name in _NO_SCHEMA:
            continue
        if name == "properties":
            pod = kind in {"ServingRuntime", "InferenceService", "RayJob"}
            found[name] = {
                field: {} if pod and field in POD_PARTS else reduce(each, kind) for field, each in value.items()
            }
        else:
            found[name] = reduce(value, kind)
    keeps = found.pop("x-kubernetes-preserve-unknown-fields", False)
    if "properties" in found and "additionalProperties" not in found and not keeps:
        found["additionalProperties"] = False
    return found


def make(source: str, path: Path) -> None:
    """Write the reduced schema of each version that a custom resource's definition serves."""
    definition = yaml.safe_load(path.read_text())["spec"]
    kind = definition["names"]["kind"]
    for version in definition["versions"]:
        if version["served"]:
            schema = reduce(version["schema"]["openAPIV3Schema"], kind)
            schema["properties"]["metadata"] = {"type": "object"}
            name = f"{definition['group']}_{version['name']}_{kind}.json"
            noted = {"$comment": f"{source}, Apache-2.0; descriptions and defaults left out"} | schema
            (FOLDER / name).write_text(json.dumps(noted, separators=(",", ":"), sort_keys=True) + "\n")


@cache
def schema_of(api_version: str, kind: str) -> dict[str, Any] | None:
    """The schema of a kind, if it is a custom resource whose schema is here."""
    path = FOLDER / f"{api_version.replace('/', '_')}_{kind}.json"
    return json.loads(path.read_text()) if path.is_file() else None


def validate(manifest: dict[str, Any]) -> bool:
    """Check a manifest by its schema; says whether there is one.

    Raises:
        jsonschema.ValidationError: the manifest is not valid.
    """
    schema = schema_of(manifest["apiVersion"], manifest["kind"])
    if schema is not None:
        jsonschema.Draft202012Validator(schema).validate(manifest)
    return schema is not None


if __name__ == "__main__":
    for name in sys.argv[2:]:
        make(sys.argv[1], Path(name))
