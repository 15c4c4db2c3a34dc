"""The result of an import; and imports from an Ollama store and from a folder of GGUF files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mullama.chat.template.gotemplate import compile_go
from mullama.errors import MullamaError
from mullama.manifest.interpolate import literal
from mullama.manifest.modelfile.spec import PARAMETERS, WITHOUT_EFFECT
from mullama.names import JSONValue, ModelName, RegistryRef
from mullama.struct import Struct, field, repr_without

# Parameters of a Modelfile that say how a model is loaded: a store's layer is read for requests only.
_LOADING = ("num_ctx", "num_batch", "num_thread", "num_gpu", "main_gpu", "use_mmap", "use_mlock")
_USUAL = ("registry.ollama.ai", "library")


class Imported(Struct):
    """Parts of a manifest as trees. left_out: descriptions of the settings that were not imported.

    notes: changes and next steps to know; nothing is lost by them.
    stores: `sources.stores` of the manifest, for a store that is not in its default folder.
    secrets: by the variable that replaces each; they are never written.
    """

    models: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    routes: dict[str, str] = field(default_factory=dict)
    stores: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    server: dict[str, Any] = field(default_factory=dict)
    keys: dict[str, dict[str, Any]] = field(default_factory=dict)
    hub: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    """Further blocks of the manifest; those of `server` are merged with `server`."""
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    aliases: list[tuple[str, str, str]] = field(default_factory=list)
    secrets: dict[str, str] = field(default_factory=dict)

    __repr__ = repr_without("secrets")

    def add(self, name: str, model: Mapping[str, Any]) -> str:
        """Add a model under a valid and unused name; return the name."""
        wanted = unique = ModelName.fitting(name)
        taken = {ModelName.parse(known).key for known in self.models}
        count = 1
        while unique.key in taken:
            count += 1
            unique = wanted.numbered(count)
        if unique.text != name:
            self.notes.append(f"the name {name!r} was changed to {unique.text!r}")
        self.models[unique.text] = model
        return unique.text

    def add_aliases(self, where: str, aliases: Iterable[Any], model: str) -> None:
        """Keep further names of a model for `add_routes`, which knows the names of all models."""
        self.aliases += [(where, str(alias), model) for alias in aliases]

    def add_routes(self) -> None:
        """Add a route for each alias; one that another model has is left out."""
        taken = {ModelName.parse(name).key: name for name in self.models}
        for where, alias, model in self.aliases:
            route = ModelName.fitting(alias).text
            owner = taken.setdefault(ModelName.parse(route).key, model)
            if owner != model:
                self.left_out.append(f"{where}: the alias {alias!r}, which is a name of {owner}")
                continue
            if route != model:
                self.routes[route] = model
            if route != alias:
                self.notes.append(f"the name {alias!r} was changed to {route!r}")

    def tree(self) -> dict[str, Any]:
        """Return the manifest of the import as a tree."""
        sources = {name: tree for name, tree in (("hf", self.hub), ("stores", self.stores)) if tree}
        blocks = {
            "metadata": self.metadata, "server": {**self.server, **self.settings.get("server", {})},
            "auth": {"keys": self.keys} if self.keys else {}, "sources": sources,
            "observability": self.settings.get("observability", {}), "defaults": self.settings.get("defaults", {}),
            "models": self.models, "routes": self.routes,
        }  # fmt: skip
        return {"mullama": "v1"} | {name: block for name, block in blocks.items() if block or name == "models"}


class RegistryModel(Struct, frozen=True, kw_only=True):
    """A model of an Ollama store. problem: reason why it cannot be used, "" if it can.

    parameters: of its parameter layer. renderer: name of its built-in renderer, "" for none. template: its Go template,
    "" for none. weights_template: True if the weights file has a template, too.
    """

    ref: RegistryRef
    problem: str = ""
    parameters: Mapping[str, JSONValue] = field(default_factory=dict)
    renderer: str = ""
    template: str = ""
    weights_template: bool = False


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
        declared: dict[str, Any] = {"parameters": loading} if loading else {}
        problem = _template_problem(model)
        if model.template and model.weights_template and not problem:
            declared["template"] = {"go": literal(model.template)}
        name = found.add(name, {"from": _short(ref), **declared, "residency": {"load": "on_demand"}})
        unknown = [key for key in model.parameters if key not in PARAMETERS and key not in WITHOUT_EFFECT]
        found.left_out += [f"{name}: the parameter {key}, which is unknown" for key in unknown]
        found.left_out += [f"{name}: {problem}"] if problem else []
        idle = [key for key in model.parameters if key in WITHOUT_EFFECT]
        found.notes += [f"{name}: the parameter {key} has no effect" for key in idle]
    return found


def _template_problem(model: RegistryModel) -> str:
    """Return the part of the prompt format that cannot be imported and its replacement, "" if it is complete."""
    if model.weights_template:
        instead = "the template in the weights file is used"
    else:
        instead = "its Go template is used" if model.template else "set `template`"
    if model.renderer:
        return f"its renderer {model.renderer}; {instead}"
    try:
        if model.template:
            compile_go(model.template)
    except MullamaError as error:
        return f"its Go template ({error.message}); {instead if model.weights_template else 'set `template`'}"
    return ""


def _short(ref: RegistryRef) -> str:
    """Return the short form of the reference."""
    return f"ollama:{ref.model}:{ref.tag}" if (ref.host, ref.namespace) == _USUAL else str(ref)


class GgufFile(Struct, frozen=True, kw_only=True):
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
            name = ModelName.fitting(_model_name(file)).text
            found.add(name, {"from": literal(file.path), "residency": {"load": "on_demand"}})
    return found


def _model_name(file: GgufFile) -> str:
    """Return `Qwen2-7B.Q4_K_M` → `qwen2-7b:q4_k_m`."""
    at = file.stem.upper().rfind(file.quant) if file.quant else -1
    if at > 0:
        return f"{file.stem[:at].rstrip('.-_')}:{file.quant}".lower()
    return file.stem.lower()
