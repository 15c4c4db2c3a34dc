"""`mullama create`: create a model from a Modelfile or Mullamafile and keep it in the overlay."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mullama.cli.api_client.discover import FoundServer, is_remote
from mullama.cli.api_client.tasks import follow_task
from mullama.cli.app.context import CommandContext, Parser, UsageError
from mullama.cli.app.exit_codes import DONE
from mullama.cli.models.upload import upload_files
from mullama.cli.server.ensure import ensure_server, instance_options, model_path
from mullama.errors import ManifestError, NotFound, Refused
from mullama.names import ModelName, PathRef, parse_source
from mullama.struct import replace

if TYPE_CHECKING:
    from mullama.manifest.modelfile import ReadModelfile

# Files that are tried in this order when -f is missing.
FILES = ("Mullamafile", "Modelfile", "mullamafile", "modelfile", ".mullamafile", ".modelfile")


def create_options(parser: Parser) -> None:
    instance_options(parser, other_f=True)
    parser.add_argument("name", metavar="NAME", help="name of the model")
    parser.add_argument(
        "-f", "--modelfile", metavar="PATH", help=f"file to read (default: the first of {', '.join(FILES)} here)"
    )
    parser.add_argument("-q", "--quantize", metavar="TYPE", help="quantize the weights first, for example to q4_K_M")
    parser.add_argument("--quiet", action="store_true", help="print no progress")
    parser.add_argument(
        "--download", action=argparse.BooleanOptionalAction, default=True,
        help="download the source of FROM when it is not on this machine (default)",
    )  # fmt: skip


def create(call: CommandContext) -> int:
    """Create the model. A directive that cannot be honoured is an error with its line."""
    options = call.options
    path = _path(call)
    read = _read(call, path)
    name = ModelName.parse(options.name).text
    for remark in read.remarks:
        call.terminal.note(f"warning: {remark}")
    declaration = declaration_of(name, read, path.parent, call.env)
    server = ensure_server(call)
    _require_base(call, server, str(declaration["from"]), download=options.download)
    if options.quantize:
        declaration = {**declaration, "from": _quantized(call, server, str(declaration["from"]))}
    body = {"model": upload_files(call, server, declaration, quiet=options.quiet), "stream": True}
    follow_task(call, server.client.lines("PUT", model_path(name), body), quiet=options.quiet)
    if not options.quiet:
        _print_summary(call, name, declaration, path)
    return DONE


def _path(call: CommandContext) -> Path:
    if call.options.modelfile is not None:
        return Path(call.folder / Path(call.options.modelfile).expanduser())
    for name in FILES:
        if (call.folder / name).is_file():
            return call.folder / name
    raise NotFound(f"{call.folder} has none of {', '.join(FILES)}", hint="name a file with -f PATH")


def _read(call: CommandContext, path: Path) -> ReadModelfile:
    from mullama.manifest.modelfile import decode, parse_modelfile

    shown = path.relative_to(call.folder) if path.is_relative_to(call.folder) else path
    return parse_modelfile(decode(path.read_bytes()), str(shown))


def declaration_of(name: str, read: ReadModelfile, folder: Path, env: Mapping[str, str]) -> dict[str, Any]:
    """Return the file as a validated model of the manifest, with absolute paths."""
    from mullama.manifest.dump import to_yaml
    from mullama.manifest.interpolate import literal
    from mullama.manifest.load import load_text
    from mullama.manifest.modelfile import to_tree

    # A Modelfile has no variables.
    tree = {"mullama": "v1", "models": {name: literal(to_tree(read.spec))}}
    try:
        loaded = load_text(to_yaml(tree), name="the Modelfile", base_dir=str(folder.absolute()), profiles=(), env=env)
    except ManifestError as error:
        # The lines of the tree are not those of the file.
        problems = tuple(replace(problem, place=None) for problem in error.problems)
        raise ManifestError(problems, document="the Modelfile") from error
    model = loaded.manifest.models[name]
    fields = model.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_unset=True)
    return {**fields, "from": model.from_}


def _require_base(call: CommandContext, server: FoundServer, base: str, *, download: bool) -> None:
    """Raise `Refused` for a source that would have to be downloaded when `download` is false."""
    if download or isinstance(parse_source(base), PathRef) or base.startswith("builtin:") or _is_model(server, base):
        return
    from mullama.manifest.spec import Manifest
    from mullama.reconcile.files import Files

    files = Files.here(call.env)
    if files.library(Manifest(mullama="v1")).here(base) is None:
        raise Refused(
            f"{base} is not on this machine, and --no-download forbids the download", hint=f"mullama pull {base}"
        )


def _is_model(server: FoundServer, name: str) -> bool:
    try:
        server.client.get(model_path(name))
    except NotFound:
        return False
    return True


def _quantized(call: CommandContext, server: FoundServer, base: str) -> str:
    """Quantise the weights of the base into the store and return the path of the file."""
    from mullama.cli.models.quantize import into_store

    if is_remote(call):
        raise UsageError("--quantize works on this machine only, and the server is remote")
    source = str(server.client.get(model_path(base))["source"]) if _is_model(server, base) else base
    return into_store(call, source, call.options.quantize, quiet=call.options.quiet)


def _print_summary(call: CommandContext, name: str, declaration: Mapping[str, Any], path: Path) -> None:
    fields = ", ".join(key for key in declaration if key != "from")
    call.terminal.line(f"created {name} from {declaration['from']}" + (f" with {fields}" if fields else ""))
    call.terminal.line(f"read {path}; try: mullama run {name}, mullama show --modelfile {name}")
