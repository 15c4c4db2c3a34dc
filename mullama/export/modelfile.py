"""Modelfiles of the models, for Ollama and `mullama create`."""

from __future__ import annotations

from itertools import count

from mullama.errors import NotFound, masked_tree
from mullama.export.base import Exported, ExportedFile, ExportInput, header
from mullama.manifest.modelfile import from_tree, lost_by_ollama, render_modelfile
from mullama.manifest.spec import Model
from mullama.manifest.tree import unusual
from mullama.names import ModelName


def export_modelfile(given: ExportInput) -> Exported:
    """Return one file for each model: `NAME.modelfile`."""
    files: list[ExportedFile] = []
    notes: list[str] = []
    for name, model in chosen_models(given).items():
        text = render_modelfile(*from_tree(masked_tree(unusual(model))))
        path = f"{name.replace('/', '_').replace(':', '-')}.modelfile"
        if path in (taken := {file.path for file in files}):
            path = next(other for at in count(2) if (other := f"{path[:-10]}.{at}.modelfile") not in taken)
        head = header("modelfile", f"mullama create {name} -f {path}")
        files.append(ExportedFile(path=path, text="".join(f"# {line}\n" for line in head.split("\n")) + text))
        notes += [f"{name}: {line}" for line in lost_by_ollama(text)]
    return Exported(files=tuple(files), notes=tuple(notes))


def chosen_models(given: ExportInput) -> dict[str, Model]:
    """Return the models of the options by name, or all; raise `NotFound` for a name that no model has."""
    models = given.manifest.models
    if not given.options.models:
        return dict(models)
    by_key = {ModelName.parse(name).key: name for name in models}
    chosen = {}
    for wanted in given.options.models:
        name = by_key.get(ModelName.parse(wanted).key)
        if name is None:
            raise NotFound(f"the manifest has no model {wanted!r}", name=wanted, hint="mullama config lists them")
        chosen[name] = models[name]
    return chosen
