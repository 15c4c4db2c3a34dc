"""The pod of a server in Kubernetes, which the plain objects and the values of a chart have in common."""

from __future__ import annotations

import re
from typing import Any

from mullama.errors import Invalid
from mullama.export.base import ExportInput
from mullama.export.container import (
    CONFIG,
    DATA,
    TLS,
    USER,
    WEIGHTS,
    ContainerParts,
    container_parts,
    gpus_of,
    require_no_files,
)
from mullama.manifest.dump import Comment
from mullama.names import BuiltinRef, parse_source
from mullama.struct import Struct

GRACE = 5
"""Seconds before a stop in which the addresses of the pod disappear from the service."""
_RESERVE = 2**30  # of the server process itself
_MIB = 2**20
_LABEL = re.compile(r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?")


class Pod(Struct, frozen=True, kw_only=True):
    """A server in Kubernetes."""

    name: str
    namespace: str
    """Empty for the namespace of the caller."""
    parts: ContainerParts
    gpus: int
    secret: str
    """The secret with the environment variables."""
    certificate: str
    """The secret with the certificate; empty without TLS."""
    hub: bool
    """True if a model comes from the network."""


def pod_of(given: ExportInput) -> Pod:
    """Return the server. Raises `Invalid` for a name that Kubernetes refuses, and what `container_parts` raises."""
    options = given.options
    for text, what in ((options.name, "name"), (options.namespace or "default", "namespace")):
        if not _LABEL.fullmatch(text):
            raise Invalid(
                f"{text[:80]!r} is no {what} of Kubernetes", hint="at most 63 of a-z, 0-9 and -, first a letter"
            )
    name, space = options.name, options.namespace
    within = (f"{name}.{space}", f"{name}.{space}.svc", f"{name}.{space}.svc.cluster.local")
    parts = container_parts(given, (name, *(within if space else ("*.svc", "*.svc.cluster.local"))))
    require_no_files(parts, "a pod")
    models = parts.manifest.models.values()
    hub = any(not isinstance(parse_source(source), BuiltinRef) for model in models for source in model.all_sources)
    return Pod(
        name=name, namespace=space, parts=parts, gpus=gpus_of(given),
        secret=f"{name}-secrets", certificate=f"{name}-tls" if parts.tls else "",
        hub=hub or parts.manifest.sync.git is not None,
    )  # fmt: skip


def container(pod: Pod, given: ExportInput) -> dict[str, Any]:
    """Return the container of the pod."""
    secure = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    return {
        "name": "mullama",
        "image": given.image,
        "args": ["serve", "-f", f"{CONFIG}/mullama.yaml"],
        "ports": [{"name": "http", "containerPort": pod.parts.port}],
        **({"env": environment(pod)} if pod.parts.variables else {}),
        **probes(pod),
        "lifecycle": {
            Comment("The address leaves the service before the server refuses new requests."): None,
            "preStop": {"exec": {"command": ["sleep", str(GRACE)]}},
        },
        **resources(pod, given),
        "securityContext": secure,
        "volumeMounts": mounts(given, pod),
    }


def environment(pod: Pod) -> list[dict[str, Any]]:
    """Return the environment variables, each from the secret of the pod."""
    made = []
    for variable in pod.parts.variables:
        reference = {"name": pod.secret, "key": variable.name, **({"optional": True} if variable.optional else {})}
        made.append({"name": variable.name, "valueFrom": {"secretKeyRef": reference}})
    return made


def probes(pod: Pod) -> dict[str, Any]:
    """Return the probes: the process answers, the models answer. A server that wants certificates answers neither."""
    tls = pod.parts.manifest.server.tls
    if tls is not None and tls.client_ca:
        check: dict[str, Any] = {"tcpSocket": {"port": "http"}}
        alive = ready = check
    else:
        scheme = {"scheme": "HTTPS"} if tls is not None else {}
        alive = {"httpGet": {"path": "/livez", "port": "http", **scheme}}
        ready = {"httpGet": {"path": "/readyz", "port": "http", **scheme}}
    return {
        "startupProbe": {**alive, "periodSeconds": 2, "failureThreshold": 150},
        "livenessProbe": {**alive, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6},
        "readinessProbe": {**ready, "periodSeconds": 5, "timeoutSeconds": 5},
    }


def resources(pod: Pod, given: ExportInput) -> dict[str, Any]:
    """Return the resources, with a comment where the memory of the models is not known."""
    limits: dict[str, Any] = {"nvidia.com/gpu": pod.gpus} if pod.gpus else {}
    use = given.memory
    if use is None:
        note = "The memory of the models is not known: their files are neither stored nor locked (mullama lock)."
        return {Comment(note): None, **({"resources": {"limits": limits}} if limits else {})}
    note = "Models, contexts and the server, from the headers of the weights."
    wanted = {"cpu": str(_threads(given)), "memory": _mebibytes(use.start + _RESERVE)}
    return {
        "resources": {
            Comment(note): None,
            "requests": wanted,
            "limits": {"memory": _mebibytes(use.all + _RESERVE), **limits},
        }
    }


def _threads(given: ExportInput) -> int:
    return max((model.context.threads or 1 for model in given.manifest.models.values()), default=1)


def _mebibytes(count: int) -> str:
    return f"{-(-count // _MIB)}Mi"


def claim(given: ExportInput) -> dict[str, Any]:
    """Return the claim of the volume for weights and state."""
    options = given.options
    named = {"storageClassName": options.storage_class} if options.storage_class else {}
    return {"accessModes": ["ReadWriteOnce"], **named, "resources": {"requests": {"storage": options.storage}}}


def security() -> dict[str, Any]:
    """Return the security context of the pod."""
    return {
        "runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
        "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": {"type": "RuntimeDefault"},
    }  # fmt: skip


def mounts(given: ExportInput, pod: Pod) -> list[dict[str, Any]]:
    """Return the mounts of the container by the names of `volumes`."""
    made: list[dict[str, Any]] = [
        {Comment("The folder, not the file: then a changed ConfigMap reaches the server, which applies it."): None,
         "name": "config", "mountPath": CONFIG, "readOnly": True},
        {"name": "data", "mountPath": DATA},
        {"name": "tmp", "mountPath": "/tmp"},
    ]  # fmt: skip
    if pod.certificate:
        made.append({"name": "tls", "mountPath": TLS, "readOnly": True})
    if given.options.weights_image:
        made.append({"name": "weights", "mountPath": WEIGHTS, "readOnly": True})
    return made
