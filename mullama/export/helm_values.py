"""Values for the chart app-template (bjw-s-labs), version 4: the objects of the kube export, made by a chart."""

from __future__ import annotations

from typing import Any

from mullama.export.base import Exported, ExportedFile, ExportInput, header
from mullama.export.container import CONFIG, DATA, TLS, WEIGHTS, config_files, stop_seconds
from mullama.export.kube_pod import GRACE, Pod, claim, container, pod_of, security
from mullama.manifest.dump import Comment, TextBlock, to_yaml

_KEPT = ("args", "lifecycle", "resources", "securityContext")
_PROBES = {"startupProbe": "startup", "livenessProbe": "liveness", "readinessProbe": "readiness"}


def export_helm_values(given: ExportInput) -> Exported:
    """Return the values. The secrets are those of the kube export."""
    pod = pod_of(given)
    space = f" --namespace {pod.namespace}" if pod.namespace else ""
    lines = [f"Install it with: helm upgrade --install {pod.name} CHART{space} -f values.yaml"]
    lines += ["CHART is app-template of bjw-s-labs, version 4."]
    lines += [f"The secret {pod.secret} has the variables {', '.join(v.name for v in pod.parts.variables)}."]
    if pod.certificate:
        lines.append(f"The secret {pod.certificate} has the files {', '.join(pod.parts.tls)}.")
    tree: dict[str, Any] = {
        Comment(header("helm-values", *lines)): None,
        "defaultPodOptions": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": security(),
            Comment("The longest drain of a model, the wait before it, and a margin."): None,
            "terminationGracePeriodSeconds": stop_seconds(pod.parts.manifest) + GRACE,
        },
        "controllers": {"main": _controller(pod, given)},
        "service": {"main": {"controller": "main", "ports": {"http": {"port": pod.parts.port}}}},
        "configMaps": {"config": {"data": {k: TextBlock(v) for k, v in config_files(pod.parts, given.lock).items()}}},
        "persistence": _persistence(pod, given),
    }
    notes = (*pod.parts.notes, f"create the secret {pod.secret} before; `mullama export kube` shows how")
    return Exported(files=(ExportedFile(path="values.yaml", text=to_yaml(tree)),), notes=notes)


def _controller(pod: Pod, given: ExportInput) -> dict[str, Any]:
    made = container(pod, given)
    probes = {short: {"enabled": True, "custom": True, "spec": made[long]} for long, short in _PROBES.items()}
    repository, tag = _image(given.image)
    kept = {key: value for key, value in made.items() if key in _KEPT or isinstance(key, Comment)}
    if pod.parts.variables:
        kept["envFrom"] = [{"secretRef": {"name": pod.secret}}]
    return {
        "type": "deployment",
        "replicas": given.options.replicas,
        "strategy": "Recreate" if given.options.replicas == 1 else "RollingUpdate",
        "containers": {"main": {"image": {"repository": repository, "tag": tag}, **kept, "probes": probes}},
    }


def _image(text: str) -> tuple[str, str]:
    """Return the repository and the tag of an image; a digest is a part of the tag."""
    name, at, digest = text.partition("@")
    repository, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        repository, tag = name, "latest"
    return repository, f"{tag}{at}{digest}"


def _persistence(pod: Pod, given: ExportInput) -> dict[str, Any]:
    options = given.options
    named = {"storageClass": options.storage_class} if options.storage_class else {}
    data: dict[str, Any] = {"accessMode": "ReadWriteOnce", "size": options.storage, **named}
    if options.replicas == 1:
        data = {"type": "persistentVolumeClaim", **data, "globalMounts": [{"path": DATA}]}
    else:
        data = {
            Comment("Each pod has a volume of its own."): None,
            "type": "custom",
            "volumeSpec": {"ephemeral": {"volumeClaimTemplate": {"spec": claim(given)}}},
            "globalMounts": [{"path": DATA}],
        }
    made: dict[str, Any] = {
        "config": {"type": "configMap", "identifier": "config", "globalMounts": [{"path": CONFIG, "readOnly": True}]},
        "data": data,
        "tmp": {"type": "emptyDir", "globalMounts": [{"path": "/tmp"}]},
    }
    if pod.certificate:
        mount = {"path": TLS, "readOnly": True}
        made["tls"] = {"type": "secret", "name": pod.certificate, "defaultMode": 0o440, "globalMounts": [mount]}
    if options.weights_image:
        source = {"image": {"reference": options.weights_image, "pullPolicy": "IfNotPresent"}}
        mount = {"path": WEIGHTS, "readOnly": True}
        made["weights"] = {"type": "custom", "volumeSpec": source, "globalMounts": [mount]}
    return made
