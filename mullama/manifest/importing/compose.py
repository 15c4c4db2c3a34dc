"""A Compose file: its top-level models, and services that run a llama.cpp server."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from mullama.errors import Invalid
from mullama.manifest.importing.flags import model_of
from mullama.manifest.importing.found import Imported
from mullama.names import parse_source


def from_compose(tree: Mapping[str, Any]) -> Imported:
    """Models by the names that the file gives them; a service of llama.cpp by its own name."""
    found = Imported()
    models, services = tree.get("models"), tree.get("services")
    for name, entry in (models if isinstance(models, Mapping) else {}).items():
        _model(found, str(name), entry if isinstance(entry, Mapping) else {})
    for name, entry in (services if isinstance(services, Mapping) else {}).items():
        _service(found, str(name), entry if isinstance(entry, Mapping) else {})
    if not found.models and not found.left_out:
        raise Invalid("there are neither models nor llama.cpp services in it", hint="is it a Compose file?")
    return found


def _model(found: Imported, name: str, entry: Mapping[str, Any]) -> None:
    spec = str(entry.get("model", ""))
    if not spec.startswith(("hf.co/", "huggingface.co/")):
        found.left_out.append(f"models.{name}: {spec or 'it'} lies in a container registry, which cannot be asked")
        return
    flags = entry.get("runtime_flags") or ()
    words = [str(flag) for flag in flags] if isinstance(flags, (list, tuple)) else shlex.split(str(flags))
    try:
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
    if "ollama" in image:
        found.left_out.append(f"services.{name}: its models lie in a volume; mullama import ollama reads a store")
        return
    if "llama.cpp" not in image and "llama-server" not in image:
        return  # another service: nothing that a manifest would say
    command = entry.get("command") or ()
    try:
        words = [str(w) for w in command] if isinstance(command, (list, tuple)) else shlex.split(str(command))
        model, names, left = model_of(words)
    except (Invalid, ValueError) as error:
        found.left_out.append(f"services.{name}: {error}")
        return
    own = found.add(name, model)
    found.routes |= {alias: own for alias in names if alias not in found.models}
    if str(model["from"]).startswith("/"):
        found.left_out.append(f"services.{name}: {model['from']} is a path inside the container")
    found.left_out += [f"services.{name}: {argument}" for argument in left]
