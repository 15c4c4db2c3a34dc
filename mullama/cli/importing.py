"""`mullama import`: a manifest of what other tools have on this machine; nothing of theirs is moved or changed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mullama.cli.call import Call, Parser, Usage, json_option
from mullama.cli.exits import DONE, PARTLY
from mullama.errors import Invalid, MullamaError, NotFound, Refused

if TYPE_CHECKING:
    from mullama.manifest.importing import GgufFile, Imported
    from mullama.manifest.nodes import Node

KINDS = ("ollama", "dir", "llama-swap", "compose")


def import_options(parser: Parser) -> None:
    parser.add_argument("kind", choices=KINDS, help="what to read")
    parser.add_argument("path", nargs="?", metavar="PATH", help="the folder or file; for ollama its store")
    parser.add_argument("-o", "--output", default="-", metavar="FILE", help="where to write (default: standard output)")
    parser.add_argument("--force", action="store_true", help="write over a file that is there")
    json_option(parser)


def import_(call: Call) -> int:
    """Exit 8 when something could not be carried; each such thing is said on stderr."""
    from mullama.cli.yamltext import to_yaml

    found = _found(call)
    tree = found.tree()
    if call.options.json:
        call.terminal.json({"manifest": tree, "left_out": found.left_out})
    elif call.options.output == "-":
        call.terminal.raw(to_yaml(tree))
    else:
        _write(call, to_yaml(tree))
    for text in found.left_out:
        call.terminal.note(f"left out: {text}")
    return PARTLY if found.left_out else DONE


def _found(call: Call) -> Imported:
    from mullama.manifest import importing

    kind, path = call.options.kind, call.options.path
    if kind == "ollama":
        return _ollama(call)
    if path is None:
        raise Usage(f"import {kind} needs a path")
    place = call.folder / Path(path).expanduser()
    if kind == "dir":
        return _folder(place)
    tree = read_yaml(place)
    return importing.from_llama_swap(tree) if kind == "llama-swap" else importing.from_compose(tree)


def _ollama(call: Call) -> Imported:
    from mullama.manifest.importing import registry_models
    from mullama.names import RegistryRef
    from mullama.store.foreign import Foreign, usual_roots

    said = call.options.path
    folder = str((call.folder / Path(said).expanduser()).absolute()) if said else "auto"
    roots = usual_roots(call.env, ollama=folder)
    foreign = Foreign(roots)
    refs = foreign.registry_models()
    if not refs:
        raise NotFound(f"no model of Ollama is in {' or '.join(roots.ollama)}", hint="import ollama PATH names a store")

    def problem(ref: RegistryRef) -> str:
        try:
            return "" if foreign.by_ref(ref) else "it is not whole, or holds no GGUF weights"
        except MullamaError as error:
            return error.message

    found = registry_models((ref, problem(ref)) for ref in refs)
    if said:
        found.left_out.append(f"that the store is in {folder}: say it in sources.stores.ollama")
    return found


def _folder(place: Path) -> Imported:
    from mullama.manifest.importing import folder_models
    from mullama.store.foreign import Foreign, Roots

    if not place.is_dir():
        raise NotFound(f"{place} is no folder", name=str(place))
    paths = [path for path, _ in Foreign(Roots(gguf=(str(place.absolute()),))).ggufs()]
    if not paths:
        raise NotFound(f"{place} holds no GGUF file", name=str(place))
    return folder_models(_described(path) for path in paths)


def _described(path: str) -> GgufFile:
    """What a file's name tells."""
    from mullama.manifest.importing import GgufFile
    from mullama.weights.choose import quant_of, role
    from mullama.weights.split import split_name

    base = Path(path).name
    stem = re.sub(r"-\d{5}-of-\d{5}$", "", base.removesuffix(".gguf"))
    try:
        first, problem = base == split_name(base)[0], ""
    except Invalid as error:
        first, problem = True, error.message
    return GgufFile(path=path, role=role(base), stem=stem, quant=quant_of(base), first=first, problem=problem)


def read_yaml(place: Path) -> dict[str, Any]:
    """A YAML file as plain values, read within the manifest's bounds."""
    from mullama.errors import ManifestError
    from mullama.manifest.load.document import Allowance, read_document

    document = read_document(place.read_bytes(), str(place), Allowance())
    if document.problems:
        raise ManifestError(tuple(document.problems))
    tree = plain(document.root)
    if not isinstance(tree, dict):
        raise Usage(f"{place} holds no map")
    return tree


def plain(node: Node) -> Any:
    """The values of a tree without their places."""
    from mullama.manifest.nodes import Fields, Items

    if isinstance(node, Fields):
        return {key: plain(value) for key, value in node.entries.items()}
    return [plain(item) for item in node.items] if isinstance(node, Items) else node.value


def _write(call: Call, text: str) -> None:
    path = call.folder / Path(call.options.output).expanduser()
    if path.exists() and not call.options.force:
        raise Refused(f"{path} exists already", hint="--force writes over it")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    call.terminal.line(f"wrote {call.options.output}; mullama validate -f {call.options.output} checks it")
