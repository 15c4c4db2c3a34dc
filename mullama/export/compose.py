"""A compose file with the folder of the manifest beside it. A saved manifest is applied without a new container."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mullama.export.base import Exported, ExportedFile, ExportInput, header
from mullama.export.container import CONFIG, DATA, TLS, WEIGHTS, config_files, container_parts, gpus_of, stop_seconds
from mullama.export.secrets import SecretVariable
from mullama.manifest.dump import Comment, to_yaml

_FOLDER = "config"


def export_compose(given: ExportInput) -> Exported:
    """Return `compose.yaml` and the folder `config` with the manifest and the lock file."""
    options, name = given.options, given.options.name
    parts = container_parts(given, (name,))
    service: dict[str, Any] = {
        "image": given.image,
        "command": ["serve", "-f", f"{CONFIG}/mullama.yaml"],
        "read_only": True,
        "tmpfs": ["/tmp"],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        Comment("Only this machine can reach the port. Without 127.0.0.1, other machines can."): None,
        "ports": [f"127.0.0.1:{parts.port}:{parts.port}"],
        "volumes": [
            f"./{_FOLDER}:{CONFIG}:ro",
            f"data:{DATA}",
            *(_mount(path, path) for path in parts.files),
            *(_mount(path, f"{TLS}/{file}") for file, path in parts.tls.items()),
            *([{"type": "image", "source": options.weights_image, "target": WEIGHTS}] if options.weights_image else ()),
        ],
        **_environment(parts.variables),
        Comment("The longest drain of a model and a margin."): None,
        "stop_grace_period": f"{stop_seconds(parts.manifest)}s",
        "restart": "unless-stopped",
    }
    if count := gpus_of(given):
        device = {"driver": "nvidia", "count": count, "capabilities": ["gpu"]}
        service["deploy"] = {"resources": {"reservations": {"devices": [device]}}}
    tree = {Comment(header("compose", "Start it with: docker compose up --detach")): None, "name": name}
    text = to_yaml({**tree, "services": {"mullama": service}, "volumes": {"data": {}}})
    files = [ExportedFile(path="compose.yaml", text=text)]
    for file, content in config_files(parts, given.lock).items():
        comment = f"# {header('compose')}\n" if file.endswith(".yaml") else ""
        files.append(ExportedFile(path=f"{_FOLDER}/{file}", text=comment + content))
    notes = [*parts.notes]
    unreadable = [*parts.files, *parts.tls.values()]
    if unreadable:
        notes.append(f"user 10001 of the container must be able to read {', '.join(unreadable)}")
    return Exported(files=tuple(files), notes=tuple(notes))


def _mount(path: str, target: str) -> dict[str, Any]:
    """Return the long form of a mount of a file, because paths with a colon have no short one."""
    return {"type": "bind", "source": _literal(path), "target": _literal(target), "read_only": True}


def _environment(variables: Sequence[SecretVariable]) -> dict[str, Any]:
    """Return the variables of the caller's environment; compose refuses to start without one that is required."""
    made = {
        variable.name: f"${{{variable.name}:-}}" if variable.optional
        else f"${{{variable.name}:?the secret of {_literal(variable.use).replace('}', '')}}}"
        for variable in variables
    }  # fmt: skip
    return {"environment": made} if made else {}


def _literal(text: str) -> str:
    """Return a text that compose takes as it is."""
    return text.replace("$", "$$")
