"""Converts Modelfiles to models of the manifest, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from mullama.manifest.modelfile.lines import OWN, own_directives, written
from mullama.manifest.modelfile.spec import PARAMETERS, ModelfileSpec
from mullama.names import JSONValue

Tree = dict[str, JSONValue]

# Fields of a model that a Modelfile can express; others become remarks.
_CREATED: JSONValue = {"load": "on_demand"}
"""The residency of each model that is created from a Modelfile."""
_EXPRESSED = frozenset((
    "adapters", "description", "digest", "draft", "from", "license", "messages", "mmproj", "parameters",
    "requires", "system", "template", "x-author",
))  # fmt: skip


def to_tree(spec: ModelfileSpec) -> Tree:
    """Return the model as a tree of the manifest, with the fields of the Modelfile only."""
    tree: Tree = {"from": spec.base}
    if spec.adapters:
        tree["adapters"] = [{"from": path} for path in spec.adapters]
    for key, value in (("mmproj", spec.projector), ("draft", spec.draft), ("digest", spec.digest)):
        if value is not None:
            tree[key] = value
    if spec.gpu_layers is not None:
        tree["gpu"] = {"layers": spec.gpu_layers}
    if spec.flash_attention is not None:
        tree["context"] = {"flash_attention": spec.flash_attention}
    if spec.system is not None:
        tree["system"] = spec.system
    if spec.template:
        tree["template"] = {"go": spec.template}
    elif spec.jinja:
        tree["template"] = {"text": spec.jinja}
    if spec.messages:
        tree["messages"] = [{"role": role, "content": content} for role, content in spec.messages]
    if spec.parameters:
        tree["parameters"] = {k: list(v) if isinstance(v, tuple) else v for k, v in spec.parameters}
    if spec.license:
        tree["license"] = "\n\n".join(spec.license)
    if spec.requires:
        tree["requires"] = list(spec.requires)
    if spec.author is not None:
        tree["x-author"] = spec.author
    return tree


def from_tree(tree: Mapping[str, JSONValue]) -> tuple[ModelfileSpec, tuple[str, ...]]:
    """Return the Modelfile of a model, and the names of the fields that it cannot express."""
    left = [key for key in tree if key not in _EXPRESSED]
    parameters = _parameters(tree.get("parameters"))
    gpu, context = _map(tree.get("gpu")), _map(tree.get("context"))
    layers, flash = gpu.get("layers"), context.get("flash_attention")
    template, draft = _map(tree.get("template")), _map(tree.get("draft"))
    go = template.get("go") or (template.get("text") if template.get("syntax") == "go" else None)
    jinja = template.get("text") if template.get("syntax", "jinja") == "jinja" else None
    if template and not (go or jinja):
        left.append("template")
    left += [f"parameters.{name}" for name in _map(tree.get("parameters")) if name not in PARAMETERS]
    given = {key for item in _list(tree.get("adapters")) for key in _map(item)}
    left += [f"adapters.{name}" for name in sorted(given - {"from"})]
    if isinstance(size := context.get("size"), int):
        parameters.append(("num_ctx", size))
    if isinstance(tokens := draft.get("tokens"), int):
        parameters.append(("draft_num_predict", tokens))
    left += [f"draft.{name}" for name in draft if name not in ("from", "tokens")]
    if set(gpu) <= {"layers"} and (layers == "all" or isinstance(layers, int)):
        left = [key for key in left if key != "gpu"]
    if tree.get("residency") == _CREATED:
        left.remove("residency")
    if set(context) <= {"flash_attention", "size"}:
        left = [key for key in left if key != "context"]
    spec = ModelfileSpec(
        base=str(tree.get("from", "")),
        adapters=tuple(str(_map(item).get("from", "")) for item in _list(tree.get("adapters"))),
        projector=_text(tree.get("mmproj")),
        draft=_text(draft.get("from")),
        digest=_text(tree.get("digest")),
        gpu_layers="all" if layers == "all" else layers if isinstance(layers, int) else None,
        flash_attention=flash if flash in ("on", "off", "auto") else None,
        template=_text(go),
        jinja=_text(jinja),
        system=_text(tree.get("system")),
        messages=tuple(
            (str(_map(item).get("role")), str(_map(item).get("content"))) for item in _list(tree.get("messages"))
        ),
        parameters=tuple(parameters),
        license=(str(tree["license"]),) if tree.get("license") else (),
        requires=tuple(str(item) for item in _list(tree.get("requires"))),
        author=_text(tree.get("x-author")),
    )
    return spec, tuple(left)


def render_modelfile(spec: ModelfileSpec, left_out: Sequence[str] = ()) -> str:
    """Return the text that `parse_modelfile` reads as an equal spec; the names of `left_out` become comments."""
    lines = [f"# left out: a Modelfile has no directive for {name}" for name in left_out]
    lines += [written(name, value) for name, value in _directives(spec)]
    if spec.jinja and not spec.template:
        lines.append(f"{OWN}TEMPLATE jinja {json.dumps(spec.jinja)}")
    text = "\n".join(lines) + "\n"
    if own := own_directives(text):
        text = f"# Ollama does not read {', '.join(dict.fromkeys(own))}; mullama create does.\n{text}"
    return text


def lost_by_ollama(modelfile: str) -> tuple[str, ...]:
    """Return a sentence for each part of a model that this text does not carry everywhere."""
    own = dict.fromkeys(own_directives(modelfile))
    lost = [f"{name} cannot be written for Ollama; only mullama create reads it" for name in own]
    left = [line.removeprefix("# left out: ") for line in modelfile.split("\n") if line.startswith("# left out: ")]
    return (*lost, *(f"left out: {line}" for line in left))


def _directives(spec: ModelfileSpec) -> list[tuple[str, str]]:
    """Yield the directives in their usual order."""
    made = [("FROM", spec.base)]
    made += [("ADAPTER", path) for path in spec.adapters]
    single: tuple[tuple[str, str | int | None], ...] = (
        ("VISION_PROJECTOR", spec.projector),
        ("DRAFT", spec.draft),
        ("DIGEST", spec.digest),
        ("GPU_LAYERS", 99 if spec.gpu_layers == "all" else spec.gpu_layers),
        ("FLASH_ATTENTION", spec.flash_attention),
        ("TEMPLATE", spec.template),
        ("SYSTEM", spec.system),
    )
    made += [(name, str(value)) for name, value in single if value is not None]
    for name, value in spec.parameters:
        values = value if isinstance(value, tuple) else (value,)
        made += [(f"PARAMETER {name}", _written(item)) for item in values]
    made += [(f"MESSAGE {role}", text) for role, text in spec.messages]
    made += [("CAPABILITY", name) for name in spec.requires]
    made += [("LICENSE", text) for text in spec.license]
    return made + ([("AUTHOR", spec.author)] if spec.author is not None else [])


def _written(value: JSONValue) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _parameters(given: JSONValue) -> list[tuple[str, JSONValue]]:
    made: list[tuple[str, JSONValue]] = []
    for name, value in _map(given).items():
        if name in PARAMETERS and value not in (None, []):
            made.append((name, tuple(value) if isinstance(value, list | tuple) else value))
    return made


def _map(value: JSONValue) -> Mapping[str, JSONValue]:
    return value if isinstance(value, Mapping) else {}


def _list(value: JSONValue) -> Sequence[JSONValue]:
    return value if isinstance(value, list | tuple) else ()


def _text(value: JSONValue) -> str | None:
    return value if isinstance(value, str) else None
