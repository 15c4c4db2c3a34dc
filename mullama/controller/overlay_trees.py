"""The trees of models that verbs write into the overlay: what is said over what is there. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mullama.chat.inventory import CreateModel
from mullama.errors import Invalid, Unsupported
from mullama.manifest.spec import Model
from mullama.names import parse_source


def same_source(one: str, other: str) -> bool:
    """Whether two texts name the same source, however they spell it."""
    return parse_source(one) == parse_source(other)


def merged(base: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """The base with what is said over it: maps merge, all else replaces."""
    made = dict(base)
    for name, value in said.items():
        under = made.get(name)
        made[name] = merged(under, value) if isinstance(under, Mapping) and isinstance(value, Mapping) else value
    return made


def override(tree: dict[str, Any], request: CreateModel) -> None:
    """What the request says beside its base: parameters merge, the rest replaces."""
    if request.template is not None:
        tree["template"] = _template(request.template)
    if request.system is not None:
        tree["system"] = request.system
    if request.license:
        tree["license"] = "\n\n".join(request.license)
    if request.messages:
        tree["messages"] = [{"role": m.role, "content": m.text} for m in request.messages]
    if request.adapters:
        raise Unsupported("adapters of an upload are not served yet", hint="declare them in the manifest")
    for name, value in request.parameters.items():
        _parameter(tree, name, value)


def _parameter(tree: dict[str, Any], name: str, value: Any) -> None:
    """One Modelfile parameter, in the block where the manifest has it."""
    blocks = {
        "num_ctx": ("context", "size"), "num_batch": ("context", "batch"), "num_thread": ("context", "threads"),
        "num_gpu": ("gpu", "layers"), "main_gpu": ("gpu", "main"), "use_mmap": ("memory", "mmap"),
        "use_mlock": ("memory", "mlock"),
    }  # fmt: skip
    if name in blocks:
        block, field = blocks[name]
        tree.setdefault(block, {})[field] = value
        return
    if name not in Model.model_fields["parameters"].annotation.model_fields:  # type: ignore[union-attr]
        raise Invalid(f"unknown parameter '{name}'", field=f"parameters.{name}")
    tree.setdefault("parameters", {})[name] = [value] if name == "stop" and isinstance(value, str) else value


def _template(text: str) -> dict[str, str]:
    """Ollama's clients send Go templates; what has Jinja's marks is Jinja."""
    syntax = "jinja" if "{%" in text else "go"
    return {"text": text, "syntax": syntax}
