"""`mullama show`: print the facts of a model, or one part of it in reusable form."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mullama.cli.api_client.discover import FoundServer, find
from mullama.cli.app.context import CommandContext, Parser, UsageError, json_option
from mullama.cli.app.exit_codes import DONE
from mullama.cli.server.ensure import instance_options, model_path
from mullama.errors import masked, masked_tree
from mullama.units import ago, counted, size

_NOT_HERE = "not on this machine; mullama pull or apply downloads it"
_MISSING = "the file is missing or damaged; restore it"
PARTS = ("modelfile", "parameters", "template", "system", "license")
_TEMPLATES = {"manifest": "from the manifest", "gguf": "from the weights file", "source": "from the registry"}
_SOURCES = {"renderer": "manifest", "gguf_chat_template": "gguf", "go_template": "source"}
"""The origins of templates in the words of the API."""


def show_options(parser: Parser) -> None:
    instance_options(parser)
    json_option(parser)
    parser.add_argument("name", metavar="NAME", help="a model or a route")
    parser.add_argument("--modelfile", action="store_true", help="print a Modelfile for `mullama create`")
    parser.add_argument("--parameters", action="store_true", help="print the parameters")
    parser.add_argument("--template", action="store_true", help="print the chat template")
    parser.add_argument("--system", action="store_true", help="print the system prompt")
    parser.add_argument("--license", action="store_true", help="print the license")
    parser.add_argument("-v", "--verbose", action="store_true", help="also print the metadata of the file")


def show(call: CommandContext) -> int:
    parts = [part for part in PARTS if getattr(call.options, part)]
    if len(parts) > 1:
        raise UsageError(f"use only one of {', '.join('--' + part for part in parts)}")
    server = find(call)
    model = _served(call, server) if server is not None else _local(call)
    if call.options.json:
        call.terminal.json({part: model[part] for part in parts} if parts else model)
    elif parts:
        _print_part(call, parts[0], model[parts[0]])
    else:
        _print_all(call, model)
    return DONE


def _print_part(call: CommandContext, part: str, value: Any) -> None:
    if part == "parameters":
        call.terminal.raw(format_parameters(value))
    elif value:
        call.terminal.raw(value if value.endswith("\n") else value + "\n")
    if part == "modelfile":
        from mullama.manifest.modelfile import lost_by_ollama

        for sentence in lost_by_ollama(value):
            call.terminal.note(f"warning: {sentence}")


def format_parameters(parameters: Mapping[str, Any]) -> str:
    """Format one line for each value, with aligned columns."""
    pairs = [(n, v) for n, value in parameters.items() for v in (value if isinstance(value, list) else [value])]
    width = max((len(name) for name, _ in pairs), default=0)
    return "".join(f"{name.ljust(width)}  {_plain(value)}\n" for name, value in pairs)


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value) if isinstance(value, str) else str(value)


def _local(call: CommandContext) -> dict[str, Any]:
    from mullama.cli.models.declared import known_files, model_of, modified, read_declared
    from mullama.manifest.modelfile import from_tree, render_modelfile
    from mullama.manifest.tree import unusual
    from mullama.plan.fit import context_size
    from mullama.plan.projectors import projector_of
    from mullama.runtime.serving.prompt_settings import (
        capabilities,
        chosen_template,
        effective_defaults,
        model_settings,
    )
    from mullama.struct import replace

    declared = read_declared(call)
    name, model = model_of(declared.manifest, call.options.name)
    known = known_files(call, declared)
    files, projector = known[model.from_], projector_of(model, known)
    facts = files.facts
    _, _, template_source = chosen_template(model, files)
    effective = effective_defaults(model, files)
    settings = replace(model_settings(name, model, files), media=projector.kinds if projector else ())
    spec, left = from_tree(masked_tree(unusual(model)))
    return {
        "name": name,
        "source": masked(model.from_),
        "repository": masked(files.weights.resolved) if files.weights else None,
        "family": facts.architecture if facts else None,
        "architecture": facts.architecture if facts else None,
        "parameter_size": facts.parameter_size if facts else None,
        "quantization": facts.quantization if facts else None,
        "size_bytes": files.size,
        "digest": files.digest,
        "context": context_size(model, facts),
        "context_max": facts.train_context if facts else None,
        "embedding_length": facts.embedding_length if facts else None,
        "capabilities": list(capabilities(settings, facts)),
        "vocab_size": facts.vocabulary if facts else None,
        "paths": list(files.paths),
        "modified": modified(files),
        "stored": files.stored,
        "parameters": {**effective.parameters, "num_ctx": context_size(model, facts)},
        "system": effective.system,
        "template": effective.template,
        "template_source": template_source,
        "license": "\n\n".join(effective.license),
        "modelfile": render_modelfile(spec, left),
        "metadata": _metadata(files.paths) if call.options.verbose and files.stored else {},
    }


def _metadata(paths: Iterable[str]) -> dict[str, Any]:
    """Return the metadata of the GGUF header, with long arrays abbreviated."""
    from mullama.sources.local_files import look_into

    return {key: _abbreviated(value) for key, value in look_into(tuple(paths)).metadata.items()}


def _abbreviated(value: Any) -> Any:
    """Replace an array that was not read, or is long, by its length."""
    if isinstance(value, Mapping) and "length" in value:
        return f"[{counted(value['length'], 'item')}]"
    return f"[{len(value)} items]" if isinstance(value, (list, tuple)) and len(value) > 8 else value


def _served(call: CommandContext, server: FoundServer) -> dict[str, Any]:
    """Ask a server for the model. It answers without the manifest, whose modules take long to import."""
    verbose = "?verbose=1" if call.options.verbose else ""
    tree = server.client.get(model_path(call.options.name) + verbose)
    return {
        "name": tree["name"],
        "source": tree["source"],
        "repository": tree.get("repository"),
        "family": tree["family"],
        "architecture": tree["family"],
        "parameter_size": tree["parameter_size"],
        "quantization": tree["quantization"],
        "size_bytes": tree["size"],
        "digest": tree["digest"],
        "context": tree["context_size"],
        "context_max": tree["train_context"],
        "embedding_length": tree["embedding_length"],
        "capabilities": tree["capabilities"],
        "vocab_size": tree["vocab_size"],
        "paths": tree.get("paths") or [],
        "modified": tree["modified"],
        "stored": tree.get("stored", bool(tree["size"])),
        "parameters": tree["settings"],
        "system": tree["system"],
        "template": tree["template"],
        "template_source": _SOURCES.get(tree["template_source"], tree["template_source"]),
        "license": tree["license"],
        "modelfile": tree["modelfile"],
        "metadata": {k: _abbreviated(v) for k, v in tree["metadata"].items()} if call.options.verbose else {},
    }


def _print_all(call: CommandContext, model: Mapping[str, Any]) -> None:
    absent = "" if model["stored"] else _MISSING if Path(model["source"]).is_absolute() else _NOT_HERE
    template = _TEMPLATES.get(model["template_source"], "none") if model["template"] else "none"
    rows = (
        ("Name", model["name"]),
        ("Family", model["family"]),
        ("Parameters", model["parameter_size"]),
        ("Quantization", model["quantization"]),
        ("Size", size(model["size_bytes"]) if model["size_bytes"] else None),
        ("Context", f"{model['context']} (max {model['context_max']})" if model["context_max"] else model["context"]),
        ("Embedding", model["embedding_length"] or None),
        ("Vocabulary", model["vocab_size"] or None),
        ("Capabilities", ", ".join(model["capabilities"])),
        ("Source", model["source"]),
        ("Repository", model["repository"]),
        ("Digest", model["digest"]),
        ("Path", ", ".join(model["paths"]) or absent),
        ("Modified", ago(time.time() - model["modified"]) if model["modified"] else None),
        ("Template", None if absent and template == "none" else template),
        ("System", model["system"]),
        ("License", (model["license"] or "").splitlines()[0][:80] if model["license"] else None),
    )
    width = max(len(label) for label, _ in rows)
    for label, value in rows:
        if value not in (None, ""):
            call.terminal.line(f"{label.ljust(width)}  {value}")
    if model["parameters"]:
        call.terminal.line()
        call.terminal.line("Settings:")
        for text in format_parameters(model["parameters"]).splitlines():
            call.terminal.line(f"  {text}")
    for key, value in model["metadata"].items():
        call.terminal.line(f"  {key}  {value}")
