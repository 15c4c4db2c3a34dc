"""A config of Ray Serve with the applications of the manifest, and a RayService of KubeRay with the same config."""

from __future__ import annotations

import json
import math
from typing import Any

from mullama.errors import Refused
from mullama.export.base import Exported, ExportedFile, ExportInput, header
from mullama.export.container import local_files
from mullama.export.ray_serve import (
    GATEWAYS,
    PROCESS_BYTES,
    RayInput,
    applications,
    http_options,
    notes,
    resources,
    slug,
    stack_name,
)
from mullama.export.secrets import SecretVariable, with_variables
from mullama.manifest.dump import Comment, TextBlock, to_yaml
from mullama.manifest.tree import revision

CONFIG = "mullama.serve.yaml"
SERVICE = "mullama.rayservice.yaml"
RAY = "2.60.0"
"""Version of Ray that the extra `mullama[ray]` installs."""
_GIB = 2**30


def export_ray(given: ExportInput) -> Exported:
    """Return both files. Raises `Unsupported` for a field without a meaning on Ray, and `Refused` without API keys.

    The gateway reads the secrets of the API keys where it runs.
    """
    if not given.manifest.auth.keys:
        raise Refused(
            "auth.keys is empty, and Ray Serve listens on all addresses of a cluster",
            hint="declare a key: auth: {keys: {team: {secret: {from_env: MULLAMA_KEY}}}}",
        )
    manifest, variables = with_variables(given.manifest)
    lock = json.loads(given.lock)["sources"] if given.lock else {}
    ray = RayInput(
        manifest=manifest, version=given.version, stack=stack_name(manifest), files=given.known, lock=lock,
    )  # fmt: skip
    config = {
        "proxy_location": "EveryNode",
        "http_options": {**http_options(manifest), "host": "0.0.0.0"},
        "applications": list(applications(ray).values()),
    }
    text = _text("Start it with: serve deploy " + CONFIG, "A change of a model: use mullama apply --on ray.", config)
    service = _text(
        f"Apply it with: kubectl apply -f {SERVICE}",
        "Each change makes a new cluster, which gets requests when all its applications run.",
        _service(given, ray, variables, config),
    )
    return Exported(
        files=(ExportedFile(path=CONFIG, text=text), ExportedFile(path=SERVICE, text=service)),
        notes=(*notes(ray), *_notes(given, variables)),
    )


def _text(first: str, second: str, tree: dict[str, Any]) -> str:
    head = header("ray", first, second)
    return "".join(f"# {line}\n" for line in head.split("\n")) + to_yaml(tree)


def _notes(given: ExportInput, variables: tuple[SecretVariable, ...]) -> list[str]:
    found = [f"every node needs the file {path}, which a model names" for path in local_files(given.manifest)]
    if variables:
        names = ", ".join(variable.name for variable in variables)
        found.append(f"the nodes read these variables of the environment: {names}")
    if not given.options.image:
        found.append(f"the image needs mullama[engine,ray] and Ray {RAY}: --image names it")
    return found


def _service(
    given: ExportInput, ray: RayInput, variables: tuple[SecretVariable, ...], config: dict[str, Any]
) -> dict[str, Any]:
    options = given.options
    space = {"namespace": options.namespace} if options.namespace else {}
    name = slug(options.name)
    secrets = [
        {
            "name": variable.name,
            "valueFrom": {
                "secretKeyRef": {"name": f"{name}-keys", "key": variable.name, "optional": variable.optional}
            },
        }
        for variable in variables
    ]
    # A field of the cluster that changes with the manifest, so that KubeRay makes a new cluster beside the old one. In
    # place, the exact list of applications would end the old model before the new one is loaded.
    env: list[dict[str, Any]] = [{"name": "MULLAMA_MANIFEST_REVISION", "value": revision(ray.manifest)[:16]}, *secrets]
    asked = [resources(ray, model) for model in ray.manifest.models]
    gpus = options.gpus if options.gpus is not None else max((math.ceil(one.gpus) for one in asked), default=0)
    memory = max((one.memory or 0 for one in asked), default=0) + GATEWAYS * PROCESS_BYTES + 2 * _GIB
    worker = {
        "cpu": math.ceil(max((one.cpus for one in asked), default=1.0)) + 1,
        "memory": f"{math.ceil(memory / _GIB)}Gi",
        **({"nvidia.com/gpu": gpus} if gpus else {}),
    }
    spec: dict[str, Any] = {
        Comment("NewClusterWithIncrementalUpgrade moves requests in steps; it needs a feature gate."): None,
        "upgradeStrategy": {"type": "NewCluster"},
        "serveConfigV2": TextBlock(to_yaml(config)),
        "rayClusterConfig": {
            "rayVersion": RAY,
            "enableInTreeAutoscaling": True,
            "headGroupSpec": {
                Comment("No replica runs on the head, so that its end loses no request."): None,
                "rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0"},
                "template": _template(given, env, {"cpu": 1, "memory": "4Gi"}),
            },
            "workerGroupSpecs": [
                {
                    "groupName": "workers",
                    "replicas": 2,
                    "minReplicas": 2,
                    "maxReplicas": 10,
                    "rayStartParams": {},
                    "template": _template(given, env, worker),
                }
            ],
        },
    }  # fmt: skip
    labels = {"app.kubernetes.io/name": "mullama", "app.kubernetes.io/managed-by": "mullama-export"}
    metadata = {"name": name, **space, "labels": labels}
    return {"apiVersion": "ray.io/v1", "kind": "RayService", "metadata": metadata, "spec": spec}


def _template(given: ExportInput, env: list[dict[str, Any]], limits: dict[str, Any]) -> dict[str, Any]:
    container = {
        "name": "ray",
        "image": given.image,
        "env": env,
        "resources": {"limits": limits, "requests": limits},
        "securityContext": {"allowPrivilegeEscalation": False},
    }
    return {"spec": {"automountServiceAccountToken": False, "containers": [container]}}
