"""Plain objects for Kubernetes: a Deployment that follows a ConfigMap with the manifest, and what belongs to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from mullama.export.base import Exported, ExportedFile, ExportInput, header
from mullama.export.container import config_files, stop_seconds
from mullama.export.kube_pod import GRACE, Pod, claim, container, pod_of, security
from mullama.manifest.dump import Comment, TextBlock, to_yaml
from mullama.manifest.spec import Manifest, SecretRef

_PORTS = {"http": 80, "https": 443}
_POOL_GROUP = "inference.networking.k8s.io/v1"


def export_kube(given: ExportInput) -> Exported:
    """Return one file of objects for `kubectl apply -f`. Secrets are named, not written."""
    pod = pod_of(given)
    lines = ["Apply it with: kubectl apply -f mullama.kube.yaml", *_secret_lines(pod)]
    head = "".join(f"# {line}".rstrip() + "\n" for line in header("kube", *lines).split("\n"))
    text = head + "---\n".join(to_yaml(tree) for tree in _objects(pod, given))
    return Exported(files=(ExportedFile(path="mullama.kube.yaml", text=text),), notes=(*pod.parts.notes, *_notes(pod)))


def _notes(pod: Pod) -> Iterator[str]:
    for secret in (*([pod.secret] if pod.parts.variables else ()), *([pod.certificate] if pod.certificate else ())):
        yield f"create the secret {secret} before; the head of the file has the command"
    if pod.gpus:
        yield "the GPUs need an image with a GPU build of llama.cpp: --image names it"


def _secret_lines(pod: Pod) -> Iterator[str]:
    """Yield the commands that create the secrets."""
    space = f" -n {pod.namespace}" if pod.namespace else ""
    if pod.parts.variables:
        yield f"Create the secret {pod.secret} before. Its variables and their fields in the manifest:"
        for variable in pod.parts.variables:
            yield f"  {variable.name}: {variable.use}{' (optional)' if variable.optional else ''}"
        literals = " ".join(f"--from-literal={variable.name}=…" for variable in pod.parts.variables)
        yield f"  kubectl create secret generic {pod.secret}{space} {literals}"
    if pod.certificate:
        files = " ".join(f"--from-file={name}={path}" for name, path in pod.parts.tls.items())
        yield f"Create the secret {pod.certificate} before:"
        yield f"  kubectl create secret generic {pod.certificate}{space} {files}"


def _objects(pod: Pod, given: ExportInput) -> Iterator[dict[str, Any]]:
    options = given.options
    files = config_files(pod.parts, given.lock)
    data = {name: TextBlock(text) for name, text in files.items()}
    yield _object(pod, "v1", "ConfigMap", {"data": data}, name=f"{pod.name}-config")
    if options.replicas == 1:
        yield _object(pod, "v1", "PersistentVolumeClaim", {"spec": claim(given)}, name=f"{pod.name}-data")
    yield _object(pod, "apps/v1", "Deployment", {"spec": _deployment(pod, given)})
    port = {"name": "http", "port": pod.parts.port, "targetPort": "http"}
    yield _object(pod, "v1", "Service", {"spec": {"selector": _selector(pod), "ports": [port]}})
    budget = {"maxUnavailable": 1, "selector": {"matchLabels": _selector(pod)}}
    yield _object(pod, "policy/v1", "PodDisruptionBudget", {"spec": budget})
    yield _object(pod, "networking.k8s.io/v1", "NetworkPolicy", {"spec": _network(pod)})
    if options.endpoint_picker:
        pool = {
            "selector": {"matchLabels": _selector(pod)},
            "targetPorts": [{"number": pod.parts.port}],
            "endpointPickerRef": {"name": options.endpoint_picker, "port": {"number": 9002}},
        }
        yield _object(pod, _POOL_GROUP, "InferencePool", {"spec": pool})


def _object(pod: Pod, version: str, kind: str, rest: dict[str, Any], name: str = "") -> dict[str, Any]:
    space = {"namespace": pod.namespace} if pod.namespace else {}
    metadata = {"name": name or pod.name, **space, "labels": _labels(pod)}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **rest}


def _selector(pod: Pod) -> dict[str, str]:
    return {"app.kubernetes.io/name": "mullama", "app.kubernetes.io/instance": pod.name}


def _labels(pod: Pod) -> dict[str, str]:
    return {**_selector(pod), "app.kubernetes.io/managed-by": "mullama-export"}


def _deployment(pod: Pod, given: ExportInput) -> dict[str, Any]:
    one = given.options.replicas == 1
    strategy: dict[str, Any] = (
        {Comment("The volume has one owner. A change of the manifest needs no new pod."): None, "type": "Recreate"}
        if one
        else {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    )
    spec = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        Comment("The longest drain of a model, the wait before it, and a margin."): None,
        "terminationGracePeriodSeconds": stop_seconds(pod.parts.manifest) + GRACE,
        "securityContext": security(),
        "containers": [container(pod, given)],
        "volumes": _volumes(pod, given),
    }
    return {
        "replicas": given.options.replicas,
        "strategy": strategy,
        "selector": {"matchLabels": _selector(pod)},
        "template": {"metadata": {"labels": _labels(pod)}, "spec": spec},
    }


def _volumes(pod: Pod, given: ExportInput) -> list[dict[str, Any]]:
    data: dict[str, Any] = {"persistentVolumeClaim": {"claimName": f"{pod.name}-data"}}
    if given.options.replicas > 1:
        data = {
            Comment("Each pod has a volume of its own, with its weights and its state."): None,
            "ephemeral": {"volumeClaimTemplate": {"spec": claim(given)}},
        }
    made: list[dict[str, Any]] = [
        {"name": "config", "configMap": {"name": f"{pod.name}-config"}},
        {"name": "data", **data},
        {"name": "tmp", "emptyDir": {}},
    ]
    if pod.certificate:
        made.append({"name": "tls", "secret": {"secretName": pod.certificate, "defaultMode": 0o440}})
    if given.options.weights_image:
        made.append(
            {"name": "weights", "image": {"reference": given.options.weights_image, "pullPolicy": "IfNotPresent"}}
        )
    return made


def _addressed(manifest: Manifest) -> Iterator[tuple[str, list[int]]]:
    """Yield the fields with addresses that the server sends to, and their ports."""
    otlp = manifest.observability.otlp
    for field, urls in (
        ("peers", [peer.url for peer in manifest.peers.values()]),
        ("hardware.rpc", [f"tcp://{host}" for host in manifest.hardware.rpc]),
        ("observability.webhooks", [_address(webhook.url) for webhook in manifest.observability.webhooks]),
        ("mcp", [server.url for server in manifest.mcp.values() if server.url is not None]),
        ("search", [manifest.search.url] if manifest.search is not None and manifest.search.url is not None else []),
        ("observability.otlp", [otlp.endpoint] if otlp is not None else []),
    ):
        if urls:
            yield field, sorted({parts.port or _PORTS[parts.scheme] for parts in map(urlsplit, urls)})


def _address(url: str | SecretRef) -> str:
    """Return the address of a webhook; one that is a secret is taken as one of https:."""
    return url if isinstance(url, str) else "https://secret"


def _network(pod: Pod) -> dict[str, Any]:
    """Return the policy: clients of the same namespace, name resolution, the hub if a model comes from one, peers."""
    client = {"from": [{"podSelector": {}}], "ports": [{"port": "http", "protocol": "TCP"}]}
    names = {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}
    rules: list[dict[str, Any]] = [{Comment("Names."): None, **names}]
    if pod.hub:
        rules.append({Comment("Sources of models."): None, "ports": [{"port": 443, "protocol": "TCP"}]})
    rules += [
        {Comment(f"{field}."): None, "ports": [{"port": port, "protocol": "TCP"} for port in ports]}
        for field, ports in _addressed(pod.parts.manifest)
    ]
    return {
        "podSelector": {"matchLabels": _selector(pod)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{Comment("Pods of this namespace; add a namespaceSelector for others."): None, **client}],
        "egress": rules,
    }
