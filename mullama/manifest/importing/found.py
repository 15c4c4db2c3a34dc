"""The result of an import; and imports from an Ollama store and from a folder of GGUF files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mullama.errors import Invalid
from mullama.manifest.modelfile.spec import PARAMETERS, WITHOUT_EFFECT
from mullama.names import JSONValue, ModelName, RegistryRef

# Parameters of a Modelfile that say how a model is loaded: a store's layer is read for requests only.
_LOADING = ("num_ctx", "num_batch", "num_thread", "num_gpu", "main_gpu", "use_mmap", "use_mlock")
_USUAL = ("registry.ollama.ai", "library")
_UNFIT = re.compile(r"[^A-Za-z0-9._:/-]+")


@dataclass(slots=True)
class Imported:
    """Models and routes as trees of a manifest. left_out: descriptions of the settings that were not imported.

    stores: `sources.stores` of the manifest, for a store that is not in its default folder.
    """

    models: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    routes: dict[str, str] = field(default_factory=dict)
    stores: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def add(self, name: str, model: Mapping[str, Any]) -> str:
        """Add a model under a valid and unused name; return the name."""
        wanted = fitting(name)
        taken = {ModelName.parse(known).key for known in self.models}
        unique, count = wanted, 1
        while ModelName.parse(unique).key in taken:
            count += 1
            unique = f"{wanted}-{count}"
        if unique != name:
            self.left_out.append(f"the name {name!r} was changed to {unique!r}")
        self.models[unique] = model
        return unique

    def tree(self) -> dict[str, Any]:
        """Return the manifest of the import as a tree."""
        tree: dict[str, Any] = {"mullama": "v1"}
        if self.stores:
            tree["sources"] = {"stores": self.stores}
        tree["models"] = self.models
        return {**tree, "routes": self.routes} if self.routes else tree


def fitting(name: str) -> str:
    """Return a valid model name that is similar to the text."""
    text = _UNFIT.sub("-", name).strip("-./:") or "model"
    try:
        return ModelName.parse(text).text
    except Invalid:
        return ModelName.parse(re.sub(r"[^A-Za-z0-9-]+", "-", text).strip("-") or "model").text


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryModel:
    """A model of an Ollama store. problem: reason why it cannot be used, "" if it can.

    parameters: of its parameter layer. renderer: name of its built-in renderer, "" for none. own_template: True if it
    has a template in addition to that of the weights file.
    """

    ref: RegistryRef
    problem: str = ""
    parameters: Mapping[str, JSONValue] = field(default_factory=dict)
    renderer: str = ""
    own_template: bool = False


def registry_models(models: Iterable[RegistryModel]) -> Imported:
    """Return the models. Their layers apply by themselves; settings of loading, which do not, are written out."""
    found = Imported()
    for model in models:
        ref = model.ref
        tagged = f"{ref.model}:{ref.tag}" if ref.tag != "latest" else ref.model
        name = tagged if ref.namespace == "library" else f"{ref.namespace}/{tagged}"
        if model.problem:
            found.left_out.append(f"{name}: {model.problem}")
            continue
        loading = {key: value for key, value in model.parameters.items() if key in _LOADING}
        declared = {"parameters": loading} if loading else {}
        name = found.add(name, {"from": _short(ref), **declared, "residency": {"load": "on_demand"}})
        found.left_out += [f"{name}: {what}" for what in _not_imported(model)]
    return found


def _not_imported(model: RegistryModel) -> Iterator[str]:
    for key in model.parameters:
        if key not in PARAMETERS and key not in WITHOUT_EFFECT:
            yield f"the parameter {key}, which is unknown"
    if model.renderer:
        yield f"its renderer {model.renderer}; the template in the weights file is used"
    elif model.own_template:
        yield "its Go template; the template in the weights file is used unless you set `template: {go: …}`"


def _short(ref: RegistryRef) -> str:
    """Return the short form of the reference."""
    return f"ollama:{ref.model}:{ref.tag}" if (ref.host, ref.namespace) == _USUAL else str(ref)


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufFile:
    """A GGUF file: its role (weights, projector, other) and quantization, and whether it is the first of a split set.

    stem: file name without `.gguf` and the number of a part. problem: reason why it cannot be used, "" if it can.
    """

    path: str
    role: str
    stem: str
    quant: str = ""
    first: bool = True
    problem: str = ""


def folder_models(files: Iterable[GgufFile]) -> Imported:
    """Return one model for each file or split set."""
    found = Imported()
    for file in sorted(files, key=lambda file: file.path):
        if file.problem or file.role != "weights":
            found.left_out.append(f"{file.path}: {file.problem or f'it is a {file.role}, not a model'}")
        elif file.first:
            found.add(fitting(_model_name(file)), {"from": file.path, "residency": {"load": "on_demand"}})
    return found


def _model_name(file: GgufFile) -> str:
    """Return `Qwen2-7B.Q4_K_M` → `qwen2-7b:q4_k_m`."""
    at = file.stem.upper().rfind(file.quant) if file.quant else -1
    if at > 0:
        return f"{file.stem[:at].rstrip('.-_')}:{file.quant}".lower()
    return file.stem.lower()
