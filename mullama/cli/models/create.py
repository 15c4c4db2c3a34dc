"""`mullama create`: a model of one's own from a Modelfile or Mullamafile, kept beside the manifest."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mullama.cli.api_client.discover import FoundServer, is_remote
from mullama.cli.api_client.tasks import follow_task
from mullama.cli.app.context import CommandContext, Parser, UsageError
from mullama.cli.app.exit_codes import DONE
from mullama.cli.models.upload import sent
from mullama.cli.server.ensure import ensure_server, instance_options, model_path
from mullama.errors import NotFound, Refused
from mullama.names import ModelName, PathRef, parse_source

if TYPE_CHECKING:
    from mullama.manifest.modelfile import ReadModelfile

# Where a model file is looked for when none is named, in this order.
FILES = ("Mullamafile", "Modelfile", "mullamafile", "modelfile", ".mullamafile", ".modelfile")


def create_options(parser: Parser) -> None:
    instance_options(parser)
    parser.add_argument("name", metavar="NAME", help="what the model is called")
    parser.add_argument(
        "-f", "--modelfile", metavar="PATH", help=f"what to make it of (default: the first of {', '.join(FILES)} here)"
    )
    parser.add_argument("-q", "--quantize", metavar="TYPE", help="quantise the weights first, such as q4_K_M")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.add_argument(
        "--download", action=argparse.BooleanOptionalAction, default=True,
        help="fetch what FROM names when it is not here (default); --no-download refuses instead",
    )  # fmt: skip


def create(call: CommandContext) -> int:
    """Every directive is honoured or refused with its line."""
    options = call.options
    path = _path(call)
    read = _read(call, path)
    name = ModelName.parse(options.name).text
    for remark in read.remarks:
        call.terminal.note(f"warning: {remark}")
    said = said_model(name, read, path.parent, call.env)
    server = ensure_server(call)
    _check_base(call, server, str(said["from"]), download=options.download)
    if options.quantize:
        said = {**said, "from": _quantized(call, server, str(said["from"]))}
    body = {"model": sent(call, server, said, quiet=options.quiet), "stream": True}
    follow_task(call, server.client.lines("PUT", model_path(name), body), quiet=options.quiet)
    if not options.quiet:
        _summary(call, name, said, path)
    return DONE


def _path(call: CommandContext) -> Path:
    if call.options.modelfile is not None:
        return Path(call.folder / Path(call.options.modelfile).expanduser())
    for name in FILES:
        if (call.folder / name).is_file():
            return call.folder / name
    raise NotFound(f"none of {', '.join(FILES)} is in {call.folder}", hint="-f PATH names one")


def _read(call: CommandContext, path: Path) -> ReadModelfile:
    from mullama.manifest.modelfile import decode, parse_modelfile

    shown = path.relative_to(call.folder) if path.is_relative_to(call.folder) else path
    return parse_modelfile(decode(path.read_bytes()), str(shown))


def said_model(name: str, read: ReadModelfile, folder: Path, env: Mapping[str, str]) -> dict[str, Any]:
    """What the file says, in the manifest's resolved words: paths absolute, spellings settled, checked."""
    from mullama.manifest.dump import to_yaml
    from mullama.manifest.load import load_text
    from mullama.manifest.modelfile import to_tree

    tree = {"mullama": "v1", "models": {name: _literal(to_tree(read.spec))}}
    loaded = load_text(to_yaml(tree), name="the Modelfile", base_dir=str(folder.absolute()), profiles=(), env=env)
    model = loaded.manifest.models[name]
    said = model.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_unset=True)
    return {**said, "from": model.from_}


def _literal(value: Any) -> Any:
    """The tree with nothing left that a manifest would interpolate: a Modelfile knows no variables."""
    if isinstance(value, str):
        return value.replace("${", "$${")
    if isinstance(value, Mapping):
        return {key: _literal(item) for key, item in value.items()}
    return [_literal(item) for item in value] if isinstance(value, (list, tuple)) else value


def _check_base(call: CommandContext, server: FoundServer, base: str, *, download: bool) -> None:
    if download or isinstance(parse_source(base), PathRef) or base.startswith("builtin:") or _is_model(server, base):
        return
    from mullama.manifest.spec import Manifest
    from mullama.reconcile.files import Files

    files = Files.here(call.env)
    if files.library(Manifest(mullama="v1")).here(base) is None:
        raise Refused(f"{base} is not on this machine, and --no-download fetches nothing", hint=f"mullama pull {base}")


def _is_model(server: FoundServer, name: str) -> bool:
    try:
        server.client.get(model_path(name))
    except NotFound:
        return False
    return True


def _quantized(call: CommandContext, server: FoundServer, base: str) -> str:
    """The path of the base's weights in another quantisation, kept in the store."""
    from mullama.cli.models.quantize import into_store

    if is_remote(call):
        raise UsageError("--quantize works on this machine, and the server is elsewhere")
    source = str(server.client.get(model_path(base))["source"]) if _is_model(server, base) else base
    return into_store(call, source, call.options.quantize, quiet=call.options.quiet)


def _summary(call: CommandContext, name: str, said: Mapping[str, Any], path: Path) -> None:
    fields = ", ".join(key for key in said if key != "from")
    call.terminal.line(f"created {name} from {said['from']}" + (f" with {fields}" if fields else ""))
    call.terminal.line(f"of {path}; mullama run {name} asks it, mullama show --modelfile {name} prints it")
