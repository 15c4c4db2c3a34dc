"""Imports a Compose file: its top-level models, and services that run a llama.cpp server."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from mullama.errors import Invalid
from mullama.manifest.importing.flags import Tree, arguments_of, model_of
from mullama.manifest.importing.found import Imported
from mullama.names import parse_source


def from_compose(tree: Mapping[str, Any]) -> Imported:
    """Return the models under their names in the file, and each llama.cpp service under the name of the service."""
    found = Imported()
    models, services = tree.get("models"), tree.get("services")
    for name, entry in (models if isinstance(models, Mapping) else {}).items():
        _model(found, str(name), entry if isinstance(entry, Mapping) else {})
    for name, entry in (services if isinstance(services, Mapping) else {}).items():
        _service(found, str(name), entry if isinstance(entry, Mapping) else {})
    if not found.models and not found.left_out:
        raise Invalid("the file has neither models nor llama.cpp services", hint="is it a Compose file?")
    return found


def _model(found: Imported, name: str, entry: Mapping[str, Any]) -> None:
    spec = str(entry.get("model", ""))
    if not spec.startswith(("hf.co/", "huggingface.co/")):
        found.left_out.append(f"models.{name}: {spec or 'it'} is in a container registry, which is not supported")
        return
    try:
        words = _words(entry.get("runtime_flags"))
        source = str(parse_source(spec))
        model, names, left = model_of(["-m", source, *words])
    except (Invalid, ValueError) as error:
        found.left_out.append(f"models.{name}: {error}")
        return
    size = entry.get("context_size")
    if isinstance(size, int):
        model = {**model, "context": {**model.get("context", {}), "size": size}}
    own = found.add(name, model)
    found.routes |= {alias: own for alias in names if alias not in found.models}
    found.left_out += [f"models.{name}: {argument}" for argument in left]
    known = ("model", "context_size", "runtime_flags")
    found.left_out += [f"models.{name}: {key}" for key in entry if key not in known]


def _service(found: Imported, name: str, entry: Mapping[str, Any]) -> None:
    image = str(entry.get("image", ""))
    command = _words(entry.get("command"))
    if "ollama" in image:
        found.left_out.append(f"services.{name}: its models are in a volume; mullama import ollama reads a store")
        return
    server = next((at for at, word in enumerate(command) if "llama-server" in word), None)
    if "llama.cpp" not in image and "llama-server" not in image and server is None:
        return  # another service, which a manifest does not describe
    try:
        given, unknown = arguments_of(_environment(entry.get("environment")))
        model, names, left = model_of([*given, *command[0 if server is None else server + 1 :]])
    except (Invalid, ValueError) as error:
        found.left_out.append(f"services.{name}: {error}")
        return
    own = found.add(name, _on_host(found, name, model, _mounts(entry.get("volumes"))))
    found.routes |= {alias: own for alias in names if alias not in found.models}
    found.left_out += [f"services.{name}: {argument}" for argument in (*unknown, *left)]


def _words(command: Any) -> list[str]:
    return [str(word) for word in command] if isinstance(command, (list, tuple)) else shlex.split(str(command or ""))


def _environment(given: Any) -> dict[str, str]:
    """Return the environment of a service, which is a map or a list of `NAME=value`."""
    if isinstance(given, Mapping):
        return {str(name): str(value) for name, value in given.items()}
    pairs = (str(item).partition("=") for item in (given if isinstance(given, (list, tuple)) else ()))
    return {name: value for name, _, value in pairs}


def _mounts(volumes: Any) -> dict[str, str]:
    """Return the folders on this machine by their path in the container, without named volumes."""
    found = {}
    for volume in volumes if isinstance(volumes, (list, tuple)) else ():
        if isinstance(volume, Mapping):
            source, target = str(volume.get("source", "")), str(volume.get("target", ""))
        else:
            source, _, target = str(volume).partition(":")
        if source.startswith((".", "/", "~")) and target:
            found[target.partition(":")[0].rstrip("/")] = source
    return found


def _on_host(found: Imported, name: str, model: Tree, mounts: Mapping[str, str]) -> Tree:
    """Return the model with the paths on this machine."""
    path = str(model["from"])
    if not path.startswith("/"):
        return model
    for target, source in mounts.items():
        if path.startswith(target + "/"):
            return {**model, "from": f"{source.rstrip('/')}{path.removeprefix(target)}"}
    found.left_out.append(f"services.{name}: {path} is a path inside the container")
    return model
