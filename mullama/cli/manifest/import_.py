"""`mullama import`: writes a manifest from the models of other tools. Their files stay in place."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mullama.cli.app.context import CommandContext, Parser, UsageError, json_option
from mullama.cli.app.exit_codes import DONE, PARTLY
from mullama.cli.app.text_files import write_text
from mullama.errors import Invalid, MullamaError, NotFound, Refused

if TYPE_CHECKING:
    from mullama.manifest.importing import GgufFile, Imported, RegistryModel
    from mullama.manifest.nodes import Node
    from mullama.names import RegistryRef
    from mullama.store.foreign import Foreign

KINDS = ("ollama", "dir", "llama-swap", "compose")


def import_options(parser: Parser) -> None:
    parser.add_argument("kind", choices=KINDS, help="kind of the source")
    parser.add_argument("path", nargs="?", metavar="PATH", help="folder or file to read; for ollama, its store")
    parser.add_argument("-o", "--output", default="-", metavar="FILE", help="file to write (default: standard output)")
    parser.add_argument("--force", action="store_true", help="overwrite an existing file")
    json_option(parser)


def import_(call: CommandContext) -> int:
    """Write the manifest. Settings without an equivalent are listed on stderr, and the exit code is then 8.

    Notes on stderr are about changes that lose nothing, such as another name; they leave the exit code 0.
    """
    from mullama.manifest.dump import to_yaml

    found = _read_models(call)
    tree = found.tree()
    if call.options.json:
        call.terminal.json({"manifest": tree, "left_out": found.left_out, "notes": found.notes})
    elif call.options.output == "-":
        call.terminal.raw(to_yaml(tree))
    else:
        _write(call, to_yaml(tree))
    for text in found.notes:
        call.terminal.note(f"note: {text}")
    for text in found.left_out:
        call.terminal.note(f"left out: {text}")
    return PARTLY if found.left_out else DONE


def _read_models(call: CommandContext) -> Imported:
    from mullama.manifest import importing

    kind, path = call.options.kind, call.options.path
    if kind == "ollama":
        return _ollama(call)
    if path is None:
        raise UsageError(f"import {kind} needs a path")
    place = call.folder / Path(path).expanduser()
    if kind == "dir":
        return _folder(place)
    tree = read_yaml(place)
    return importing.from_llama_swap(tree) if kind == "llama-swap" else importing.from_compose(tree)


def _ollama(call: CommandContext) -> Imported:
    from mullama.manifest.importing import registry_models
    from mullama.store.foreign import Foreign, usual_roots

    path = call.options.path
    folder = str((call.folder / Path(path).expanduser()).absolute()) if path else "auto"
    roots = usual_roots(call.env, ollama=folder)
    foreign = Foreign(roots)
    refs = foreign.registry_models()
    if not refs:
        raise NotFound(f"no Ollama model found in {' or '.join(roots.ollama)}", hint="import ollama PATH names a store")

    found = registry_models(_registry_model(foreign, ref) for ref in refs)
    if path:
        found.stores["ollama"] = folder
    return found


def _registry_model(foreign: Foreign, ref: RegistryRef) -> RegistryModel:
    """Return one model of the store, from its layers, its config and the header of its weights."""
    from mullama.manifest.importing import RegistryModel
    from mullama.sources.local_files import look_into, read_text
    from mullama.weights.registry_manifest import TEXTS, read_defaults

    try:
        located = foreign.by_ref(ref)
        if located is None:
            return RegistryModel(ref=ref, problem="it is incomplete, or has no GGUF weights")
        texts = [(file.role, read_text(file.path or "")) for file in located.files if file.role in TEXTS]
        defaults = read_defaults(texts, str(ref))
        weights = tuple(file.path or "" for file in located.files if file.role == "weights")
        in_weights = bool(look_into(weights).template)
        config = foreign.registry_config(ref)
    except MullamaError as error:
        return RegistryModel(ref=ref, problem=error.message)
    renderer = str(config.get("renderer") or config.get("parser") or "")
    return RegistryModel(
        ref=ref, parameters=defaults.parameters, renderer=renderer, template=defaults.template,
        weights_template=in_weights,
    )  # fmt: skip


def _folder(place: Path) -> Imported:
    from mullama.manifest.importing import folder_models
    from mullama.store.foreign import Foreign, Roots

    if not place.is_dir():
        raise NotFound(f"{place} is not a folder", name=str(place))
    paths = [path for path, _ in Foreign(Roots(gguf=(str(place.absolute()),))).ggufs()]
    if not paths:
        raise NotFound(f"{place} has no GGUF file", name=str(place))
    return folder_models(_gguf_file(path) for path in paths)


def _gguf_file(path: str) -> GgufFile:
    """Return the facts in the name and the header of a file."""
    from mullama.manifest.importing import GgufFile
    from mullama.weights.choose import quant_of, role
    from mullama.weights.split import split_name, stem

    base = Path(path).name
    parts: tuple[str, ...] = (base,)
    try:
        parts, problem = split_name(base), ""
    except Invalid as error:
        problem = error.message
    first, kind = base == parts[0], role(base)
    if first and not problem and kind == "weights":
        problem = _unusable([str(Path(path).with_name(part)) for part in parts])
    return GgufFile(path=path, role=kind, stem=stem(base), quant=quant_of(base), first=first, problem=problem)


def _unusable(paths: list[str]) -> str:
    """Return the reason that a set of files cannot be loaded, "" if it can."""
    from mullama.sources.local_files import look_into

    missing = [path for path in paths if not Path(path).is_file()]
    if missing:
        return f"its part {Path(missing[0]).name} is missing"
    try:
        look_into(paths)
    except MullamaError as error:
        return error.message.removeprefix(f"{paths[0]}: ")
    return ""


def read_yaml(place: Path) -> dict[str, Any]:
    """Read a YAML file, under the limits of a manifest."""
    from mullama.errors import ManifestError
    from mullama.manifest.load.document import DocumentBudget, read_document

    document = read_document(place.read_bytes(), str(place), DocumentBudget())
    if document.problems:
        raise ManifestError(tuple(document.problems))
    tree = plain(document.root)
    if not isinstance(tree, dict):
        raise UsageError(f"{place} is not a map")
    return tree


def plain(node: Node) -> Any:
    """Return the values of a tree without their locations."""
    from mullama.manifest.nodes import Fields, Items

    if isinstance(node, Fields):
        return {key: plain(value) for key, value in node.entries.items()}
    return [plain(item) for item in node.items] if isinstance(node, Items) else node.value


def _write(call: CommandContext, text: str) -> None:
    path = call.folder / Path(call.options.output).expanduser()
    if path.exists() and not call.options.force:
        raise Refused(f"{path} already exists", hint="--force overwrites it")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    call.terminal.line(f"wrote {call.options.output}; mullama validate -f {call.options.output} checks it")
